"""Write a graph from a torch module, and check that it says what it should."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from aerogel.export.graphs import Graph, Port, draw_inputs
from aerogel.export.runtime import require_onnx


def write_graph(graph: Graph, model: nn.Module, path: str | Path, *, opset: int) -> None:
    """Trace one graph of ``model`` and write it to ``path``, with the shapes that its ports promise.

    Raises:
        MissingDependencyError: onnx is not installed.
    """
    onnx = require_onnx()
    ports = (*graph.inputs, *graph.outputs)
    with quiet_exporter(), torch.no_grad(), OpenUnflatten():
        torch.onnx.export(
            graph.build(model).eval(),
            draw_inputs(graph),
            str(path),
            input_names=[port.name for port in graph.inputs],
            output_names=[port.name for port in graph.outputs],
            dynamic_axes={port.name: port.open_axes for port in ports if port.open_axes},
            opset_version=opset,
            dynamo=False,
        )
    written = onnx.load(str(path))
    for port, value in zip(graph.outputs, written.graph.output, strict=True):
        _set_shape_(value, port)
    # Inner shapes were noted for the example's sizes.
    del written.graph.value_info[:]
    onnx.checker.check_model(written)
    onnx.save(written, str(path))


class OpenUnflatten(TorchFunctionMode):
    """Write ``unflatten`` as a reshape with its sizes read off, while a model is traced.

    The exporter writes the sizes of the example into its own ``unflatten``, those that may vary as well.
    """

    def __torch_function__(
        self, function: Any, types: Any, given: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        """Call ``function``, or what stands for it."""
        if function is not Tensor.unflatten or named:
            return function(*given, **(named or {}))
        tensor, axis, sizes = given
        axis %= tensor.ndim
        shape = list(tensor.shape)
        return tensor.reshape(*shape[:axis], *sizes, *shape[axis + 1 :])


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence what the tracing exporter says of itself, of sizes that it takes as fixed and of indices.

    The exporter that replaces it needs a package more and cannot trace SAM's encoder. That sizes may vary and
    that no index is negative is not taken on trust: parity is measured on several batches.
    """
    jit: Any = torch.jit
    logger = logging.getLogger("torch.onnx")
    disabled = logger.disabled
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are using the legacy TorchScript-based ONNX export")
        warnings.filterwarnings("ignore", message="The feature will be removed", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=jit.TracerWarning)
        warnings.filterwarnings("ignore", message="Exporting aten::index operator of advanced indexing")
        logger.disabled = True
        try:
            yield
        finally:
            logger.disabled = disabled


def _set_shape_(value: Any, port: Port) -> None:
    sizes = value.type.tensor_type.shape.dim
    del sizes[:]
    for size in port.shape:
        dimension = sizes.add()
        if isinstance(size, int):
            dimension.dim_value = size
        else:
            dimension.dim_param = size
