from __future__ import annotations

import subprocess
import sys

import pytest

from aerogel import zoo


def test_every_public_name_resolves() -> None:
    for name in zoo.__all__:
        assert getattr(zoo, name) is not None
        assert name in dir(zoo)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = zoo.nothing


def test_importing_the_package_loads_no_torch_and_no_numpy() -> None:
    heavy = {"torch", "numpy", "PIL", "datasets", "diffusers"}
    code = f"import sys, aerogel.zoo; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
