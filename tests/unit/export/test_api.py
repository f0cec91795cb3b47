"""An export is whole, sealed and right, or there is none."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from aerogel.core.folders import verify_folder
from aerogel.errors import ConfigError, DataError, FolderExistsError, MismatchError, MissingDependencyError
from aerogel.export import Difference, Exported, Parity, api, export_onnx
from aerogel.export.api import TOLERANCE, require_parity
from aerogel.export.parity import KIND
from aerogel.export.tracing import write_graph
from aerogel.slim import FlexSamModel, apply_plan
from tests.unit.slim import tiny
from tests.unit.slim.families.tiny_mobile_sam import make_model
from tests.unit.slim.stand_ins import tiny_sam

FILES = {
    f"{folder}/{stem}{suffix}.onnx"
    for folder in ("onnx", "onnx-boxes")
    for stem in ("vision_encoder", "prompt_encoder_mask_decoder")
    for suffix in ("", "_fp16", "_quantized")
}


def make_flex() -> Any:
    model = tiny.build(dtype=torch.float32)
    widths = {"embedding": 16, "blocks.0.mlp": 7, "blocks.1.mlp": 21, "blocks.2.heads": 2}
    flex = apply_plan(model, tiny.draw_plan(model, widths))
    assert isinstance(flex, FlexSamModel)
    return flex


def weight_bytes(path: Path) -> int:
    return sum(len(each.raw_data) for each in onnx.load(str(path)).graph.initializer)


def count_narrow(path: Path) -> int:
    found = onnx.load(str(path)).graph.initializer
    return sum(
        each.dims[0] * each.dims[1]
        for each in found
        if each.data_type == onnx.TensorProto.INT8 and len(each.dims) == 2
    )


def test_the_folder_is_whole_and_sealed(exported: Exported) -> None:
    assert set(exported.files) == FILES
    manifest = verify_folder(exported.folder, KIND)
    assert set(manifest.files) == FILES | {"README.md", "config.json", "preprocessor_config.json"}
    assert manifest.facts["files"] == exported.files
    assert manifest.facts["parity"] == exported.parity.to_dict()
    assert manifest.config == {"dtype": "float16", "quantise": True, "boxes": True, "opset": 17}
    assert exported.to_dict()["folder"] == str(exported.folder)


def test_both_folders_hold_the_same_encoder(exported: Exported) -> None:
    files = verify_folder(exported.folder).files
    for suffix in ("", "_fp16", "_quantized"):
        one, other = (files[f"{place}/vision_encoder{suffix}.onnx"] for place in ("onnx", "onnx-boxes"))
        assert one == other


def test_the_encoder_is_linked_or_else_copied(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [exported.folder / folder / "vision_encoder.onnx" for folder in ("onnx", "onnx-boxes")]
    assert places[0].samefile(places[1])

    def refuse(*_: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    api.link_or_copy(places[0], tmp_path / "copy.onnx")
    assert (tmp_path / "copy.onnx").read_bytes() == places[0].read_bytes()
    assert not places[0].samefile(tmp_path / "copy.onnx")


def test_files_shrink(exported: Exported) -> None:
    for name in ("onnx/vision_encoder", "onnx/prompt_encoder_mask_decoder"):
        whole, half, eight = (exported.files[f"{name}{end}.onnx"] for end in ("", "_fp16", "_quantized"))
        assert max(half, eight) < whole
        weights = [weight_bytes(exported.folder / f"{name}{end}.onnx") for end in ("", "_fp16", "_quantized")]
        assert weights[1] < 0.52 * weights[0]
        # Three bytes of four go, less what the scales take.
        assert weights[0] - weights[2] > 2.5 * count_narrow(exported.folder / f"{name}_quantized.onnx")


def test_the_float32_graphs_are_right_and_the_bound_is_no_formality(exported: Exported) -> None:
    worst = require_parity(exported.parity)
    assert worst.share < TOLERANCE / 20
    with pytest.raises(MismatchError, match="of the graph for"):
        require_parity(exported.parity, worst.share / 2)


def test_numbers_that_are_none_are_refused() -> None:
    broken = Difference("fp32", "points", "pred_masks", float("nan"), float("nan"), 1.0)
    with pytest.raises(MismatchError, match="numbers in pred_masks of the fp32 graph"):
        require_parity(Parity((broken,), ()))


@pytest.mark.parametrize(
    "build",
    [make_flex, make_model, lambda: tiny_sam(image_px=256), lambda: tiny_sam(image_px=48)],
    ids=["flex", "mobile", "256 px", "48 px"],
)
def test_every_kind_and_size_of_model(build: Any, tmp_path: Path) -> None:
    done = export_onnx(build(), tmp_path / "out", boxes=False)
    assert set(done.files) == {
        name
        for name in FILES
        if name.startswith("onnx/") and "_fp16" not in name and "_quantized" not in name
    }
    assert require_parity(done.parity).share < TOLERANCE / 20
    assert not (tmp_path / "out" / "onnx-boxes").exists()
    assert all(each.iou > 0.99 for each in done.parity.agreements)


def test_the_model_is_left_alone_and_equal_models_give_equal_files(tmp_path: Path) -> None:
    model = tiny.build(dtype=torch.float64).train().requires_grad_(True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    digests = []
    for name in ("one", "two"):
        export_onnx(model, tmp_path / name, boxes=False)
        digests.append(verify_folder(tmp_path / name).digest)
    assert model.training
    assert all(weight.requires_grad and weight.dtype == torch.float64 for weight in model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert "get_rel_pos" not in vars(model.vision_encoder.layers[0].attn)
    assert digests[0] == digests[1]


def test_a_graph_that_answers_otherwise_is_refused(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tiny.build(dtype=torch.float32, seed=1)

    def write_another(graph: Any, _: Any, path: Any, *, opset: int) -> None:
        write_graph(graph, other if graph.name == "points" else model, path, opset=opset)

    earlier = tmp_path / "out"
    export_onnx(model, earlier, boxes=False)
    kept = verify_folder(earlier).digest
    monkeypatch.setattr(api, "write_graph", write_another)
    with pytest.raises(MismatchError, match="the graph for points"):
        export_onnx(model, earlier, boxes=False, overwrite=True)
    assert verify_folder(earlier).digest == kept
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["out"]


def test_weights_that_overflow_float16_are_refused(tmp_path: Path) -> None:
    model = tiny.build(dtype=torch.float32)
    with torch.no_grad():
        # A norm follows, so that float32 gives the same embeddings as before.
        model.vision_encoder.neck.conv1.weight *= 1e6
    with pytest.raises(MismatchError, match="numbers in image_embeddings of the fp16 graph for encoder"):
        export_onnx(model, tmp_path / "out", dtype="float16", boxes=False)
    assert not (tmp_path / "out").exists()


def test_what_lies_there_stays(model: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FolderExistsError):
        export_onnx(model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_what_cannot_be_exported_is_refused(model: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="without vision_encoder, prompt_encoder"):
        export_onnx(model.vision_encoder, tmp_path / "out")
    with pytest.raises(DataError, match="SAM-HQ cannot be exported yet"):
        export_onnx(tiny.build("sam_hq"), tmp_path / "out")
    with pytest.raises(ConfigError, match="dtype 'int8' and opset 9"):
        export_onnx(model, tmp_path / "out", dtype="int8", opset=9)  # type: ignore[arg-type]
    with pytest.raises(DataError):
        export_onnx(str(tmp_path / "nothing"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["onnx", "onnxruntime"])
def test_missing_packages_are_named(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=r'pip install "aerogel\[export\]"'):
        export_onnx(model, tmp_path / "out")
