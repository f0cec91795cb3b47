"""The projector starts as the zero-shot or the class-mean head, and its adapter is stored without a loss."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from aerogel.condense.config import ADAPTER_CODECS, ProjectorConfig
from aerogel.condense.families import Backbone, load_backbone
from aerogel.condense.projector import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    Projector,
    adapt,
    build_projector,
    compare_logits,
    head_storage,
    load_adapter,
    save_adapter,
)
from aerogel.errors import IntegrityError, MismatchError
from tests.unit.condense import tiny

TEMPLATES = ("a photo of a {}.",)
DATA = tiny.draw(4)
VIEWS = DATA.images.float() / 255.0
Make = Callable[[], Backbone]


@pytest.fixture(scope="module", params=["shipped", "stripes", "clip"])
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    if request.param == "shipped":
        return load_backbone(tiny.BACKBONE)
    if request.param == "stripes":
        return tiny.stripes()
    return load_backbone(str(tiny.write_clip(tmp_path_factory.mktemp("clip"))))


def plain(backbone: Backbone, names: tuple[str, ...] = tiny.NAMES) -> Projector:
    labels = DATA.labels.clamp(max=len(names) - 1)
    return build_projector(backbone, DATA.images, labels, names, TEMPLATES)


def changed(backbone: Backbone, config: ProjectorConfig, seed: int = 1) -> PeftModel:
    """Return an adapted projector as training leaves it: every trained number is another."""
    adapted = adapt(plain(backbone), backbone, config, len(tiny.NAMES), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return adapted.eval()


def logits(model: torch.nn.Module) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        found: torch.Tensor = model(VIEWS)
    return found


@pytest.mark.parametrize("head_rank", ["auto", "full", 3])
def test_an_adapter_of_zeros_is_the_plain_projector(backbone: Backbone, head_rank: int | str) -> None:
    config = ProjectorConfig(rank=2, head_rank=head_rank)  # type: ignore[arg-type]
    adapted = adapt(plain(backbone), backbone, config, len(tiny.NAMES))
    assert torch.allclose(logits(adapted), logits(plain(backbone)), atol=1e-5, rtol=0)
    assert torch.allclose(logits(adapted.train()), logits(plain(backbone)), atol=1e-5, rtol=0)


def test_an_adapter_of_zeros_on_clip_gives_the_logits_of_transformers_own_forward(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, CLIPModel

    folder = str(tiny.write_clip(tmp_path / "clip"))
    backbone = load_backbone(folder)
    adapted = adapt(plain(backbone), backbone, ProjectorConfig(rank=2), len(tiny.NAMES))
    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    prompts = [TEMPLATES[0].format(name) for name in tiny.NAMES]
    mean = torch.tensor((0.48145466, 0.4578275, 0.40821073)).view(3, 1, 1)
    std = torch.tensor((0.26862954, 0.26130258, 0.27577711)).view(3, 1, 1)
    with torch.no_grad():
        theirs = model(
            **tokenizer(prompts, padding=True, return_tensors="pt"),
            pixel_values=(VIEWS.expand(-1, 3, -1, -1) - mean) / std,
        ).logits_per_image
    assert theirs.std() > 0.1
    assert torch.allclose(logits(adapted), theirs, atol=1e-5, rtol=0)


def test_without_a_text_tower_the_head_is_the_nearest_class_mean() -> None:
    backbone = load_backbone(tiny.BACKBONE)
    with torch.no_grad():
        features = backbone.module(VIEWS).double()
    features = (features - features.mean(0)) / features.std(0).clamp_min(1e-3)
    means = torch.stack([features[DATA.labels == label].mean(0) for label in range(3)])
    distances = torch.cdist(features, means).square() / (2.0 * backbone.features**0.5)
    found = logits(adapt(plain(backbone), backbone, ProjectorConfig(rank=2), 3)).double()
    assert torch.allclose(found.softmax(1), (-distances).softmax(1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("count", [1, 2])
def test_one_image_per_class_is_enough_for_a_head(count: int) -> None:
    data = tiny.draw(1, names=tiny.NAMES[: count + 1])
    found = build_projector(tiny.stripes(), data.images, data.labels, data.class_names, TEMPLATES)
    assert torch.isfinite(found(data.images.float() / 255.0)).all()


@pytest.mark.parametrize("head_rank", ["auto", "full", 3])
def test_merged_equals_unmerged(backbone: Backbone, head_rank: int | str) -> None:
    adapted = changed(backbone, ProjectorConfig(rank=2, head_rank=head_rank))  # type: ignore[arg-type]
    before = logits(adapted)
    assert not torch.allclose(before, logits(plain(backbone)), atol=1e-2)
    scale = float(before.abs().max())
    assert torch.allclose(logits(adapted.merge_and_unload()), before, atol=1e-5 * max(1.0, scale), rtol=0)


@pytest.mark.parametrize("head_rank", ["auto", "full", 3])
def test_what_was_saved_is_loaded_to_the_last_bit(
    backbone: Backbone, head_rank: int | str, tmp_path: Path
) -> None:
    adapted = changed(backbone, ProjectorConfig(rank=2, head_rank=head_rank))  # type: ignore[arg-type]
    save_adapter(adapted, tmp_path / "exact", torch.float32)
    assert torch.equal(logits(load_adapter(plain(backbone), tmp_path / "exact")), logits(adapted))
    save_adapter(adapted, tmp_path / "half", torch.float16)
    first, second = (load_adapter(plain(backbone), tmp_path / "half") for _ in range(2))
    assert torch.equal(logits(first), logits(second))
    assert not any(parameter.requires_grad for parameter in first.parameters())
    assert {parameter.dtype for parameter in first.parameters()} == {torch.float32}
    stored = load_file(tmp_path / "half" / ADAPTER_WEIGHTS)
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}


@pytest.mark.parametrize("head_rank", ["full", 3])
def test_peft_itself_opens_the_adapter(backbone: Backbone, head_rank: int | str, tmp_path: Path) -> None:
    adapted = changed(backbone, ProjectorConfig(rank=2, head_rank=head_rank))  # type: ignore[arg-type]
    save_adapter(adapted, tmp_path, torch.float32)
    theirs = PeftModel.from_pretrained(plain(backbone), str(tmp_path))
    assert torch.equal(logits(theirs), logits(adapted))
    assert json.loads((tmp_path / ADAPTER_CONFIG).read_text())["base_model_name_or_path"] == backbone.name


def test_the_head_is_stored_in_the_smaller_form(tmp_path: Path) -> None:
    assert head_storage(ProjectorConfig(rank=8), 512, 1000) == 8
    assert head_storage(ProjectorConfig(rank=8), 64, 9) is None
    assert head_storage(ProjectorConfig(rank=8, head_rank="full"), 512, 1000) is None
    assert head_storage(ProjectorConfig(rank=8, head_rank=4), 64, 9) == 4
    # 338 (512 + 1000) numbers are 944 fewer than 512,000. In five bits each these are less than the scales
    # of 338 more channels.
    for codec in ADAPTER_CODECS:
        found = head_storage(ProjectorConfig(rank=338, dtype=codec), 512, 1000)
        assert found == (None if codec in ("int5", "int4") else 338)
        assert head_storage(ProjectorConfig(rank=339, dtype=codec), 512, 1000) is None
    assert head_storage(ProjectorConfig(rank=4, dtype="float16"), 36, 5) == 4
    assert head_storage(ProjectorConfig(rank=4, dtype="int8"), 36, 5) is None
    backbone = tiny.stripes()
    for head_rank, tensors in ((2, {"lora_A", "lora_B"}), ("full", {"head"})):
        config = ProjectorConfig(rank=2, head_rank=head_rank)  # type: ignore[arg-type]
        save_adapter(changed(backbone, config), tmp_path / str(head_rank), torch.float32)
        names = [key for key in load_file(tmp_path / str(head_rank) / ADAPTER_WEIGHTS) if ".head." in key]
        weights = {key.removesuffix(".weight").rsplit(".", 1)[-1] for key in names if "bias" not in key}
        assert weights == tensors


def test_equal_adapters_are_equal_files_and_their_seed_is_all_that_counts(tmp_path: Path) -> None:
    backbone = load_backbone(tiny.BACKBONE)
    state = torch.get_rng_state()
    for name in ("a", "b"):
        torch.rand(5)
        adapted = adapt(plain(backbone), backbone, ProjectorConfig(rank=2), 3, seed=4)
        save_adapter(adapted, tmp_path / name, torch.float16)
    save_adapter(
        adapt(plain(backbone), backbone, ProjectorConfig(rank=2), 3, seed=5), tmp_path / "c", torch.float16
    )
    one, two, three = (
        [(tmp_path / name / file).read_bytes() for file in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)]
        for name in "abc"
    )
    assert one == two
    assert one[1] != three[1]
    targets = json.loads(one[0])["target_modules"]
    assert targets == sorted(targets)
    torch.set_rng_state(state)
    load_adapter(plain(backbone), tmp_path / "a")
    assert torch.equal(torch.get_rng_state(), state)


def test_an_adapter_of_another_backbone_or_class_count_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_adapter(changed(tiny.stripes(), ProjectorConfig(rank=2, head_rank=2)), tmp_path, torch.float32)

    def unexpected(*_: object, **__: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("aerogel.condense.projector.set_peft_model_state_dict", unexpected)
    others = [
        plain(tiny.stripes(width=8)),
        plain(load_backbone(tiny.BACKBONE)),
        plain(tiny.stripes(), tiny.NAMES[:2]),
    ]
    for other in others:
        with pytest.raises(
            MismatchError, match=r"expected an adapter .*; got .*; what to do: load the backbone"
        ):
            load_adapter(other, tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (ADAPTER_WEIGHTS, "no tensors"),
        (ADAPTER_CONFIG, "{"),
        (ADAPTER_CONFIG, "[]"),
        (ADAPTER_CONFIG, '{"peft_type": "LORA"}'),
        (ADAPTER_CONFIG, '{"peft_type": "IA3", "target_modules": ["head"]}'),
        (ADAPTER_CONFIG, '{"peft_type": "LORA", "target_modules": ".*"}'),
    ],
)
def test_a_damaged_adapter_is_refused(tmp_path: Path, name: str, text: str) -> None:
    backbone = tiny.stripes()
    save_adapter(changed(backbone, ProjectorConfig(rank=2)), tmp_path, torch.float32)
    (tmp_path / name).write_text(text)
    with pytest.raises(IntegrityError, match=name):
        load_adapter(plain(backbone), tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(IntegrityError, match=name):
        load_adapter(plain(backbone), tmp_path)


def test_settings_of_peft_that_can_import_modules_are_not_read(tmp_path: Path) -> None:
    backbone = tiny.stripes()
    adapted = changed(backbone, ProjectorConfig(rank=2))
    save_adapter(adapted, tmp_path, torch.float32)
    data = json.loads((tmp_path / ADAPTER_CONFIG).read_text())
    hostile = data | {"megatron_config": {"a": 1}, "megatron_core": "antigravity", "init_lora_weights": "eva"}
    (tmp_path / ADAPTER_CONFIG).write_text(json.dumps(hostile))
    assert torch.equal(logits(load_adapter(plain(backbone), tmp_path)), logits(adapted))


def test_the_backbone_stays_in_evaluation_mode() -> None:
    adapted = adapt(plain(tiny.stripes()), tiny.stripes(), ProjectorConfig(rank=2), 3).train()
    norm = adapted.base_model.model.backbone.norm
    before = norm.running_mean.clone()
    adapted(VIEWS)
    assert not norm.training
    assert torch.equal(norm.running_mean, before)


def test_fidelity_of_known_logits() -> None:
    teacher = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    same = compare_logits("x", teacher, teacher)
    assert (same.agreement, same.kl, same.mse, same.samples) == (1.0, 0.0, 0.0, 2)
    turned = compare_logits("x", teacher, teacher.flip(1))
    share = torch.tensor(2.0).sigmoid()
    assert turned.agreement == 0.0
    assert turned.mse == pytest.approx(4.0)
    assert turned.kl == pytest.approx(float(2.0 * (share - (1.0 - share))), rel=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_or_of_another_type_are_refused(tmp_path: Path, value: float) -> None:
    backbone = tiny.stripes()
    adapted = changed(backbone, ProjectorConfig(rank=2))
    save_adapter(adapted, tmp_path, torch.float64)
    with pytest.raises(IntegrityError, match="finite numbers in float32 or float16"):
        load_adapter(plain(backbone), tmp_path)
    with torch.no_grad():
        next(each for each in adapted.parameters() if each.requires_grad).view(-1)[0] = value
    save_adapter(adapted, tmp_path, torch.float16)
    with pytest.raises(IntegrityError, match="finite numbers in float32 or float16"):
        load_adapter(plain(backbone), tmp_path)
