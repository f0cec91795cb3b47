"""What a stage tells of its facts."""

from __future__ import annotations

from aerogel.cli.stages import examples_of, tell_figures
from aerogel.measure import Measurement


def test_measurements_and_fidelity_are_told() -> None:
    accuracy = Measurement("test_accuracy", 97.5, "%").to_dict()
    fidelity = [{"views": "cutmix", "agreement": 0.5, "samples": 1234, "kl": 0.1, "mse": 0.2}]
    lines = tell_figures({"test_accuracy": accuracy, "fidelity": fidelity, "inputs": {"a": "b"}, "tiles": 1})
    assert lines == ["test_accuracy: 97.50 %", "cutmix views: the teacher's first choice on 50.0% of 1,234"]


def test_nothing_to_tell_is_nothing() -> None:
    assert tell_figures({"tiles": 1, "fidelity": None}) == []


def test_examples_name_the_verb() -> None:
    assert "aerogel condense select digits" in examples_of("select")
