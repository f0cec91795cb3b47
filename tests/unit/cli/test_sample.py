"""`aerogel sample` writes the pictures of several devices into a folder of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from aerogel.cli import main
from aerogel.core.folders import verify_folder
from tests.unit.parallel.pictures import build_pipeline


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the folder of a tiny pipeline."""
    monkeypatch.chdir(tmp_path)
    build_pipeline().save_pretrained(tmp_path / "tiny")
    return "tiny"


def test_two_processes_make_pictures(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sample", model, "--class", "ape", "--class", "bee", "--steps", "4", "--device", "cpu", "--json"]
    assert main([*words, "--devices", "2", "--threads", "1", "--out", "made"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["files"] == ["0000.png", "0001.png"]
    assert facts["stats"]["lanes"][0]["devices"] == 2
    manifest = verify_folder("made", "samples")
    assert manifest.config["request"]["classes"] == ["ape", "bee"]
    with Image.open("made/0000.png") as picture:
        assert picture.size == (16, 16)


def test_one_device_needs_no_worker_and_gives_the_sequential_pictures(model: str) -> None:
    words = ["sample", model, "--class", "ape", "--steps", "3", "--device", "cpu", "--devices", "1"]
    assert main([*words, "--out", "one"]) == 0
    assert main(["sample", "simulate", *words[1:-2], "--warmup", "3", "--out", "simulated"]) == 0
    assert Path("one/0000.png").read_bytes() == Path("simulated/0000.png").read_bytes()


def test_an_earlier_result_is_kept(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sample", model, "--class", "ape", "--steps", "2", "--device", "cpu", "--devices", "1"]
    assert main([*words, "--out", "made"]) == 0
    before = Path("made/0000.png").read_bytes()
    assert main([*words, "--out", "made", "--seed", "1"]) == 2
    assert "made" in capsys.readouterr().err
    assert Path("made/0000.png").read_bytes() == before
    assert main([*words, "--out", "made", "--seed", "1", "--overwrite"]) == 0
    assert Path("made/0000.png").read_bytes() != before


def test_a_mistake_leaves_nothing(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", model, "--class", "dog", "--device", "cpu", "--out", "made"]) == 2
    assert "ape, bee, cat" in capsys.readouterr().err
    assert not Path("made").exists()
