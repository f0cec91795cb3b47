"""Hostile segmenters, plans and pipelines: folders that libraries of others open."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from aerogel.parallel.sampling import open_pipeline
from aerogel.slim.families.opening import open_model
from aerogel.slim.plan import load_plan
from tests.hostile.judge import Subject, judge, offer
from tests.hostile.mutate import (
    Edit,
    Mutation,
    added,
    boobytrap,
    cuts,
    edited,
    exchanged,
    flips,
    hostile_json,
    hostile_safetensors,
    misplaced,
    mutation,
    signed,
    swapped,
    written,
)
from tests.unit.slim.families.tiny_mobile_sam import make_config

if TYPE_CHECKING:
    from aerogel.slim.api import Slimmed

CONFIG, WEIGHTS, PLAN = "config.json", "model.safetensors", "plan.json"


def load(folder: Path) -> Any:
    model = open_model(folder)
    return [type(model).__name__, model.state_dict()]


@pytest.fixture(scope="session")
def flex(slimmed: Slimmed, other_slimmed: Slimmed) -> Subject:
    return Subject(slimmed.folder / "model", other_slimmed.folder / "model", load)


@pytest.fixture(scope="session")
def stock(slimmed: Slimmed, other_slimmed: Slimmed) -> Subject:
    return Subject(other_slimmed.folder / "model", slimmed.folder / "model", load)


def vision(name: str, **values: Any) -> Mutation:
    about = (*values, CONFIG, "channels", "image size")
    return edited(f"vision-{name}", CONFIG, lambda data: data["vision_config"].update(values), about)


def config(name: str, **values: Any) -> Mutation:
    return edited(name, CONFIG, lambda data: data.update(values), (*values, CONFIG))


def pickled(folder: Path, other: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(boobytrap(folder))


def elsewhere(folder: Path, other: Path) -> None:
    (folder / WEIGHTS).rename(folder.parent / "elsewhere.safetensors")
    places = {"vision_encoder.neck.conv1.weight": "../elsewhere.safetensors"}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


DAMAGE = [
    *(each for file in (CONFIG, WEIGHTS) for each in (*cuts(file, (0.0, 0.5)), *flips(file, (0, 0.4, -1)))),
    *misplaced(WEIGHTS),
    swapped(WEIGHTS),
    exchanged(CONFIG, PLAN),
]
MADE_TO_FIT = signed(
    [
        *cuts(WEIGHTS, (0.0, 0.5)),
        *flips(WEIGHTS, (0, 1, 5, 7, 8, 9)),
        swapped(WEIGHTS),
        misplaced(WEIGHTS)[0],
        misplaced(CONFIG)[0],
        *hostile_json(CONFIG),
        *hostile_safetensors(WEIGHTS),
        mutation("pickle-alone", WEIGHTS, pickled),
        mutation("elsewhere", "index", elsewhere),
        added("adapter_config.json", b'{"peft_type": "LORA", "base_model_name_or_path": "../other"}'),
        config("type-list", model_type=["sam"]),
        config("type-other", model_type="vit"),
        config("kernel", attn_implementation="evil/kernel"),
        config("quantised", quantization_config={"quant_method": "bitsandbytes"}),
        config("auto-map", auto_map={"AutoModel": "evil.Evil"}, trust_remote_code=True),
        config("type-bare", architectures="SamVisionEncoder"),
        config("vision-null", vision_config=None),
        config("vision-text", vision_config="abc"),
        vision("width-billion", hidden_size=10**9),
        vision("width-other", hidden_size=48),
        vision("layers-billion", num_hidden_layers=10**9),
        vision("layers-more", num_hidden_layers=4),
        vision("layers-negative", num_hidden_layers=-1),
        vision("heads-zero", num_attention_heads=0),
        vision("patch-zero", patch_size=0),
        vision("image-million", image_size=10**6),
        vision("window-negative", window_size=-3),
        vision("global-text", global_attn_indexes="abc"),
        vision("mlp-other", mlp_dim=7),
    ]
)
FLEX = [
    *MADE_TO_FIT,
    *signed(
        [
            vision("heads-billion", heads_per_block=[10**9] * 3),
            vision("heads-many", heads_per_block=[1] * 10_000),
            vision("heads-null", heads_per_block=None),
            vision("heads-text", heads_per_block="abc"),
            vision("heads-negative", heads_per_block=[-1, 1, 1]),
            vision("dims-zero", head_dim_per_block=[0, 0, 0]),
            vision("mlp-lists", mlp_dim_per_block=[[1], [2], [3]]),
        ]
    ),
]
STOCK = [*DAMAGE, *MADE_TO_FIT[::3]]


@pytest.mark.parametrize("change", offer(FLEX))
def test_a_mutated_flexible_model_is_refused_or_is_the_same(
    change: Mutation, flex: Subject, tmp_path: Path
) -> None:
    judge(flex, change, tmp_path)


@pytest.mark.parametrize("change", offer(STOCK))
def test_a_mutated_stock_model_is_refused_or_is_the_same(
    change: Mutation, stock: Subject, tmp_path: Path
) -> None:
    judge(stock, change, tmp_path)


@pytest.fixture(scope="session")
def mobiles(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    from aerogel.slim.families.mobile_sam import MobileSamModel

    place = tmp_path_factory.mktemp("mobiles")
    for name in ("one", "other"):
        MobileSamModel(make_config()).save_pretrained(place / name)
    return Subject(place / "one", place / "other", load)


MOBILE = [
    *cuts(WEIGHTS, (0.0, 0.5)),
    *hostile_json(CONFIG)[:4],
    *hostile_safetensors(WEIGHTS)[:6],
    vision("dims-billion", embed_dims=[10**9] * 4),
    vision("dims-million", embed_dims=[10**6] * 4),
    vision("depths-billion", depths=[10**9, 1, 1, 1]),
    vision("depths-text", depths="abc"),
    vision("heads-zero", num_heads=[0, 0, 0, 0]),
    vision("windows-negative", window_sizes=[-1, 1, 1, 1]),
    vision("ratio-huge", mlp_ratio=1e300),
    vision("image-other", image_size=63),
]


@pytest.mark.parametrize("change", offer(MOBILE))
def test_a_mutated_mobile_model_is_refused_or_is_the_same(
    change: Mutation, mobiles: Subject, tmp_path: Path
) -> None:
    judge(mobiles, change, tmp_path)


@pytest.fixture(scope="session")
def plans(slimmed: Slimmed, other_slimmed: Slimmed, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    place = tmp_path_factory.mktemp("plans")
    for name, run in (("one", slimmed), ("other", other_slimmed)):
        (place / name).mkdir()
        shutil.copyfile(run.folder / "model" / PLAN, place / name / PLAN)
    return Subject(place / "one", place / "other", lambda folder: load_plan(folder / PLAN))


def plan(name: str, edit: Edit) -> Mutation:
    return edited(name, PLAN, edit)


def keep(name: str, indices: Any) -> Mutation:
    def edit(data: Any) -> None:
        data["kept"][min(data["kept"])] = indices

    return plan(f"kept-{name}", edit)


PLANS = [
    *cuts(PLAN),
    *(each for each in misplaced(PLAN) if "linked" not in each.name),
    *hostile_json(PLAN),
    written("oversized", PLAN, b" " * (2**24 + 1)),
    written("pickle", PLAN, boobytrap),
    plan("type", lambda data: data.update(type="condense")),
    plan("version", lambda data: data.update(version=10**9)),
    plan("layout", lambda data: data.update(layout="other")),
    plan("family", lambda data: data.update(family=["sam"])),
    plan("unknown", lambda data: data.update(evil=1)),
    plan("sizes", lambda data: data.update(sizes={"embedding": 10**30})),
    plan("sizes-negative", lambda data: data["sizes"].update(embedding=-1)),
    plan("group", lambda data: data["kept"].update({"../../x": [0]})),
    plan("long-group", lambda data: data["kept"].update({"x" * 10**6: [0]})),
    plan("many-groups", lambda data: data["kept"].update({f"g{n}": [0] for n in range(20_000)})),
    keep("none", []),
    keep("negative", [-1, 0]),
    keep("beyond", [0, 10**9]),
    keep("twice", [0, 0]),
    keep("descending", [1, 0]),
    keep("text", "abc"),
    keep("float", [0.0, 1.0]),
    keep("true", [False, True]),
    keep("million", list(range(300_000))),
]


@pytest.mark.parametrize("change", offer(PLANS))
def test_a_mutated_plan_is_refused_or_is_the_same(change: Mutation, plans: Subject, tmp_path: Path) -> None:
    judge(plans, change, tmp_path)


INDEX, UNET = "model_index.json", "unet/diffusion_pytorch_model.safetensors"
UNET_CONFIG, SCHEDULER = "unet/config.json", "scheduler/scheduler_config.json"


def load_pipe(folder: Path) -> Any:
    pipe = open_pipeline(str(folder), dtype=torch.float32, device="cpu")
    return [type(pipe).__name__, pipe.unet.state_dict(), list(pipe.config.class_names)]


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    from diffusers import DDIMScheduler, UNet2DModel

    from aerogel.zoo.diffusion import ClassConditionalPipeline

    place = tmp_path_factory.mktemp("pipelines")
    for name, width in (("one", 8), ("other", 16)):
        unet = UNet2DModel(
            sample_size=8,
            in_channels=1,
            out_channels=1,
            block_out_channels=(width,),
            down_block_types=("DownBlock2D",),
            up_block_types=("UpBlock2D",),
            layers_per_block=1,
            norm_num_groups=4,
            num_class_embeds=3,
        )
        ClassConditionalPipeline(unet, DDIMScheduler(), ["bar", "dot"]).save_pretrained(place / name)
    return Subject(place / "one", place / "other", load_pipe)


def indexed(name: str, **values: Any) -> Mutation:
    return edited(name, INDEX, lambda data: data.update(values))


def unet(name: str, **values: Any) -> Mutation:
    return edited(name, UNET_CONFIG, lambda data: data.update(values), (*values, "set", INDEX))


def pickled_unet(folder: Path, other: Path) -> None:
    (folder / UNET).unlink()
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(boobytrap(folder))


def with_code(folder: Path, other: Path) -> None:
    """Name a pipeline of the folder's own code."""
    code = "from pathlib import Path\nPath('trapped').touch()\n"
    (folder / "pipeline.py").write_text(code)
    (folder / "unet" / "evil.py").write_text(code)
    indexed("", _class_name=["pipeline", "Evil"], unet=["evil", "Evil"]).act(folder, other)


PIPELINES = [
    *(each for file in (INDEX, UNET) for each in (*cuts(file, (0.0, 0.5)), misplaced(file)[0])),
    swapped(UNET),
    swapped(UNET_CONFIG),
    *(each for each in hostile_json(INDEX) if "object" not in each.name or "deep" in each.name),
    *hostile_json(UNET_CONFIG)[:2],
    *(
        each
        for each in hostile_safetensors(UNET)
        if each.name.rpartition("-")[2] not in ("types", "metadata")
    ),
    mutation("pickle-alone", "set", pickled_unet),
    mutation("code", "set", with_code),
    indexed("class-list", _class_name=["a", "b"]),
    indexed("class-number", _class_name=5),
    indexed("class-other", _class_name="os.system"),
    indexed("class-up", _class_name="../evil"),
    indexed("library", unet=["os", "system"]),
    indexed("library-up", unet=["../../evil", "Evil"]),
    indexed("library-subprocess", unet=["subprocess", "Popen"]),
    indexed("library-null", unet=[None, None]),
    indexed("library-number", unet=5),
    indexed("names-text", class_names="abc"),
    indexed("names-number", class_names=5),
    indexed("names-many", class_names=[f"{n}" for n in range(100_000)]),
    indexed("patch-zero", patch_size=0),
    unet("width-billion", block_out_channels=[10**9]),
    unet("width-other", block_out_channels=[16]),
    unet("layers-billion", layers_per_block=10**9),
    unet("block-other", down_block_types=["os.system"]),
    unet("classes-billion", num_class_embeds=10**9),
]


@pytest.mark.parametrize("change", offer(PIPELINES))
def test_a_mutated_pipeline_is_refused_or_is_the_same(
    change: Mutation, pipelines: Subject, tmp_path: Path
) -> None:
    judge(pipelines, change, tmp_path)
    assert not (Path.cwd() / "trapped").exists()
