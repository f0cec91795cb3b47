"""A trial becomes a report."""

from __future__ import annotations

import re

import numpy as np
import pytest

from aerogel.parallel.account import describe, measure_likeness, write_likeness
from aerogel.parallel.api import simulate
from aerogel.parallel.sampling import Request, draw
from aerogel.parallel.trial import Speed, Trial
from aerogel.report import render_report
from tests.unit.parallel.pictures import build_pipeline

REQUEST = Request(classes=("ape", "bee", "cat"), steps=4)


@pytest.fixture(scope="module")
def trial() -> Trial:
    """Compare what a simulated pair of devices gives."""
    pipe = build_pipeline()
    sequential = draw(pipe, REQUEST)
    with simulate(pipe, 2) as run:
        parallel = draw(pipe, REQUEST)
        return Trial(sequential, parallel, True, 0.0, run.plan, run.stats)


def test_likeness_is_that_of_the_8_bit_pictures(trial: Trial) -> None:
    ours, theirs = ((each * 255).round() / 255 for each in (trial.parallel, trial.sequential))
    errors = ((ours - theirs) ** 2).mean((1, 2, 3))
    likeness = measure_likeness(trial)
    assert likeness["PSNR"].value == pytest.approx(float(np.mean(-10 * np.log10(errors))), rel=1e-4)
    assert 0 < likeness["SSIM"].value < 1


def test_frames_of_videos_are_compared_one_by_one(trial: Trial) -> None:
    video = Trial(trial.sequential[None], trial.parallel[None], True, 0.0, trial.plan, trial.stats)
    assert measure_likeness(video)["PSNR"].value == pytest.approx(measure_likeness(trial)["PSNR"].value)


def test_the_report_says_what_was_paid_saved_and_lost(trial: Trial) -> None:
    speed = Speed((3.0, 3.0), (2.0, 2.0), (1.5, 1.5))
    report = describe("a/model", REQUEST, trial, speed, command="aerogel sample verify a/model")
    lines = {line.label: line.value for line in (*report.receipt.paid, *report.receipt.saved)}
    assert lines["devices"] == "2"
    assert lines["time"] == "2.00 times sooner"
    assert [line.label for line in report.receipt.lost] == ["PSNR", "SSIM"]
    assert re.fullmatch(r"\d+\.\d ± \d+\.\d dB", report.receipt.lost[0].value)
    page = render_report(report)
    assert "bit for bit" in page and "aerogel sample verify a/model" in page


def test_equal_pictures_are_called_identical(trial: Trial) -> None:
    same = Trial(trial.sequential, trial.sequential, True, 0.0, trial.plan, trial.stats)
    likeness = measure_likeness(same)
    assert write_likeness(likeness["PSNR"]) == "all identical"
    assert write_likeness(likeness["SSIM"]) == "1.000 ± 0.000"


def test_a_difference_from_the_simulator_is_told(trial: Trial) -> None:
    wrong = Trial(trial.sequential, trial.parallel, False, 0.25, trial.plan, trial.stats)
    assert "by up to 0.25" in describe("a/model", REQUEST, wrong).lede


def test_many_pictures_become_a_sheet(trial: Trial) -> None:
    many = [np.concatenate([each] * 6) for each in (trial.sequential, trial.parallel)]
    big = Trial(many[0], many[1], True, 0.0, trial.plan, trial.stats)
    (comparison,) = describe("a/model", REQUEST, big).sections[0].blocks
    assert len(comparison.pairs) == 1  # type: ignore[union-attr]
