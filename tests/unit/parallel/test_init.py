"""The area lists what is public, and loads nothing before it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import aerogel.parallel


def test_every_public_name_is_there() -> None:
    for name in aerogel.parallel.__all__:
        assert getattr(aerogel.parallel, name).__doc__
    assert set(aerogel.parallel.__all__) <= set(dir(aerogel.parallel))


def test_another_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'paralel'"):
        aerogel.parallel.paralel  # noqa: B018


def test_importing_the_area_loads_no_torch() -> None:
    code = "import aerogel.parallel, sys; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
