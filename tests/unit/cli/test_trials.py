"""What several devices would do: shown, simulated, compared, timed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aerogel.cli import main
from aerogel.cli.failures import PROBLEM
from aerogel.parallel import trial
from tests.unit.parallel.pictures import build_pipeline


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a tiny model and the flags of a run of seconds."""
    monkeypatch.chdir(tmp_path)
    build_pipeline().save_pretrained(tmp_path / "tiny")
    return ["tiny", "--class", "ape", "--device", "cpu"]


def test_the_plan_says_who_runs_what(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["sample", "plan", *words, "--devices", "3", "--stride", "2", "--steps", "21", "--units"]) == 0
    )
    shown = capsys.readouterr().out
    assert "2 components" in shown and "device 2: a copy of what device" in shown
    assert "21 steps in 11 rounds" in shown and "conv_out" in shown


def test_the_plan_is_json_as_well(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "plan", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["plan"]["unet"][0]["components"] == 2
    assert 1.5 < found["predicted_speedup"] <= 50 / (1 + 49 / 2)


def test_verifying_compares_and_reports(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--steps", "4", "--devices", "2", "--threads", "1", "--out", "checked", "--json"]
    assert main(["sample", "verify", *words, *flags]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["exact"] and found["largest_difference"] == 0
    assert set(found["likeness"]) == {"PSNR", "SSIM"}
    assert "bit for bit" in Path("checked/report.html").read_text(encoding="utf-8")


def test_pictures_that_the_simulator_does_not_give_are_a_problem(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def verify(pipe: object, draw: trial.Draw, config: object) -> trial.Trial:
        pictures = draw()
        with trial.simulate(pipe, 2) as run:
            other = draw()
            return trial.Trial(pictures, other, False, 0.5, run.plan, run.stats)

    monkeypatch.setattr(trial, "verify", verify)
    assert main(["sample", "verify", *words, "--steps", "3", "--out", "checked"]) == PROBLEM
    assert "differ from the simulator's by up to 0.5" in capsys.readouterr().out


def test_the_bench_shows_medians(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--steps", "3", "--devices", "2", "--threads", "1", "--repeats", "1", "--json"]
    assert main(["sample", "bench", *words, *flags]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {len(each) for each in found["seconds"].values()} == {1}
    assert found["speedup_vs_same_threads"] > 0
