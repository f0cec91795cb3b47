"""Where the page goes; what it holds is tested with the account."""

from __future__ import annotations

from pathlib import Path

import pytest

from aerogel.cli.report import report_command
from aerogel.errors import DataError, FolderExistsError


def test_a_file_of_the_users_is_kept(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("mine", encoding="utf-8")
    with pytest.raises(FolderExistsError, match="--overwrite"):
        report_command(tmp_path, out=page)
    with pytest.raises(DataError, match="finished run"):
        report_command(tmp_path, out=page, overwrite=True)
    assert page.read_text(encoding="utf-8") == "mine"


def test_a_folder_is_no_page(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--out .*/report\.html"):
        report_command(tmp_path, out=tmp_path)
