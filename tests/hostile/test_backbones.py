"""Hostile backbones by folder and by file: what a label generator stands on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from aerogel.condense.families import load_backbone
from aerogel.condense.families.efficientnet_lite import EfficientNetLite0
from tests.hostile.judge import Subject, judge, offer
from tests.hostile.mutate import (
    Mutation,
    added,
    boobytrap,
    cuts,
    edited,
    flips,
    hostile_json,
    hostile_safetensors,
    misplaced,
    mutation,
    swapped,
    written,
)
from tests.unit.condense import tiny
from tests.unit.condense.families import tiny_towers

CONFIG, WEIGHTS, PROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"
KINDS = ("clip", "swin", "efficientnet")


def load(folder: Path) -> Any:
    """Return what a backbone says of itself, its features, and the words of a text tower."""
    backbone = load_backbone(str(folder))
    with torch.no_grad():
        features = backbone.module(torch.linspace(0, 1, 3 * 16 * 16).reshape(1, 3, 16, 16))
    words = None if backbone.text is None else backbone.text(tiny.NAMES, ("a {}",))
    facts = [backbone.features, backbone.sha256, backbone.grid, backbone.lora_targets, backbone.logit_scale]
    return [*facts, features, words]


def write(folder: Path, kind: str, other: bool) -> Path:
    if kind == "clip":
        return tiny.write_clip(folder, size=8, seed=int(other))
    return tiny_towers.write_network(folder, "vit" if other else kind)


@pytest.fixture(scope="session")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Subject]:
    place = tmp_path_factory.mktemp("backbones")
    return {
        kind: Subject(write(place / kind, kind, False), write(place / f"not-{kind}", kind, True), load)
        for kind in KINDS
    }


def says(name: str, file: str = CONFIG, **values: Any) -> Mutation:
    return edited(name, file, lambda data: data.update(values), (*values, file))


def vision(name: str, **values: Any) -> Mutation:
    return edited(f"vision-{name}", CONFIG, lambda data: data["vision_config"].update(values), tuple(values))


def text(name: str, **values: Any) -> Mutation:
    return edited(f"text-{name}", CONFIG, lambda data: data["text_config"].update(values), tuple(values))


def pickled(folder: Path, other: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(boobytrap(folder))


def elsewhere(folder: Path, other: Path) -> None:
    (folder / WEIGHTS).rename(folder.parent / "elsewhere.safetensors")
    places = {"a.weight": "../elsewhere.safetensors"}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


ANY = [
    *cuts(CONFIG, (0.0, 0.5)),
    *cuts(WEIGHTS, (0.0, 0.5)),
    misplaced(CONFIG)[0],
    misplaced(WEIGHTS)[0],
    *hostile_json(CONFIG)[::3],
    *hostile_safetensors(WEIGHTS)[::3],
    mutation("pickle-alone", "set", pickled),
    mutation("elsewhere", "index", elsewhere),
    added("adapter_config.json", b'{"peft_type": "LORA", "base_model_name_or_path": "../other"}'),
    says("type-other", model_type="sam"),
    says("type-list", model_type=["clip"]),
    says("kernel", attn_implementation="evil/kernel"),
    says("quantised", quantization_config={"quant_method": "bitsandbytes"}),
    says("auto-map", auto_map={"AutoConfig": "evil.Evil"}, model_type="evil"),
]
OF_KIND: dict[str, list[Mutation]] = {
    "clip": [
        vision("layers-billion", num_hidden_layers=10**9),
        vision("layers-more", num_hidden_layers=3),
        vision("width-billion", hidden_size=10**9),
        vision("width-other", hidden_size=32),
        vision("image-million", image_size=10**6),
        vision("patch-zero", patch_size=0),
        text("layers-billion", num_hidden_layers=10**9),
        text("words-billion", vocab_size=10**9),
        text("length-negative", max_position_embeddings=-1),
        says("projection-million", projection_dim=10**6),
        *(written("tokenizer", "tokenizer.json", each) for each in (b"", b"{}")),
        misplaced("tokenizer.json")[0],
    ],
    "swin": [
        swapped(CONFIG),
        says("depths-billion", depths=[10**9, 1]),
        says("depths-many", depths=[1] * 10**5),
        says("depths-sum", depths=[30, 30]),
        says("depths-text", depths="abc"),
        says("width-million", embed_dim=10**6),
        says("heads-zero", num_heads=[0, 0]),
        says("window-million", window_size=10**6),
        says("patch-zero", patch_size=0),
        says("size-billion", PROCESSOR, size={"height": 10**9, "width": 10**9}),
        says("mean-text", PROCESSOR, image_mean="abc"),
        says("resample", PROCESSOR, resample=77),
        says("filter", PROCESSOR, resample="x"),
        says("flips", PROCESSOR, do_flip_channel_order=True),
    ],
    "efficientnet": [
        says("repeats-million", num_block_repeats=[10**6, 1]),
        says("depth-million", depth_coefficient=10**6),
        says("depth-float", depth_coefficient=1e6),
        says("width-float", width_coefficient=1e6),
        says("width-negative", width_coefficient=-1.0),
        says("top-million", hidden_dim=10**6),
        says("channels-text", in_channels="ab"),
        says("kernels-huge", kernel_sizes=[10**5 + 1, 3]),
        says("strides-zero", strides=[0, 0]),
    ],
}
CORPUS = [
    *(("clip", each) for each in ANY),
    *((kind, each) for kind, own in OF_KIND.items() for each in own),
    *(("swin", each) for each in ANY[1::4]),
]
CASES = [
    pytest.param(*pair, id=f"{pair[0]}-{pair[1].name}", marks=case.marks)
    for pair, case in zip(CORPUS, offer([each for _, each in CORPUS]), strict=True)
]


@pytest.mark.parametrize(("kind", "change"), CASES)
def test_a_mutated_backbone_is_refused_or_is_the_same(
    kind: str, change: Mutation, networks: dict[str, Subject], tmp_path: Path
) -> None:
    judge(networks[kind], change, tmp_path)


LITE = "lite.safetensors"


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    place = tmp_path_factory.mktemp("lite")
    for seed, name in enumerate(("one", "two")):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            state = EfficientNetLite0().state_dict()
        (place / name).mkdir()
        save_file({key: value.half() for key, value in state.items()}, place / name / LITE)
    return Subject(place / "one", place / "two", lambda folder: load_backbone(str(folder / LITE)).sha256)


def changed(name: str, change: Any) -> Mutation:
    def act(folder: Path, other: Path) -> None:
        tensors = load_file(folder / LITE)
        change(tensors)
        save_file(tensors, folder / LITE)

    return mutation(f"lite-{name}", LITE, act)


FILES = [
    *cuts(LITE),
    *flips(LITE, (0, 1, 5, 7, 8, 9)),
    misplaced(LITE)[0],
    *misplaced(LITE)[3:],
    *hostile_safetensors(LITE),
    changed("nan", lambda tensors: tensors["top.weight"].mul_(float("nan"))),
    changed("twice", lambda tensors: tensors.update({"_blocks.0._bn2.bias": torch.zeros(16).half()})),
    changed("wide", lambda tensors: tensors.update({"stem.weight": torch.zeros(10**6, 3, 3, 3).half()})),
    changed("more", lambda tensors: tensors.update({"x" * 10**5: torch.zeros(1)})),
    changed("integers", lambda tensors: tensors.update({"top_norm.bias": torch.zeros(1280).int()})),
]


@pytest.mark.parametrize("change", offer(FILES))
def test_a_mutated_file_of_weights_is_refused_or_is_the_same(
    change: Mutation, files: Subject, tmp_path: Path
) -> None:
    judge(files, change, tmp_path)
