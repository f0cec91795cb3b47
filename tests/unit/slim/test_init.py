"""The package's names are found without loading more than they need."""

from __future__ import annotations

import subprocess
import sys

import pytest

from aerogel import slim


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'slimmer'"):
        slim.slimmer  # noqa: B018


def test_planning_needs_no_torch() -> None:
    check = (
        "import sys, aerogel.slim as s; s.make_plan, s.Plan, s.derive_widths; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
