"""Write a segmenter as ONNX: the graphs, what transformers.js reads beside them, and the proof of parity."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal, get_args

from aerogel.core.files import list_files
from aerogel.core.folders import create_folder, seal_folder
from aerogel.errors import ConfigError, MismatchError, compose
from aerogel.export.bundle import write_card, write_configs
from aerogel.export.graphs import BOX_FOLDER, ENCODER, FOLDER, list_graphs
from aerogel.export.parity import KIND, SUFFIXES, Difference, Parity, measure_parity
from aerogel.export.quantisation import quantise_graph
from aerogel.export.runtime import require_onnx
from aerogel.export.subject import copy_segmenter, halve, read_side
from aerogel.export.tracing import write_graph

Dtype = Literal["float32", "float16"]
# The largest difference of a float32 graph, as a share of the spread of the output. Both sides round to 24
# bits, in another order; a graph that computes something else is off by a whole spread.
TOLERANCE = 1e-3
OPSETS = range(17, 21)


@dataclass(frozen=True)
class Exported:
    """Say where an export lies, what it weighs and how close its graphs are to torch.

    ``files`` maps the name of each graph to its size in bytes.
    """

    folder: Path
    files: dict[str, int]
    parity: Parity

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"folder": str(self.folder), "files": dict(self.files), "parity": self.parity.to_dict()}


def export_onnx(
    model: Any,
    folder: str | Path,
    *,
    dtype: Dtype = "float32",
    quantise: bool = False,
    boxes: bool = True,
    opset: int = 17,
    overwrite: bool = False,
    command: str | None = None,
) -> Exported:
    """Write a segmenter as ONNX into a new folder, and check every graph against torch.

    ``model`` is a SamModel, a slimmed one of either layout or a MobileSAM, of any image size, or what
    ``aerogel.slim.open_model`` opens. It is copied, never changed. The folder holds what transformers.js
    loads by the class SamModel: ``onnx/vision_encoder.onnx`` and ``onnx/prompt_encoder_mask_decoder.onnx``,
    with batch, prompts and points of any number. With ``boxes``, ``onnx-boxes/`` holds the same for prompts
    ``input_boxes`` [B, P, 4]; its encoder is a hard link where the disk has them.

    ``dtype`` float16 adds files ``_fp16``: half the size, inputs and outputs in float32 all the same.
    ``quantise`` adds ``_quantized``: matrices in 8 bits, the smallest. Their differences are measured and
    reported; the float32 graphs must keep within 0.1 % of the spread of their outputs. The folder appears
    whole or not at all.

    Raises:
        DataError: the model is none that can be exported, or an encoder alone.
        ConfigError: a dtype or opset that is not there.
        FolderExistsError: something lies at the path, and is not to be or must not be deleted.
        MismatchError: a float32 graph answers otherwise than torch, or weights overflow float16; nothing is
            written.
        MissingDependencyError: onnx or onnxruntime is not installed.
        StorageFullError: the disk is full.
    """
    _require_settings(dtype, opset)
    require_onnx()
    subject = copy_segmenter(_open(model))
    wanted = {"dtype": dtype, "quantise": quantise, "boxes": boxes, "opset": opset}
    with create_folder(folder, overwrite=overwrite) as work:
        _write_graphs(subject, work, half=dtype == "float16", quantise=quantise, boxes=boxes, opset=opset)
        parity = measure_parity(work, subject)
        require_parity(parity)
        files = {name: size for name, size in list_files(work).items() if name.endswith(".onnx")}
        write_configs(subject, work)
        write_card(work, files, boxes=boxes)
        facts = {
            "image_size": read_side(subject),
            "model_type": subject.config.model_type,
            "files": files,
            "tolerance": TOLERANCE,
            "parity": parity.to_dict(),
        }
        seal_folder(work, kind=KIND, config=wanted, facts=facts, command=command)
    return Exported(Path(folder), files, parity)


def require_parity(parity: Parity, tolerance: float = TOLERANCE) -> Difference:
    """Check that the float32 graphs answer as torch does, and all others in numbers; return the worst.

    Raises:
        MismatchError: a float32 graph is off by more than ``tolerance`` of the spread of its output, or any
            graph gives infinity or what is not a number.
    """
    for each in parity.differences:
        if not isfinite(each.largest) or not isfinite(each.spread):
            remedy = "check the model's weights" if each.variant == "fp32" else "leave this format out"
            expected = f"numbers in {each.output} of the {each.variant} graph for {each.graph}, as in torch"
            raise MismatchError(compose(expected, "infinity or NaN", remedy))
    worst = parity.find_worst("fp32")
    if worst.share > tolerance:
        raise MismatchError(
            compose(
                f"{worst.output} of the graph for {worst.graph} within {tolerance:g} of its spread in torch",
                f"{worst.share:.2g}",
                "check the weights for huge numbers, or try another opset",
            )
        )
    return worst


def _open(model: Any) -> Any:
    if not isinstance(model, str | Path):
        return model
    from aerogel.slim.families.opening import open_model

    return open_model(model)


def _write_graphs(subject: Any, work: Path, *, half: bool, quantise: bool, boxes: bool, opset: int) -> None:
    for folder in (FOLDER, BOX_FOLDER)[: 1 + boxes]:
        (work / folder).mkdir()
    halved = halve(subject) if half else None
    for graph in list_graphs(subject, boxes=boxes):
        write_graph(graph, subject, work / graph.path(), opset=opset)
        if halved is not None:
            write_graph(graph, halved, work / graph.path(SUFFIXES["fp16"]), opset=opset)
        if quantise:
            quantise_graph(work / graph.path(), work / graph.path(SUFFIXES["q8"]))
    if boxes:
        for path in sorted((work / FOLDER).glob(f"{ENCODER}*.onnx")):
            link_or_copy(path, work / BOX_FOLDER / path.name)


def link_or_copy(path: Path, other: Path) -> None:
    """Give a file a second name, or where the disk has no hard links, a copy."""
    try:
        os.link(path, other)
    except OSError:
        shutil.copyfile(path, other)


def _require_settings(dtype: str, opset: int) -> None:
    faults = []
    if dtype not in get_args(Dtype):
        faults.append(f"dtype {dtype!r}")
    if opset not in OPSETS:
        faults.append(f"opset {opset!r}")
    if faults:
        known = " or ".join(get_args(Dtype))
        raise ConfigError(
            compose(
                f"dtype {known}, opset {OPSETS[0]} to {OPSETS[-1]}",
                " and ".join(faults),
                "pass one of these; float32 graphs are always written",
            )
        )
