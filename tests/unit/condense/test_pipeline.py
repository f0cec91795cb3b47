"""Stages are run once, refused when settings differ, and continued after whatever stopped them."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import aerogel
from aerogel.condense.api import Condensed
from aerogel.condense.condensed import load_condensed
from aerogel.condense.config import CondenseConfig, SelectionConfig
from aerogel.condense.pipeline import STAGES, Pipeline
from aerogel.condense.sources import Sources
from aerogel.core.folders import read_manifest
from aerogel.errors import (
    ConfigError,
    DataError,
    FolderConflictError,
    FolderExistsError,
    IntegrityError,
    MismatchError,
    ProjectorError,
    StorageFullError,
)
from tests.unit.condense import tiny


@pytest.fixture
def run(finished: Condensed, tmp_path: Path) -> Path:
    """Return a copy of the finished run's folder, to change."""
    return Path(shutil.copytree(finished.folder, tmp_path / "run"))


def pipeline(out: Path, config: CondenseConfig | None = None, **settings: Any) -> Pipeline:
    return Pipeline(config or tiny.config(), tiny.sources(), out, **settings)


def digests(out: Path) -> dict[str, str]:
    return {name: read_manifest(out / name).digest for name in STAGES}


def forbid_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def unexpected(*_: object, **__: object) -> None:
        raise AssertionError("a stage was run")

    for name in ("train_teacher", "select_images", "train_generator", "import_teacher"):
        monkeypatch.setattr(f"aerogel.condense.pipeline.{name}", unexpected)


def test_each_stage_is_a_folder_of_its_own(finished: Condensed) -> None:
    kinds = [read_manifest(finished.folder / name).kind for name in STAGES]
    assert kinds == ["teacher", "selection", "label-generator", "condensed-set"]
    facts = read_manifest(finished.folder / "archive").facts
    inputs = facts["inputs"]
    assert inputs == {name: read_manifest(finished.folder / name).digest for name in STAGES[:3]}
    assert not list(finished.folder.rglob("*.partial"))
    assert not list(finished.folder.rglob("checkpoint"))


def test_equal_runs_have_equal_manifests(finished: Condensed, tmp_path: Path) -> None:
    assert pipeline(tmp_path).archive.manifest.digest == finished.data.manifest.digest
    assert digests(tmp_path) == digests(finished.folder)


def test_finished_stages_are_opened_and_not_run_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_work(monkeypatch)
    before = digests(run)
    again = pipeline(run)
    assert len(again.archive) == 6
    assert again.digest("teacher") == before["teacher"]
    assert torch.equal(again.selection.images, again.archive.images)


def test_the_images_are_spread_over_the_classes_and_lead_back_to_the_data(finished: Condensed) -> None:
    chosen = finished.pipeline.selection
    assert chosen.labels.tolist() == [0, 0, 1, 1, 2, 2]
    known = dict(zip(finished.pipeline.train.ids, finished.pipeline.train.labels.tolist(), strict=True))
    assert [known[patch.source] for (patch,) in chosen.patches] == chosen.labels.tolist()
    held_out = set(finished.pipeline.held_out.ids)
    assert held_out.isdisjoint(known)


def test_times_are_kept_beside_the_stages_and_not_in_them(finished: Condensed) -> None:
    times = json.loads((finished.folder / "timings.json").read_text())
    assert set(STAGES) <= set(times)
    assert all(seconds >= 0.0 for seconds in times.values())
    for name in STAGES:
        assert not (finished.folder / name / "timings.json").exists()


def test_other_settings_are_refused_and_replace_only_what_they_change(run: Path) -> None:
    before = digests(run)
    other = tiny.config(projector={"rank": 3, "fit": {"epochs": 7, "batch_size": 16, "lr": 0.01}})
    with pytest.raises(FolderConflictError, match=r"config\.projector\.rank is 2 there and 3 here"):
        _ = pipeline(run, other).archive
    assert digests(run) == before
    _ = pipeline(run, other, overwrite=True).archive
    after = digests(run)
    assert {name for name in STAGES if after[name] != before[name]} == {"generator", "archive"}


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_the_users_in_the_way_is_left_alone(
    run: Path, name: str, overwrite: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_work(monkeypatch)
    shutil.rmtree(run / name)
    (run / name).mkdir()
    (run / name / "mine.txt").write_text("mine")
    with pytest.raises(FolderExistsError, match=name):
        _ = pipeline(run, overwrite=overwrite).archive
    assert (run / name / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("name", STAGES)
def test_a_damaged_stage_is_refused_and_made_again_on_request(
    finished: Condensed, run: Path, name: str
) -> None:
    path = next(
        path for path in sorted((run / name).rglob("*")) if path.suffix in (".safetensors", ".parquet")
    )
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(IntegrityError, match=path.name):
        _ = pipeline(run).archive
    _ = pipeline(run, overwrite=True).archive
    assert digests(run) == digests(finished.folder)


def fail_writing(monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """Let the disk be full for the files of one stage."""
    from aerogel.core import files

    def full(path: Path, data: bytes, write: Callable[[Path, bytes], None] = files._write_new) -> None:
        if f"{stage}.partial" in path.as_posix() and path.parent.name != "checkpoint":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    def full_table(*_: object, **__: object) -> None:
        raise OSError("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device")

    monkeypatch.setattr(files, "_write_new", full)
    if stage == "archive":
        monkeypatch.setattr("aerogel.condense.archive.pq.write_table", full_table)


@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk_is_told_and_the_next_run_goes_on(finished: Condensed, run: Path, stage: str) -> None:
    for name in STAGES[STAGES.index(stage) :]:
        shutil.rmtree(run / name)
    with pytest.MonkeyPatch.context() as patch:
        fail_writing(patch, stage)
        with pytest.raises(StorageFullError, match=r"a full disk .*what to do: free some space"):
            _ = pipeline(run).archive
        assert not (run / stage).exists()
    _ = pipeline(run).archive
    assert digests(run) == digests(finished.folder)


def test_a_generator_at_chance_ends_the_run_and_leaves_no_set(run: Path) -> None:
    for name in ("generator", "archive"):
        shutil.rmtree(run / name)
    useless = tiny.config(projector={"rank": 1, "fit": {"epochs": 3, "batch_size": 16, "lr": 20.0}})
    with pytest.raises(ProjectorError, match=r"chance is 33\.3%.*lower projector\.fit\.lr"):
        _ = pipeline(run, useless).archive
    assert not (run / "generator").exists()
    assert not (run / "archive").exists()
    _ = pipeline(run, overwrite=True).archive


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_and_colour_go_through(tmp_path: Path, channels: int) -> None:
    parts = tiny.sources(channels=channels)
    data = Pipeline(tiny.config(ipc=1), parts, tmp_path).archive
    assert data.images.shape == (3, channels, 8, 8)
    assert data.labels(data.images.float() / 255.0).shape == (3, 3)
    assert len(data.mean) == channels


def test_a_channel_without_contrast_goes_through(tmp_path: Path) -> None:
    parts = tiny.sources(channels=3)
    for part in (parts.train, parts.test):
        part.images[:, 1] = 77
    data = Pipeline(tiny.config(), parts, tmp_path).archive
    assert torch.isfinite(data.labels(data.images.float() / 255.0)).all()


def test_clip_is_a_backbone_and_its_words_are_the_head(tmp_path: Path) -> None:
    folder = str(tiny.write_clip(tmp_path / "clip"))
    fit = {"epochs": 20, "batch_size": 16, "lr": 0.02}
    config = tiny.config(projector={"backbone": folder, "rank": 4, "fit": fit})
    data = pipeline(tmp_path / "run", config).archive
    assert data.manifest.facts["backbone"]["name"] == folder
    assert load_condensed(tmp_path / "run" / "archive").labels(data.images.float() / 255.0).shape == (6, 3)


def test_weak_teachers_are_the_last_snapshots_or_those_named(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aerogel.condense import pipeline as module

    seen: list[list[dict[str, torch.Tensor]]] = []
    train = module.train_generator

    def spy(lesson: Any) -> Any:
        seen.append([teacher.state_dict() for teacher in lesson.teachers])
        return train(lesson)

    monkeypatch.setattr(module, "train_generator", spy)
    _ = pipeline(run, tiny.config(projector={"weak_teachers": 2}), overwrite=True).generator
    found = pipeline(run, tiny.config(projector={"weak_teachers": [1]}), overwrite=True)
    _ = found.generator
    both, first = seen
    assert (len(both), len(first)) == (2, 1)
    earliest = found.teacher.snapshots[0].state_dict()
    assert all(torch.equal(value, first[0][name]) for name, value in earliest.items())


def test_more_weak_teachers_than_snapshots_are_refused_before_the_generator(
    run: Path, tmp_path: Path
) -> None:
    source = str(tiny.write_classifier(tmp_path / "vit"))
    config = tiny.config(teacher={"path": source}, projector={"weak_teachers": 2})
    with pytest.raises(ConfigError, match="at most 1, the teacher's snapshots"):
        _ = pipeline(tmp_path / "new", config).generator


def test_an_imported_teacher_is_copied_and_known_by_its_content(run: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(run / "teacher", tmp_path / "theirs"))
    config = tiny.config(teacher={"path": str(source)})
    found = pipeline(tmp_path / "new", config).teacher
    assert found.class_names == tiny.NAMES
    moved = shutil.copytree(source, tmp_path / "moved")
    _ = pipeline(tmp_path / "new", tiny.config(teacher={"path": str(moved)})).teacher
    other = tiny.config(teacher={"width": 4})
    shutil.rmtree(source)
    _ = pipeline(tmp_path / "other", other).teacher
    shutil.copytree(tmp_path / "other" / "teacher", source)
    with pytest.raises(FolderConflictError, match=r"inputs\.imported"):
        _ = pipeline(tmp_path / "new", config).teacher


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_a_transformers_classifier_teaches(tmp_path: Path, kind: str) -> None:
    source = tiny.write_classifier(tmp_path / "source", kind=kind)
    built = pipeline(tmp_path / "run", tiny.config(teacher={"path": str(source)}))
    assert built.teacher.class_names == tiny.NAMES
    assert len(built.selection.labels) == 6
    facts = built.manifest("teacher").facts
    assert 0.0 <= facts["test_accuracy"]["value"] <= 100.0
    shutil.rmtree(tmp_path / "run" / "selection")
    again = pipeline(tmp_path / "run", tiny.config(teacher={"path": str(source)}))
    assert torch.equal(again.selection.images, built.selection.images)


def test_a_teacher_of_other_classes_is_refused_before_anything_is_written(run: Path, tmp_path: Path) -> None:
    config = tiny.config(teacher={"path": str(run / "teacher")})
    parts = Sources(*(tiny.rename(part, ("bar", "ring", "dot")) for part in vars(tiny.sources()).values()))
    with pytest.raises(MismatchError, match="1: 'dot' against 'ring'"):
        _ = Pipeline(config, parts, tmp_path / "new").archive
    assert not any((tmp_path / "new" / name).exists() for name in STAGES)


def test_a_class_of_one_image_goes_through_and_is_never_held_out(tmp_path: Path) -> None:
    train = tiny.draw(24)
    train = train.subset(torch.cat([torch.arange(48), torch.tensor([50])]))
    parts = Sources(train, tiny.draw(8, seed=2))
    built = Pipeline(tiny.config(ipc=1), parts, tmp_path)
    assert (built.train.labels == 2).sum() == 1
    assert 2 not in built.held_out.labels.tolist()
    assert built.selection.labels.tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="'ring' has 1"):
        _ = Pipeline(tiny.config(ipc=2), parts, tmp_path / "two").selection


def test_one_image_of_every_class_leaves_none_to_hold_out(tmp_path: Path) -> None:
    parts = Sources(tiny.draw(1), tiny.draw(8, seed=2))
    with pytest.raises(DataError, match=r"training images to hold out.*raise teacher\.held_out"):
        Pipeline(tiny.config(ipc=1), parts, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_baseline_of_random_images_stands_beside_the_choice(run: Path) -> None:
    built = pipeline(run)
    plain = SelectionConfig(order="random", crops=1, tiles=1, candidates=0)
    first, second = (built.select(f"random-{seed}", plain, seed) for seed in (0, 1))
    assert not torch.equal(first.images, second.images)
    originals = {image.numpy().tobytes() for image in built.train.images}
    assert all(image.numpy().tobytes() in originals for image in first.images)
    assert built.digest("random-0") == read_manifest(run / "random-0").digest


@pytest.mark.parametrize("head_rank", ["full", 2])
def test_a_set_of_codes_opens_like_any_other_and_its_probe_is_of_what_is_stored(
    run: Path, head_rank: str | int, monkeypatch: pytest.MonkeyPatch
) -> None:
    floats = read_manifest(run / "archive").facts["projector"]["adapter_bytes"]
    config = tiny.config(projector={"dtype": "int4", "head_rank": head_rank})
    done = pipeline(run, config, overwrite=True)
    data = aerogel.load_condensed(done.archive.folder)
    names = {path.name for path in (data.folder / "labels").iterdir()}
    assert names == {"adapter_codes.safetensors", "adapter_config.json"}
    views, facts = data.images.float() / 255.0, data.manifest.facts
    with torch.no_grad():
        stored = done.generator.eval()(views)
    assert torch.allclose(data.labels(views), stored, atol=1e-4, rtol=1e-4)
    probe = torch.tensor(facts["probe"])
    assert torch.allclose(stored[: len(probe)], probe, atol=1e-5, rtol=1e-5)
    size = sum(path.stat().st_size for path in (data.folder / "labels").iterdir())
    assert facts["projector"]["adapter_bytes"] == size < 0.5 * floats
    # The codec is held against the adapter as trained; what it loses is recorded, and is not nothing.
    assert facts["projector"]["codec"] == "int4"
    found = facts["projector"]["codec_fidelity"]
    assert [each["views"] for each in found] == ["augmented", "cutmix", "condensed"]
    assert all(0.8 < each["agreement"] <= 1.0 and each["mse"] > 0.0 for each in found)
    monkeypatch.setattr("aerogel.condense.condensed._PROBE_TOLERANCE", 1e-4)
    _ = load_condensed(data.folder).generator


def test_what_float32_loses_is_nothing(run: Path) -> None:
    done = pipeline(run, tiny.config(projector={"dtype": "float32"}), overwrite=True)
    found = done.manifest("generator").facts
    assert (found["codec"], {each["agreement"] for each in found["codec_fidelity"]}) == ("float32", {1.0})
    assert {each["mse"] for each in found["codec_fidelity"]} == {0.0}


def test_a_budget_is_kept_and_one_that_nothing_fits_is_refused_before_any_work(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    floats = read_manifest(run / "generator").facts["adapter_bytes"]
    done = pipeline(run, tiny.config(projector={"budget": floats - 1}), overwrite=True)
    facts = done.archive.manifest.facts["projector"]
    assert (done.codec, facts["codec"], facts["dtype"]) == ("int8", "int8", "float16")
    assert facts["adapter_bytes"] < floats
    forbid_work(monkeypatch)
    monkeypatch.setattr("aerogel.core.staging.run_stage", None)
    with pytest.raises(ConfigError, match=r"projector\.budget.*the smallest; what to do: raise"):
        pipeline(tmp_path / "new", tiny.config(projector={"budget": 100}))


def test_a_stage_made_before_there_were_budgets_is_still_the_same(finished: Condensed) -> None:
    assert "budget" not in read_manifest(finished.folder / "generator").config["projector"]


MOSAICS = {"selection": {"tiles": 2}, "refine": {"steps": 10, "lr": 0.02}}


def test_updated_images_are_a_stage_between_selection_and_generator(tmp_path: Path) -> None:
    found = Pipeline(tiny.config(**MOSAICS), tiny.sources(size=16), tmp_path)
    data = found.archive
    refined = read_manifest(tmp_path / "refined")
    assert refined.facts["gap_after"] < refined.facts["gap_before"]
    assert refined.facts["inputs"]["selection"] == read_manifest(tmp_path / "selection").digest
    assert read_manifest(tmp_path / "generator").facts["inputs"]["refined"] == refined.digest
    assert data.manifest.facts["inputs"]["refined"] == refined.digest
    assert data.manifest.facts["refined"]["steps"] == 10
    assert torch.equal(data.images, found.refined.images)
    assert torch.equal(found.training_set.images, data.images)
    assert not torch.equal(data.images, found.selection.images)
    assert load_condensed(tmp_path / "archive").labels(data.images.float() / 255.0).shape == (6, 3)


def test_the_selection_alone_updates_nothing(tmp_path: Path) -> None:
    found = Pipeline(tiny.config(**MOSAICS), tiny.sources(size=16), tmp_path)
    _ = found.manifest("selection")
    assert not (tmp_path / "refined").exists()


def test_an_update_of_images_that_were_not_shrunk_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing was lost"):
        pipeline(tmp_path / "run", tiny.config(refine={"steps": 5}))
    assert not (tmp_path / "run" / "teacher").exists()
