"""A stored adapter decodes to one generator, weighs what was promised, and a budget picks its codec."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file

from aerogel.condense.adapter_codecs import choose_kind
from aerogel.condense.adapters import choose_codec, store_adapter, weigh_adapter
from aerogel.condense.config import ADAPTER_CODECS, FLOAT_CODECS, AdapterCodec, ProjectorConfig
from aerogel.condense.families import Backbone, load_backbone
from aerogel.condense.projector import (
    ADAPTER_CODES,
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    Projector,
    adapt,
    build_projector,
    load_adapter,
    read_origins,
    save_adapter,
)
from aerogel.errors import ConfigError, IntegrityError, MismatchError
from tests.unit.condense import tiny

DATA = tiny.draw(4)
VIEWS = DATA.images.float() / 255.0
CODED = ("int8", "int4")
HEADS = ("full", 3)


@pytest.fixture(scope="module", params=["shipped", "clip"])
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    if request.param == "shipped":
        return load_backbone(tiny.BACKBONE)
    return load_backbone(str(tiny.write_clip(tmp_path_factory.mktemp("clip"))))


def plain(backbone: Backbone, names: tuple[str, ...] = tiny.NAMES) -> Projector:
    labels = DATA.labels.clamp(max=len(names) - 1)
    return build_projector(backbone, DATA.images, labels, names, ("a photo of a {}.",))


def changed(backbone: Backbone, config: ProjectorConfig) -> PeftModel:
    adapted = adapt(plain(backbone), backbone, config, len(tiny.NAMES))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.03)
    return adapted.eval()


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(VIEWS)
    return found


def settings(head_rank: int | str, codec: str = "float16", **others: int) -> ProjectorConfig:
    return ProjectorConfig(rank=4, head_rank=head_rank, dtype=codec, **others)  # type: ignore[arg-type]


@pytest.mark.parametrize("head_rank", HEADS)
@pytest.mark.parametrize("codec", CODED)
def test_logits_after_loading_are_those_of_the_decoded_numbers(
    backbone: Backbone, head_rank: int | str, codec: AdapterCodec, tmp_path: Path
) -> None:
    adapted = changed(backbone, settings(head_rank))
    store_adapter(adapted, plain(backbone), tmp_path, codec)
    first, second = (load_adapter(plain(backbone), tmp_path) for _ in range(2))
    assert torch.equal(logits(first), logits(second))
    assert {parameter.dtype for parameter in first.parameters()} == {torch.float32}
    # What was decoded, stored as floats, is the same generator to the last bit.
    save_adapter(first, tmp_path / "again", torch.float32)
    assert torch.equal(logits(load_adapter(plain(backbone), tmp_path / "again")), logits(first))
    before, found = (
        get_peft_model_state_dict(each, save_embedding_layers=False) for each in (adapted, first)
    )
    assert before.keys() == found.keys()
    untrained = adapt(plain(backbone), backbone, settings(head_rank), len(tiny.NAMES))
    for key, origin in read_origins(untrained).items():
        kind = choose_kind(origin.shape, codec)
        # Of the change, not of the number: what the backbone says already costs no precision.
        most = {"float16": 5e-4, "int8": 4e-3, "int4": 0.4}[kind] * (before[key] - origin).abs().max()
        assert bool(((found[key] - before[key]).abs() <= most + 1e-6).all()), key


@pytest.mark.parametrize("head_rank", HEADS)
def test_fewer_bits_cost_more_and_all_stay_close(
    backbone: Backbone, head_rank: int | str, tmp_path: Path
) -> None:
    adapted = changed(backbone, settings(head_rank))
    moved = (logits(adapted) - logits(plain(backbone))).square().mean().sqrt()
    errors, sizes = [], []
    for codec in ADAPTER_CODECS:
        sizes.append(store_adapter(adapted, plain(backbone), tmp_path, codec))
        found = logits(load_adapter(plain(backbone), tmp_path))
        errors.append(float((found - logits(adapted)).square().mean().sqrt() / moved))
    assert errors[0] == 0.0
    assert errors[1] < 0.01 and errors[2] < 0.05 and errors[3] < 0.3
    assert errors[1] < errors[3] and errors[2] < errors[3]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("head_rank", HEADS)
def test_the_head_is_made_again_and_only_its_change_is_stored(
    backbone: Backbone, head_rank: int | str, tmp_path: Path
) -> None:
    """An untrained adapter says nothing of the initial head, whatever that head is."""
    fresh = adapt(plain(backbone), backbone, settings(head_rank), len(tiny.NAMES))
    with torch.no_grad():
        for name, parameter in fresh.named_parameters():
            if ".lora_" in name:
                parameter.zero_()
    store_adapter(fresh, plain(backbone), tmp_path, "int8")
    assert all(not value.any() for value in load_file(tmp_path / ADAPTER_CODES).values())
    assert torch.equal(logits(load_adapter(plain(backbone), tmp_path)), logits(fresh))
    other = tiny.draw(4, seed=9)
    names = ("one", "two", "three") if backbone.text else tiny.NAMES
    elsewhere = build_projector(backbone, other.images, other.labels, names, ("{}",))
    expected = logits(elsewhere)
    assert torch.allclose(logits(load_adapter(elsewhere, tmp_path)), expected, atol=1e-5)
    save_adapter(fresh, tmp_path / "half", torch.float16)
    keys = load_file(tmp_path / "half" / ADAPTER_WEIGHTS)
    assert any(key.endswith("head.weight") for key in keys) == (head_rank == "full")
    assert not any(key.endswith("head.base_layer.weight") for key in keys)


def test_files_of_floats_are_as_peft_reads_them(backbone: Backbone, tmp_path: Path) -> None:
    adapted = changed(backbone, settings(3))
    for codec in FLOAT_CODECS:
        size = store_adapter(adapted, plain(backbone), tmp_path / codec, codec)
        save_adapter(adapted, tmp_path / "theirs", getattr(torch, codec))
        for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
            assert (tmp_path / codec / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()
        assert size == sum(path.stat().st_size for path in (tmp_path / codec).iterdir())
    theirs = PeftModel.from_pretrained(plain(backbone), str(tmp_path / "float32"))
    assert torch.equal(logits(theirs), logits(adapted))


def test_one_codec_takes_the_place_of_another(tmp_path: Path) -> None:
    backbone = load_backbone(tiny.BACKBONE)
    adapted = changed(backbone, settings(3))
    for codec, name in (("int8", ADAPTER_CODES), ("float16", ADAPTER_WEIGHTS), ("int4", ADAPTER_CODES)):
        size = store_adapter(adapted, plain(backbone), tmp_path, codec)  # type: ignore[arg-type]
        assert {path.name for path in tmp_path.iterdir()} == {name, ADAPTER_CONFIG}
        assert size == sum(path.stat().st_size for path in tmp_path.iterdir())
    save_adapter(adapted, tmp_path, torch.float16)
    with pytest.raises(IntegrityError, match="expected one file of weights"):
        load_adapter(plain(backbone), tmp_path)


def test_equal_adapters_are_equal_files_and_the_seed_of_nothing_moves(tmp_path: Path) -> None:
    backbone = load_backbone(tiny.BACKBONE)
    state = torch.get_rng_state()
    for name in ("a", "b"):
        store_adapter(changed(backbone, settings(3)), plain(backbone), tmp_path / name, "int4")
    for file in (ADAPTER_CODES, ADAPTER_CONFIG):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    weigh_adapter(backbone, settings(3, "int8"), 3)
    assert torch.equal(torch.get_rng_state(), state)


def test_codes_of_another_backbone_class_count_or_config_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = tiny.stripes()
    folder = tmp_path / "codes"
    store_adapter(changed(backbone, settings(3)), plain(backbone), folder, "int8")
    store_adapter(changed(backbone, settings(2)), plain(backbone), tmp_path / "other", "int8")

    def unexpected(*_: object, **__: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("aerogel.condense.projector.set_peft_model_state_dict", unexpected)
    for other in (tiny.stripes(width=8), load_backbone(tiny.BACKBONE)):
        with pytest.raises(MismatchError, match="load the backbone"):
            load_adapter(plain(other), folder)
    with pytest.raises(MismatchError, match="load the backbone"):
        load_adapter(plain(backbone, tiny.NAMES[:2]), folder)
    shutil.copyfile(tmp_path / "other" / ADAPTER_CONFIG, folder / ADAPTER_CONFIG)
    with pytest.raises(MismatchError, match="load the backbone"):
        load_adapter(plain(backbone), folder)
    (folder / ADAPTER_CODES).write_bytes(b"no tensors")
    with pytest.raises(IntegrityError, match=ADAPTER_CODES):
        load_adapter(plain(backbone), folder)


def test_origins_are_the_plain_projectors_own_numbers() -> None:
    backbone = load_backbone(tiny.BACKBONE)
    projector = plain(backbone)
    head = projector.head.weight.clone()
    found = read_origins(adapt(projector, backbone, settings("full"), 3, seed=5))
    assert not any(value.any() for key, value in found.items() if ".lora_" in key)
    assert torch.equal(found["base_model.model.head.weight"], head)
    assert not any("modules_to_save" in key or "original_module" in key for key in found)


@pytest.mark.parametrize("head_rank", ["auto", *HEADS])
def test_the_weight_of_an_adapter_is_known_before_it_is_trained(
    backbone: Backbone, head_rank: int | str, tmp_path: Path
) -> None:
    for codec in ADAPTER_CODECS:
        config = settings(head_rank, codec)
        size = store_adapter(changed(backbone, config), plain(backbone), tmp_path / codec, codec)
        assert weigh_adapter(backbone, config, len(tiny.NAMES)) == size


def test_a_budget_takes_the_most_faithful_codec_that_fits() -> None:
    backbone = load_backbone(tiny.BACKBONE)
    config = settings("auto", "float32")
    sizes = {codec: weigh_adapter(backbone, replace(config, dtype=codec), 3) for codec in ADAPTER_CODECS}
    for codec, size in sizes.items():
        assert choose_codec(backbone, replace(config, budget=size), 3) == codec
        assert choose_codec(backbone, replace(config, budget=size + 1), 3) == codec
    assert choose_codec(backbone, replace(config, budget=sizes["float16"] - 1), 3) == "int8"
    # The number format that was asked for is the most that is taken.
    assert choose_codec(backbone, replace(config, dtype="float16", budget=10**9), 3) == "float16"
    assert choose_codec(backbone, replace(config, dtype="int4", budget=10**9), 3) == "int4"
    assert choose_codec(backbone, replace(config, dtype="int8"), 3) == "int8"
    least = sizes["int4"]
    with pytest.raises(
        ConfigError,
        match=rf"at most {least - 1:,} bytes .*; got {least:,} bytes in int4, the smallest; "
        rf"what to do: raise projector\.budget to {least} or more, or lower projector\.rank \(4\)",
    ):
        choose_codec(backbone, replace(config, budget=least - 1), 3)
