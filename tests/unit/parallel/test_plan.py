"""A plan shows every unit once, on its device."""

from __future__ import annotations

import json

import torch

from aerogel.parallel.plan import Plan
from tests.unit.parallel.small import Denoiser, divide

LAYOUT = divide(Denoiser(blocks=6), 2, torch.zeros(2, 8), fold=False)


def test_the_plan_as_data_names_the_owner_of_every_unit() -> None:
    (found,) = json.loads(json.dumps(Plan({"unet": [LAYOUT]}, 2).to_dict()))["unet"]
    assert (found["components"], found["devices"]) == (2, 3)
    assert found["units"] == dict(zip(LAYOUT.flow.names, LAYOUT.partition.owners, strict=True))
    assert sum(found["shares"]) == 1.0


def test_the_plan_for_people_has_a_line_for_each_stretch() -> None:
    lines = str(Plan({"unet": [LAYOUT]}, 1)).splitlines()
    assert lines[0].startswith("unet: 2 components, balance ")
    assert [line.split(" (")[0].strip() for line in lines[1:]] == ["device 0", "device 1"]
    assert "a copy of what device 1 runs" in str(Plan({"unet": [LAYOUT]}, 2))


def test_before_the_first_call_there_is_no_plan() -> None:
    assert "first call" in str(Plan({"unet": []}, 1))
