"""One export of a tiny SAM in all number formats, for all tests that only look at it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from aerogel.export import Exported, export_onnx
from tests.unit.slim import tiny


@pytest.fixture(scope="session")
def model() -> Any:
    return tiny.build(dtype=torch.float32)


@pytest.fixture(scope="session")
def exported(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("export") / "tiny"
    return export_onnx(model, folder, dtype="float16", quantise=True)
