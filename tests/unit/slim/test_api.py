"""The one call: settings and sources are checked before any work, the model given is never changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import aerogel
from aerogel.core.config import load_config, to_dict
from aerogel.core.folders import read_manifest
from aerogel.errors import (
    AerogelError,
    ConfigError,
    DataError,
    DeviceError,
    FolderExistsError,
    IntegrityError,
)
from aerogel.slim import open_model
from aerogel.slim import pipeline as steps
from aerogel.slim.api import Slimmed, cache_folder, gather_config, open_sources, slim
from aerogel.slim.config import SlimConfig
from aerogel.zoo.photos import open_photos
from tests.unit.slim import tiny
from tests.unit.slim.runs import config, encoder_weights, run, same, snapshot, teacher, weights, write_photos

pytestmark = pytest.mark.usefixtures("no_clock")


def forbid_work(monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    def unexpected(*_: object, **__: object) -> None:
        raise AssertionError("work was begun")

    for name in ("pipeline.score_channels", "pipeline.align", *more):
        monkeypatch.setattr(f"aerogel.slim.{name}", unexpected)


def test_the_call_is_public() -> None:
    assert callable(aerogel.slim) and "slim" in aerogel.__all__


def test_a_result_holds_the_model_the_plan_and_the_figures(finished: Slimmed) -> None:
    figures = finished.to_dict()
    assert json.loads((finished.folder / "result.json").read_text(encoding="utf-8")) == figures
    assert figures["ratio"] == 0.5 and figures["plan"] == finished.plan.digest
    assert figures["after"]["encoder_parameters"] < figures["before"]["encoder_parameters"]
    assert {row["prompt"] for row in figures["agreement"]["rows"]} == {"stored", "box"}
    assert figures["photos"]["aligned"] == 4 and figures["photos"]["held_out"] == 2
    assert load_config(SlimConfig, finished.folder / "recipe.yaml") == finished.config
    assert not finished.model.training
    assert finished.manifest.command == "aerogel test"


def test_the_model_given_is_not_changed(photos: Path, tmp_path: Path) -> None:
    model = teacher().train()
    model.mask_decoder.eval()
    model.vision_encoder.neck.requires_grad_(False)
    before, held = snapshot(model), weights(model)
    found = run(photos, tmp_path, model)
    assert snapshot(model) == before and same(weights(model), held)
    ours = {id(each) for each in found.model.parameters()}
    assert ours.isdisjoint(id(each) for each in model.parameters())


@pytest.mark.parametrize("place", ["score_channels", "align", "write_model"])
def test_the_model_given_is_not_changed_by_an_error(
    place: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = teacher().train()
    before, held = snapshot(model), weights(model)
    act = getattr(steps, place)

    def failing(*given: Any, **named: Any) -> Any:
        if place == "align":
            return fail_late(act(*given, **named))
        if place == "score_channels":
            return act(given[0], fail_late(given[1]), *given[2:], **named)
        raise OSError("broken")

    def fail_late(items: Any) -> Any:
        for number, item in enumerate(items):
            if number == 1:
                raise OSError("broken")
            yield item

    monkeypatch.setattr(steps, place, failing)
    with pytest.raises(OSError, match="broken"):
        run(photos, tmp_path, model)
    assert snapshot(model) == before and same(weights(model), held)


def test_a_model_in_half_precision_stays_so_and_its_slim_one_is_saved_so(
    photos: Path, tmp_path: Path
) -> None:
    model = teacher().half()
    before, held = snapshot(model), weights(model)
    found = run(photos, tmp_path / "run", model)
    assert snapshot(model) == before and same(weights(model), held)
    assert found.manifest.facts["dtype"] == "float16"
    assert {each.dtype for each in found.model.parameters()} == {torch.float32}


def test_a_model_by_name_is_saved_in_the_type_of_its_file(photos: Path, tmp_path: Path) -> None:
    teacher().half().save_pretrained(tmp_path / "half")
    found = slim(
        tmp_path / "half", photos, config=config(model="", align={"epochs": 1}), out=tmp_path / "run"
    )
    assert found.manifest.facts["dtype"] == "float16" and found.config.model == str(tmp_path / "half")
    assert found.to_dict()["before"]["bytes"] == 2 * found.to_dict()["before"]["parameters"]


def test_sam_hq_goes_through(photos: Path, tmp_path: Path) -> None:
    from transformers import SamHQModel

    model = teacher("SamHQ")
    before = snapshot(model)
    found = run(photos, tmp_path, model)
    assert type(found.model) is SamHQModel and snapshot(model) == before
    loaded = SamHQModel.from_pretrained(tmp_path / "model")
    assert same(weights(loaded), weights(found.model))
    assert loaded.config.mask_decoder_config.vit_dim == 8
    assert found.to_dict()["agreement"]["object_count"] > 0
    assert found.report().is_file()


def test_uneven_blocks_open_with_open_model(photos: Path, tmp_path: Path) -> None:
    found = run(
        photos,
        tmp_path,
        tiny.build(dtype=torch.float32),
        layout="flex",
        score={"ranking": "mlp", "normalizer": "mean"},
        reconstruct={"photos": 0},
    )
    assert type(found.model).__name__ == "FlexSamModel" and found.plan.layout == "flex"
    assert len({found.plan.widths[f"blocks.{index}.mlp"] for index in range(3)}) > 1
    again = open_model(tmp_path / "model")
    assert torch.equal(
        tiny.embed(again, tiny.pixels(torch.float32)), tiny.embed(found.model, tiny.pixels(torch.float32))
    )
    assert found.report().is_file()


@pytest.mark.parametrize("part", ["SamVisionModel", "SamVisionEncoder"])
@pytest.mark.parametrize("layout", ["stock", "flex"])
def test_an_encoder_alone_goes_through(part: str, layout: str, photos: Path, tmp_path: Path) -> None:
    from transformers.models.sam import modeling_sam

    whole = teacher()
    model = whole.vision_encoder
    if part == "SamVisionModel":
        model = modeling_sam.SamVisionModel(whole.config.vision_config)
        model.vision_encoder.load_state_dict(whole.vision_encoder.state_dict())
    before = snapshot(model)
    found = run(photos, tmp_path, model, layout=layout)
    assert snapshot(model) == before and found.to_dict()["agreement"] == {}
    assert type(found.model).__name__ == (part if layout == "stock" else f"Flex{part}")
    assert tiny.embed(found.model, tiny.pixels(torch.float32)).shape == (2, 16, 4, 4)
    assert same(weights(open_model(tmp_path / "model")), weights(found.model))
    assert found.report().is_file()


def test_save_copies_the_model_whole_and_overwrites_nothing_unasked(
    finished: Slimmed, tmp_path: Path
) -> None:
    target = finished.save_pretrained(tmp_path / "slim")
    assert read_manifest(target).digest == finished.manifest.digest
    assert same(encoder_weights(open_model(target)), encoder_weights(finished.model))
    with pytest.raises(FolderExistsError):
        finished.save_pretrained(target)
    finished.save_pretrained(target, overwrite=True)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "x.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(FolderExistsError):
        finished.save_pretrained(mine, overwrite=True)
    assert (mine / "x.txt").read_text(encoding="utf-8") == "mine"


def test_the_report_goes_where_it_is_told_to(finished: Slimmed, folder: Path, tmp_path: Path) -> None:
    copied = Slimmed(finished.config, folder, finished.model, finished.plan, finished.manifest)
    assert copied.report() == folder / "report.html"
    assert copied.report(tmp_path / "page.html") == tmp_path / "page.html"
    assert "Masks before and after" in (tmp_path / "page.html").read_text(encoding="utf-8")


def gather(start: SlimConfig | None, model: Any, images: Any, **settings: Any) -> SlimConfig:
    return gather_config(start, model, images, ratio=settings.pop("ratio", None), settings=settings)


def test_settings_are_merged_into_a_config(photos: Path) -> None:
    start = config(align={"lr": 0.5})
    found = gather(start, "their/sam", "here", ratio=0.25, heads=1, align={"epochs": 7}, seed=3)
    expected = to_dict(start)
    expected |= {"model": "their/sam", "images": "here", "ratio": 0.25, "heads": 1, "seed": 3}
    expected["align"]["epochs"] = 7
    assert to_dict(found) == expected
    assert gather(start, "", "").model == "SamModel" and gather(start, "", "").images == "photos"
    assert gather(None, teacher(), open_photos(photos)).images == str(photos)
    assert gather(None, teacher(), Path("x")).model == "SamModel"
    assert gather(None, "x", ["a.jpg", "b.jpg"]).images == "2 files"


def test_all_mistakes_are_told_at_once_before_any_work(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        slim("x", photos, ratio=1.0, out=tmp_path / "run", aling={}, align={"epohcs": 1}, heads=0, held_out=0)
    for told in ("ratio", "below", "aling", "align", "epohcs", "epochs", "heads", "held_out"):
        if told != "below":
            assert told in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"ratio": 1.0}, "ratio: expected a share from 0 up to but not including 1; got 1"),
        ({"ratio": -0.1}, "ratio"),
        ({"score": {"criterion": "chanel-fisher"}}, "did you mean 'channel-fisher'"),
        ({"limit": 10}, r"held_out: expected fewer than limit \(10\)"),
        ({"score": {"ranking": "global"}}, "expected local for the stock layout"),
        ({"start": "random"}, "method one-step only"),
        ({"layout": "flat"}, "layout"),
    ],
)
def test_a_wrong_setting_is_refused_before_a_model_or_photo_is_opened(
    settings: dict[str, Any], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_work(monkeypatch, "api.open_photos", "api.open_model")
    with pytest.raises(ConfigError, match=told):
        slim("model", "photos", out=tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"ratio": 0.95}, "leaves at least 2 of 16 channels"),
        ({"heads": 3}, "1 to 2 heads"),
        ({"ratio": 0.0, "heads": 1}, "a head count that divides 16"),
    ],
)
def test_widths_that_do_not_fit_are_refused_before_photos_are_decoded(
    settings: dict[str, Any], told: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_work(monkeypatch, "api.open_photos")
    with pytest.raises(ConfigError, match=told):
        slim(teacher(), photos, out=tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_models_that_cannot_be_slimmed_are_refused_before_photos_are_decoded(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file, save_file

    from tests.unit.slim.families.tiny_mobile_sam import make_model

    forbid_work(monkeypatch, "api.open_photos")
    with pytest.raises(DataError, match=r"known family \(SamModel.*got MobileSamModel"):
        slim(make_model(), photos, out=tmp_path / "run")
    broken = tmp_path / "broken"
    teacher().save_pretrained(broken)
    kept = load_file(broken / "model.safetensors")
    del kept["vision_encoder.layers.0.mlp.lin1.weight"]
    save_file(kept, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match=r"without vision_encoder\.layers\.0\.mlp\.lin1\.weight"):
        slim(broken, photos, out=tmp_path / "run")
    for missing in (tmp_path / "nowhere", "sam-vit-base"):
        with pytest.raises(DataError, match="which does not exist"):
            slim(missing, photos, out=tmp_path / "run")
    with pytest.raises(DeviceError, match="gpu"):
        slim(teacher(), photos, out=tmp_path / "run", device="gpu")
    with pytest.raises(ConfigError, match=r"a model; got none"):
        slim("", photos, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_photos_that_are_not_enough_are_told_before_any_work(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_work(monkeypatch)
    (tmp_path / "empty").mkdir()
    cases: tuple[tuple[Any, dict[str, Any], str], ...] = (
        (tmp_path / "empty", {}, "at least one"),
        (tmp_path / "nowhere", {}, "correct the path"),
        (photos, {"limit": 9}, r"9 usable photos .*got 6"),
        (photos, {"held_out": 6}, r"more than 6 photos.*got 6"),
        (open_photos(photos, limit=2), {"held_out": 2}, r"more than 2 photos.*got 2"),
        ([], {}, "at least one|photos; got none"),
    )
    for images, settings, told in cases:
        with pytest.raises(AerogelError, match=told):
            slim(teacher(), images, out=tmp_path / "run", **{"held_out": 2, **settings})
    with pytest.raises(ConfigError, match="photos; got none"):
        slim(teacher(), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_bad_photos_among_good_ones_are_skipped_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_photos(tmp_path / "photos")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more of it")
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(folder / "icon.png")
    (folder / "notes.txt").write_text("not a photo", encoding="utf-8")
    sources = open_sources(config(), teacher(), folder)
    said = capsys.readouterr().err
    assert len(sources.photos) + len(sources.held_out) == 6
    assert {each.identifier for each in sources.photos.skipped} == {"broken.jpg", "icon.png", "notes.txt"}
    for told in ("6 photos", "broken.jpg", "icon.png: 8x8 px, smaller than 32 px", "no picture"):
        assert told in said


def test_a_limit_also_holds_for_photos_that_are_open_already(photos: Path) -> None:
    opened = open_photos(photos)

    def take(seed: int) -> tuple[str, ...]:
        found = open_sources(config(limit=4, seed=seed), teacher(), opened)
        return tuple(sorted((*found.photos.ids, *found.held_out.ids)))

    assert len(take(0)) == 4 and take(0) == take(0) and len({take(seed) for seed in range(5)}) > 1
    with pytest.raises(DataError, match="expected 7 photos; got 6"):
        open_sources(config(limit=7), teacher(), opened)


def test_without_a_folder_the_users_cache_keeps_the_stages(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AEROGEL_CACHE", str(tmp_path))
    first = cache_folder(config(), open_sources(config(), teacher(), photos))
    assert first.is_relative_to(tmp_path / "slim")
    assert first == cache_folder(config(), open_sources(config(), teacher(), photos))
    less = config(align={"cache_bytes": 0})
    assert first == cache_folder(less, open_sources(less, teacher(), photos))
    assert first != cache_folder(config(ratio=0.25), open_sources(config(), teacher(), photos))
    other = shutil.copytree(photos, tmp_path / "others")
    (other / "0.png").unlink()
    assert first != cache_folder(config(), open_sources(config(), teacher(), other))
    monkeypatch.delenv("AEROGEL_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    found = cache_folder(config(), open_sources(config(), teacher(), photos))
    assert found.is_relative_to(tmp_path / "home" / ".cache" / "aerogel")


def test_the_photos_that_ship_are_enough(tmp_path: Path) -> None:
    found = run("aerogel/samples", tmp_path, align={"epochs": 1})
    assert found.to_dict()["photos"] == {
        "aligned": 4,
        "held_out": 2,
        "left_out_count": 0,
        "left_out": [],
    }


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_callers_may_have_gradients_off(off: Any, photos: Path, tmp_path: Path, finished: Slimmed) -> None:
    with off():
        found = run(photos, tmp_path)
        assert not torch.is_grad_enabled()
    assert same(encoder_weights(found.model), encoder_weights(finished.model))


def test_files_may_come_from_any_iterable(photos: Path, tmp_path: Path) -> None:
    found = slim(teacher(), photos.glob("*.png"), config=config(), out=tmp_path)
    assert found.config.images == "6 files" and found.to_dict()["photos"]["aligned"] == 4


def test_a_card_that_was_edited_is_no_damage(photos: Path, tmp_path: Path) -> None:
    card = run(photos, tmp_path).folder / "model" / "README.md"
    card.write_text(card.read_text(encoding="utf-8") + "\nMine.\n", encoding="utf-8")
    assert same(weights(run(photos, tmp_path).model), weights(open_model(tmp_path / "model")))
    assert card.read_text(encoding="utf-8").endswith("Mine.\n")


def test_a_model_that_was_trained_on_in_its_folder_opens_once_its_manifest_is_gone(
    photos: Path, tmp_path: Path
) -> None:
    model = run(photos, tmp_path / "run").model
    folder = shutil.copytree(tmp_path / "run" / "model", tmp_path / "tuned")
    with torch.no_grad():
        model.vision_encoder.pos_embed += 1.0
    model.save_pretrained(folder)
    with pytest.raises(IntegrityError, match=r"delete its manifest\.json if you trained the model on"):
        open_model(folder)
    (folder / "manifest.json").unlink()
    assert same(weights(open_model(folder)), weights(model))
