"""`aerogel slim eval` and `compare`: scores on screen and in a file, and pairs of them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from aerogel.cli import judging
from aerogel.cli.judging import JudgeSettings, judge, open_segmenter
from aerogel.cli.program import main
from aerogel.errors import DataError
from tests.unit.slim.runs import teacher
from tests.unit.slim.stand_ins import rectangles, tiny_sam


def encode(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two saved models and four photos with label maps."""
    found = tmp_path_factory.mktemp("judge")
    teacher().save_pretrained(found / "one")
    tiny_sam(4).save_pretrained(found / "other")
    teacher().vision_encoder.save_pretrained(found / "encoder")
    photos, labels = [], []
    for seed in range(4):
        photo = rectangles(seed)
        flat = np.zeros(photo.size, dtype=np.uint8)
        for number, mask in enumerate(photo.masks(), 1):
            flat[mask] = number
        photos.append({"bytes": encode(photo.image), "path": f"{seed}.png"})
        labels.append({"bytes": encode(flat), "path": f"{seed}.png"})
    pq.write_table(pa.table({"image": photos, "label": labels}), found / "photos.parquet")
    return found


def test_scores_are_shown_and_written(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores.json"
    words = [str(place / "one"), str(place / "photos.parquet"), "--device", "cpu"]
    assert main(["slim", "eval", *words, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    for told in ("mIoU", "one point", "centre point", "filled box (no model)", "12 objects in 4 photos"):
        assert told in said
    assert said.splitlines()[-1] == f"scores  {out}"
    stored = json.loads(out.read_text(encoding="utf-8"))
    assert len(stored["rows"][0]["scores"]["iou"]) == len(stored["objects"])
    assert main(["slim", "eval", *words, "--out", str(out)]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_json_is_the_only_line_and_a_teacher_adds_rows(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(place / "one"), str(place / "photos.parquet"), "--teacher", str(place / "one")]
    assert main(["slim", "eval", "--json", *words, "--prompt", "box", "--limit", "2", "--no-boundary"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    ours = [row for row in found["rows"] if row["reference"] == "teacher" and row["predictor"] == "model"]
    assert [row["iou"]["mean"] for row in ours] == [1.0]
    assert found["image_count"] == 2 and "boundary_iou" not in found["rows"][0]


def test_several_points_of_each_object(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(place / "one"), str(place / "photos.parquet"), "--prompt", "point", "--no-boundary"]
    means = []
    for count in ("1", "5"):
        assert main(["slim", "eval", "--json", *words, "--points", count]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["points"] == int(count)
        means.append(found["rows"][-1]["iou"]["mean"])
    assert means[0] != means[1]


def test_a_model_and_a_file_of_scores_are_compared(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = str(place / "photos.parquet"), str(tmp_path / "one.json")
    assert main(["slim", "eval", str(place / "one"), data, "--out", out]) == 0
    capsys.readouterr()
    assert main(["slim", "compare", out, str(place / "other"), "--data", data, "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)
    assert main(["slim", "compare", out, out]) == 0
    said = capsys.readouterr().out
    assert "by pairs" in said and "+0.000 to +0.000" in said and "1.000 to 1.000" in said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["eval", "{one}", "{data}", "--prompt", "boxes"], "boxes"),
        (["eval", "{one}", "{data}", "--prompt", "stored"], "stored"),
        (["eval", "{one}", "nowhere"], "correct the path"),
        (["eval", "nowhere", "{data}"], "which does not exist"),
        (["eval", "{encoder}", "{data}"], "an image encoder"),
        (["eval", "{one}", "{data}", "--teacher", "{encoder}"], "an image encoder"),
        (["eval", "{one}", "{data}", "--out", "{one}", "--overwrite"], "name a file"),
        (["eval", "{one}", "{data}", "--out", "{data}/x.json"], "folders on the way"),
        (["eval", "{one}", "{data}", "--limit", "9"], "9 usable photos with masks"),
        (["eval", "{one}", "{data}", "--smallest", "1.5"], "smallest"),
        (["compare", "{one}", "{other}"], "expected --data"),
        (["compare", "{broken}", "{broken}"], "the JSON of an evaluation"),
        (["compare", "{empty}", "{empty}"], "the fields of an evaluation"),
    ],
)
def test_mistakes_are_told_in_a_sentence(
    words: list[str], told: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    (tmp_path / "empty.json").write_text("{}", encoding="utf-8")
    places = {
        "one": place / "one",
        "other": place / "other",
        "encoder": place / "encoder",
        "data": place / "photos.parquet",
        "broken": tmp_path / "broken.json",
        "empty": tmp_path / "empty.json",
    }
    assert main(["slim", *(word.format(**places) for word in words)]) == 2
    said = capsys.readouterr()
    assert told in said.err and "Traceback" not in said.err and said.out == ""


def test_a_place_that_scores_cannot_go_to_is_refused_before_any_work(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "judge", lambda *_: pytest.fail("it began"))
    words = [str(place / "one"), str(place / "photos.parquet"), "--out", str(tmp_path), "--overwrite"]
    assert main(["slim", "eval", *words]) == 2


def test_an_encoder_alone_gives_no_masks(place: Path) -> None:
    assert hasattr(open_segmenter(str(place / "one")), "mask_decoder")
    with pytest.raises(DataError, match="with its mask decoder; got SamVisionEncoder"):
        open_segmenter(str(place / "encoder"))


def test_scores_depend_on_model_and_seed_only(place: Path) -> None:
    settings = JudgeSettings(prompts=("point",), no_boundary=True, device="cpu")
    one, again = (judge(str(place / "one"), str(place / "photos.parquet"), settings) for _ in range(2))
    assert one.to_dict() == again.to_dict()
