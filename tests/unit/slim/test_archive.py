"""What is saved is what transformers loads, in the type that was asked for, with a card and figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import SamImageProcessorPil, SamModel

from aerogel.core.folders import read_manifest
from aerogel.errors import DataError
from aerogel.slim import archive
from aerogel.slim.api import Slimmed
from aerogel.slim.archive import save_segmenter, weigh, write_model
from aerogel.slim.canvas import Canvas
from aerogel.slim.families import describe
from aerogel.slim.plan import identity_plan
from aerogel.slim.sources import Sources
from aerogel.zoo.photos import Photos, open_photos
from aerogel.zoo.selection import OTHER_FILE, Skipped
from tests.unit.slim import tiny
from tests.unit.slim.runs import config, same, snapshot, teacher, weights


def write(model: Any, photos: Photos, work: Path, **settings: Any) -> Mapping[str, Any]:
    """Write a model that nothing was cut off, its own teacher."""
    sources = Sources.split(model, photos, 2, 0)
    plan = identity_plan(describe(model))
    return write_model(
        model if settings.get("student") is None else settings.pop("student"),
        sources.place_teacher("cpu"),
        plan,
        sources,
        config(**settings),
        work,
    )


def test_plain_transformers_loads_it_with_equal_masks(finished: Slimmed) -> None:
    loaded = SamModel.from_pretrained(finished.folder / "model").eval().requires_grad_(False)
    assert type(finished.model) is SamModel and same(weights(loaded), weights(finished.model))
    assert torch.equal(segment(loaded), segment(finished.model))


def segment(model: Any) -> torch.Tensor:
    points = torch.tensor([[[[20.0, 30.0]], [[40.0, 12.0]]]])
    with torch.no_grad():
        found: torch.Tensor = model(tiny.pixels(torch.float32, 1), input_points=points).pred_masks
    return found


def test_its_image_processor_prepares_photos_as_we_do(finished: Slimmed, photos: Path) -> None:
    processor = SamImageProcessorPil.from_pretrained(finished.folder / "model")
    image = open_photos(photos)[0].image
    theirs = processor(image, return_tensors="pt")["pixel_values"]
    ours, _ = Canvas.of(finished.model).place(image)
    assert theirs.shape == ours.shape and float((theirs - ours).abs().max()) < 0.02


@pytest.mark.parametrize(
    ("stored", "wanted", "expected"),
    [
        (torch.float32, "auto", torch.float32),
        (torch.float16, "auto", torch.float16),
        (torch.float32, "bfloat16", torch.bfloat16),
        (torch.float16, "float32", torch.float32),
    ],
)
def test_the_type_is_the_teachers_or_the_one_asked_for(
    stored: torch.dtype, wanted: str, expected: torch.dtype, photos: Path, tmp_path: Path
) -> None:
    model = teacher().to(stored)
    before = snapshot(model)
    facts = write(model, open_photos(photos), tmp_path, dtype=wanted)
    found = {each.dtype for each in load_file(tmp_path / "model.safetensors").values()}
    assert found == {expected} and facts["dtype"] == str(expected).removeprefix("torch.")
    assert facts["after"]["bytes"] == facts["after"]["parameters"] * expected.itemsize
    assert facts["before"]["bytes"] == facts["before"]["parameters"] * stored.itemsize
    assert facts["file_bytes"] == (tmp_path / "model.safetensors").stat().st_size
    assert snapshot(model) == before
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["dtype"] == facts["dtype"]


def test_the_agreement_is_that_of_the_rounded_model(photos: Path, tmp_path: Path) -> None:
    scores: dict[str, list[float]] = {}
    for dtype in ("auto", "bfloat16"):
        (tmp_path / dtype).mkdir()
        found = write(teacher(), open_photos(photos), tmp_path / dtype, dtype=dtype)
        rows = [row for row in found["agreement"]["rows"] if row["reference"] == "teacher"]
        scores[dtype] = [row["iou"]["mean"] for row in rows if row["predictor"] == "model"]
    assert scores["auto"] == [1.0, 1.0]
    assert all(0.8 < value <= 1.0 for value in scores["bfloat16"]) and min(scores["bfloat16"]) < 1.0


def test_the_card_says_what_it_is_and_how_to_open_it(finished: Slimmed) -> None:
    card = (finished.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "from transformers import SamModel" in card and "SamModel.from_pretrained(" in card
    assert "alternate, ratio 0.5, channel-fisher" in card
    assert "of the basis that the model was rotated into" in card
    assert "| mIoU, stored point, against the teacher | 1 | 0." in card


@pytest.mark.parametrize(
    ("family", "layout", "loads"),
    [
        ("SamHQ", "stock", "from transformers import SamHQModel"),
        ("SamHQ", "flex", "from aerogel.slim import open_model"),
    ],
)
def test_the_card_names_the_class(family: str, layout: str, loads: str, photos: Path, tmp_path: Path) -> None:
    write(teacher(family), open_photos(photos), tmp_path, layout=layout)
    assert loads in (tmp_path / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("masks", "told"),
    [
        ({"epochs": 2}, "its masks taught the mask decoder"),
        ({"epochs": 2, "decoder_lr": 0.0}, "Prompt encoder and mask decoder are those of SamModel"),
        ({"epochs": 0}, "Prompt encoder and mask decoder are those of SamModel"),
    ],
)
def test_the_card_says_whose_the_decoder_is(
    masks: dict[str, Any], told: str, photos: Path, tmp_path: Path
) -> None:
    write(teacher(), open_photos(photos), tmp_path, masks=masks)
    assert told in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_a_teacher_that_finds_nothing_does_not_spoil_the_run(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blind = teacher()
    for parameter in blind.mask_decoder.output_hypernetworks_mlps.parameters():
        parameter.data.zero_()
    facts = write(blind, open_photos(photos), tmp_path)
    assert facts["agreement"] == {} and (tmp_path / "model.safetensors").is_file()
    assert "the teacher finds nothing" in capsys.readouterr().err
    assert "mIoU" not in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_a_comparison_that_fails_does_not_spoil_the_run(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise DataError("expected mask logits that are numbers; got NaN")

    monkeypatch.setattr(archive, "compare_masks", refuse)
    facts = write(teacher(), open_photos(photos), tmp_path)
    assert facts["agreement"] == {} and (tmp_path / "model.safetensors").is_file()
    assert "not measured: expected mask logits" in capsys.readouterr().err


def test_an_encoder_alone_is_saved_without_agreement(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = teacher().vision_encoder
    facts = write(encoder, open_photos(photos), tmp_path)
    assert facts["agreement"] == {} and facts["before"]["parameters"] == facts["before"]["encoder_parameters"]
    assert "no mask decoder" in capsys.readouterr().err
    assert "SamVisionEncoder.from_pretrained" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_photos_are_counted_and_those_left_out_are_named(photos: Path, tmp_path: Path) -> None:
    found = open_photos(photos)
    skipped = (Skipped("bad.jpg", "cut short"), Skipped("notes.txt", OTHER_FILE))
    facts = write(teacher(), Photos(found.name, found.source, found.numbers, skipped), tmp_path)
    assert facts["photos"] == {
        "aligned": 4,
        "held_out": 2,
        "left_out_count": 1,
        "left_out": [{"photo": "bad.jpg", "reason": "cut short"}],
    }


def test_weights_and_macs_are_those_of_the_model(finished: Slimmed) -> None:
    facts = read_manifest(finished.folder / "model").facts
    found = weigh(finished.model, torch.float32)
    assert facts["after"] == found
    assert found["parameters"] == sum(each.numel() for each in finished.model.parameters())
    assert found["encoder_parameters"] == sum(
        each.numel() for each in finished.model.vision_encoder.parameters()
    )
    assert (found["hidden_size"], found["mlp_dim"], found["heads"], found["blocks"]) == (8, 16, 2, 2)
    assert 0 < found["macs"] < found["macs_with_attention"]


def test_saving_shows_no_bars(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save_segmenter(teacher(), tmp_path)
    assert capfd.readouterr().err == ""
    assert np.isin(["config.json", "model.safetensors"], [path.name for path in tmp_path.iterdir()]).all()
