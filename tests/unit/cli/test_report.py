"""Where the page goes; what it holds is tested with the account."""

from __future__ import annotations

from pathlib import Path

import pytest

from aerogel.cli.report import describe_folder, report_command
from aerogel.errors import DataError, FolderExistsError, IntegrityError


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


@pytest.mark.parametrize("content", ["", "type: polish\n", "- 1\n"])
def test_what_is_no_run_is_told(tmp_path: Path, content: str) -> None:
    if content:
        (tmp_path / "recipe.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="`aerogel condense` or `aerogel slim`"):
        report_command(tmp_path)
    with pytest.raises(DataError, match="no folder at"):
        report_command(tmp_path / "nowhere")
    assert not (tmp_path / "report.html").exists()


def test_a_recipe_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(IntegrityError, match=r"recipe\.yaml"):
        report_command(tmp_path)


@pytest.mark.parametrize(("kind", "told"), [("condense", "finished run"), ("slim", "finished slimming")])
def test_the_recipe_says_what_was_made(tmp_path: Path, kind: str, told: str) -> None:
    (tmp_path / "recipe.yaml").write_text(f"type: {kind}\nversion: 1\n", encoding="utf-8")
    with pytest.raises(DataError, match=told):
        describe_folder(tmp_path)
