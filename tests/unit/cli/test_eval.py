"""Scoring starts with a folder that holds a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from aerogel.cli.eval import eval_command
from aerogel.errors import DataError


def test_a_folder_without_a_network_is_refused_before_the_data_is_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a trained classifier"):
        eval_command(tmp_path, "no-such-data-either")
