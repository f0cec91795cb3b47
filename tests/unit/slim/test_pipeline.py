"""Stages are run once, refused when settings differ, and go on to the same bits after any interruption."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from aerogel.core.folders import read_manifest
from aerogel.errors import (
    ConfigError,
    DataError,
    FolderConflictError,
    FolderExistsError,
    IntegrityError,
    MismatchError,
)
from aerogel.slim import pipeline as module
from aerogel.slim.api import Slimmed
from aerogel.slim.plan import load_plan
from aerogel.slim.surgery import apply_plan
from tests.unit.slim.runs import encoder_weights, pipeline, run, same, snapshot, teacher, weights

pytestmark = pytest.mark.usefixtures("no_clock")

STAGES = (
    "embedding-rotation",
    "embedding-plan",
    "embedding-reconstruction",
    "bottleneck-aligning",
    "bottleneck-rotation",
    "bottleneck-plan",
    "bottleneck-reconstruction",
    "embedding-aligning",
    "model",
)

MASKS = {"epochs": 2, "points": 2, "several": 0.5}


class Killed(Exception):
    """Stands for whatever stops a process."""


def digests(out: Path) -> dict[str, str]:
    return {name: read_manifest(out / name).digest for name in STAGES}


def forbid_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def unexpected(*_: object, **__: object) -> None:
        raise AssertionError("a stage was run")

    for name in (
        "rotate_embedding_",
        "rotate_heads_",
        "score_channels",
        "reconstruct_",
        "align",
        "write_model",
        "write_exhibits",
    ):
        monkeypatch.setattr(module, name, unexpected)


def test_each_stage_is_a_folder_of_its_own(finished: Slimmed) -> None:
    kinds = [read_manifest(finished.folder / name).kind for name in (*STAGES, "exhibits")]
    phase = ["slim-weights", "slim-plan", "slim-weights", "slim-weights"]
    assert kinds == [*phase, *phase, "slim-model", "slim-exhibits"]
    inputs = read_manifest(finished.folder / "model").facts["inputs"]
    for name in ("bottleneck-aligning", "embedding-aligning"):
        assert inputs[name] == read_manifest(finished.folder / name).digest
    assert not list(finished.folder.rglob("*.partial"))
    assert not list(finished.folder.rglob("checkpoint"))


def test_equal_runs_have_equal_manifests(finished: Slimmed, photos: Path, tmp_path: Path) -> None:
    again = run(photos, tmp_path)
    assert digests(tmp_path) == digests(finished.folder)
    assert same(weights(again.model), weights(finished.model))


def test_finished_stages_are_opened_and_not_run_again(
    folder: Path, photos: Path, finished: Slimmed, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_work(monkeypatch)
    times = (folder / "timings.json").read_bytes()
    assert same(weights(run(photos, folder).model), weights(finished.model))
    assert digests(folder) == digests(finished.folder)
    assert (folder / "timings.json").read_bytes() == times


def test_the_plans_of_the_phases_compose_to_the_models_and_can_be_replayed(finished: Slimmed) -> None:
    first, second = (
        load_plan(finished.folder / f"{name}-plan" / "plan.json") for name in ("embedding", "bottleneck")
    )
    whole = load_plan(finished.folder / "model" / "plan.json")
    assert first.then(second) == whole == finished.plan
    assert first.widths["embedding"] == 8 and first.widths["blocks.0.mlp"] == 32
    assert second.sizes["embedding"] == 8 and second.widths["blocks.0.mlp"] == 16
    replayed = apply_plan(teacher(), whole)
    assert {name: each.shape for name, each in weights(replayed).items()} == {
        name: each.shape for name, each in weights(finished.model).items()
    }


def test_prompt_encoder_and_decoder_are_the_teachers_and_the_encoder_was_trained(finished: Slimmed) -> None:
    theirs, ours = weights(teacher()), weights(finished.model)
    decoding = [name for name in theirs if not name.startswith("vision_encoder.")]
    assert decoding and all(torch.equal(ours[name], theirs[name]) for name in decoding)
    cut = encoder_weights(apply_plan(teacher(), finished.plan))
    trained = encoder_weights(finished.model)
    assert all(not torch.equal(trained[name], cut[name]) for name in cut if name.endswith(".weight"))


def stop_at(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the work in one stage stop when about half of it is done."""
    calls = {"n": 0}

    def stopping(act: Callable[..., Any], nth: int) -> Callable[..., Any]:
        def acted(*given: Any, **named: Any) -> Any:
            calls["n"] += 1
            if calls["n"] == nth:
                raise Killed
            return act(*given, **named)

        return acted

    def stopping_loop(nth: int) -> Callable[..., Any]:
        align = module.align

        def steps(*given: Any, **named: Any) -> Iterator[Any]:
            calls["n"] += 1
            stops = calls["n"] == nth
            for state in align(*given, save_steps=1, **named):
                if stops and state.step == 3:
                    raise Killed
                yield state

        return steps

    if name.endswith("-plan"):
        nth = 1 if name == "embedding-plan" else 3
        monkeypatch.setattr(module, "make_plan", stopping(module.make_plan, nth))
    elif name.endswith("-rotation"):
        act = "rotate_embedding_" if name == "embedding-rotation" else "rotate_heads_"
        monkeypatch.setattr(module, act, stopping(getattr(module, act), 1))
    elif name.endswith("-reconstruction"):
        nth = 1 if name == "embedding-reconstruction" else 2
        monkeypatch.setattr(module, "reconstruct_", stopping(module.reconstruct_, nth))
    elif name.endswith("-aligning"):
        monkeypatch.setattr(module, "align", stopping_loop(1 if name == "bottleneck-aligning" else 2))
    elif name == "model":
        from aerogel.slim import archive

        monkeypatch.setattr(archive, "weigh", stopping(archive.weigh, 2))
    else:
        from aerogel.slim import exhibits

        monkeypatch.setattr(exhibits, "draw_masks", stopping(exhibits.draw_masks, 2))


@pytest.mark.parametrize("name", [*STAGES, "exhibits"])
def test_a_run_killed_in_any_stage_goes_on_to_the_same_bits(
    name: str, finished: Slimmed, photos: Path, tmp_path: Path
) -> None:
    out, model = tmp_path / "run", teacher()
    before, held = snapshot(model), weights(model)
    with pytest.MonkeyPatch.context() as patch:
        stop_at(name, patch)
        with pytest.raises(Killed):
            run(photos, out, model)
    assert snapshot(model) == before and same(weights(model), held)
    assert (out / f"{name}.partial").is_dir() and not (out / name).exists()
    assert not (out / "result.json").exists()
    again = run(photos, out, model)
    assert digests(out) == digests(finished.folder)
    assert same(weights(again.model), weights(finished.model))
    assert not list(out.rglob("*.partial"))


def test_a_killed_aligning_does_not_begin_anew(photos: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        stop_at("bottleneck-aligning", patch)
        with pytest.raises(Killed):
            pipeline(photos, tmp_path).slim(1)
    spent = json.loads((tmp_path / "timings.json").read_text(encoding="utf-8"))["bottleneck-aligning"]
    with pytest.MonkeyPatch.context() as patch:
        note_steps(seen, patch)
        pipeline(photos, tmp_path).slim(1)
    assert seen == [3, 4], "two of the four steps were saved"
    assert json.loads((tmp_path / "timings.json").read_text(encoding="utf-8"))["bottleneck-aligning"] > spent


def test_a_run_that_was_short_of_memory_or_disk_goes_on_with_less(photos: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_at_step(3, patch)
        with pytest.raises(Killed):
            run(photos, tmp_path, align={"accumulate": 1})
    less = {"accumulate": 2, "cache_bytes": 0, "checkpoint_blocks": False}
    steps: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        note_steps(steps, patch)
        model = run(photos, tmp_path, align=less).model
        assert steps == [3, 4, 1, 2, 3, 4]
        again = run(photos, tmp_path).model
    assert len(steps) == 6 and same(weights(again), weights(model))


def note_steps(steps: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let alignings write down their steps."""
    align = module.align

    def noting(*given: Any, **named: Any) -> Iterator[Any]:
        for state in align(*given, **named):
            steps.append(state.step)
            yield state

    monkeypatch.setattr(module, "align", noting)


def stop_at_step(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next aligning save each step, and stop at this one."""
    align = module.align

    def stopping(*given: Any, **named: Any) -> Iterator[Any]:
        for state in align(*given, save_steps=1, **named):
            if state.step == step:
                raise Killed
            yield state

    monkeypatch.setattr(module, "align", stopping)


def test_masks_teach_the_decoder_after_all_phases(finished: Slimmed, photos: Path, tmp_path: Path) -> None:
    outs = [tmp_path / name for name in ("whole", "killed")]
    for out in outs:
        shutil.copytree(finished.folder, out, ignore=shutil.ignore_patterns("model", "exhibits", "re*"))
    model = run(photos, outs[0], masks=MASKS).model
    changed = {
        name for name, each in weights(finished.model).items() if not torch.equal(each, weights(model)[name])
    }
    assert {name.partition(".")[0] for name in changed} == {"vision_encoder", "mask_decoder"}
    with pytest.MonkeyPatch.context() as patch:
        stop_at_step(3, patch)
        with pytest.raises(Killed):
            run(photos, outs[1], masks=MASKS)
    assert same(weights(run(photos, outs[1], masks=MASKS).model), weights(model))
    stages = ("bottleneck-aligning", "embedding-aligning", "masks-aligning")
    whole, killed = (read_manifest(out / "model") for out in outs)
    assert whole.digest == killed.digest
    for name in stages:
        assert whole.facts["inputs"][name] == read_manifest(outs[0] / name).digest


def test_the_first_aligning_takes_its_own_number_of_epochs(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path, bottleneck_epochs=1)
    losses = [
        read_manifest(tmp_path / f"{name}-aligning").facts["losses"] for name in ("bottleneck", "embedding")
    ]
    assert [len(each) for each in losses] == [1, 2]


def test_runs_at_other_ratios_take_what_the_teacher_said_from_one_place(photos: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    run(photos, tmp_path / "a", teacher_cache=cache)
    kept = {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")}
    # Of the photos to learn from, in the epoch and the phase in which no bottlenecks weigh in.
    assert len(kept) == 4
    found = run(photos, tmp_path / "b", teacher_cache=cache, ratio=0.25)
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")} == kept
    assert not list(tmp_path.glob("[ab]/**/teacher"))
    assert same(weights(found.model), weights(run(photos, tmp_path / "c", ratio=0.25).model))


def test_a_file_where_the_cache_should_be_is_refused_before_any_work(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match="choose another path"):
        run(photos, tmp_path / "out", teacher_cache=tmp_path / "cache")
    assert not (tmp_path / "out").exists()


def test_learning_masks_in_a_finished_folder_is_refused_before_any_work(
    folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_work(monkeypatch)
    with pytest.raises(FolderConflictError, match="which learned masks"):
        pipeline(photos, folder, masks=MASKS)
    assert not (folder / "masks-aligning").exists()


def test_a_model_without_a_decoder_learns_no_masks(photos: Path, tmp_path: Path) -> None:
    from transformers import SamVisionModel

    model = SamVisionModel(teacher().config.vision_config)
    with pytest.raises(MismatchError, match="a model with a mask decoder"):
        pipeline(photos, tmp_path / "run", model, masks=MASKS)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "told", "first"),
    [
        ({"align": {"epochs": 3}}, r"config\.align\.epochs is 2 there and 3 here", 3),
        ({"rotate": {"photos": 3}}, r"rotate\.photos is 64 there and 3 here", 0),
        ({"reconstruct": {"ridge": 0.1}}, r"reconstruct\.ridge is 0\.03 there and 0\.1 here", 2),
        ({"ratio": 0.25}, r"widths\.embedding is 8 there and 12 here", 0),
        ({"seed": 1}, r"seed is 0 there and 1 here|held_out", 0),
        ({"surgery": {"positions": False}}, "positions is True there and False here", 1),
        ({"dtype": "float16"}, r"config\.dtype is 'auto' there and 'float16' here", 8),
        ({"method": "one-step"}, "a finished slimming by another method", 9),
    ],
)
def test_other_settings_are_refused_lose_nothing_and_replace_on_request(
    settings: dict[str, Any], told: str, first: int, folder: Path, photos: Path
) -> None:
    before = digests(folder)
    with pytest.raises(FolderConflictError, match=told):
        run(photos, folder, **settings)
    assert digests(folder) == before
    run(photos, folder, overwrite=True, **settings)
    after = digests(folder)
    assert [name for name in STAGES if after[name] != before[name]] == list(
        STAGES[first:] if first < len(STAGES) else ("model",)
    )
    run(photos, folder, **settings)


def test_another_method_is_refused_before_any_work(
    folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_work(monkeypatch)
    with pytest.raises(FolderConflictError, match="method one-step"):
        pipeline(photos, folder, method="one-step")
    assert not (folder / "whole-plan").exists()


@pytest.mark.parametrize("name", ["embedding-plan", "bottleneck-aligning", "model"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_the_users_in_the_way_is_left_alone(
    name: str, overwrite: bool, folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_work(monkeypatch)
    shutil.rmtree(folder / name)
    (folder / name).mkdir()
    (folder / name / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(FolderExistsError, match=name):
        pipeline(photos, folder, overwrite=overwrite).finish()
    assert (folder / name / "mine.txt").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("name", ["embedding-plan", "embedding-aligning", "model"])
def test_a_damaged_stage_is_refused_and_made_again_on_request(
    name: str, finished: Slimmed, folder: Path, photos: Path
) -> None:
    path = next(iter(sorted((folder / name).glob("*.safetensors"))))
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(IntegrityError, match=path.name):
        pipeline(photos, folder).finish()
    pipeline(photos, folder, overwrite=True).finish()
    assert digests(folder) == digests(finished.folder)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"ratio": 0.95}, r"leaves at least 2 of 16 channels"),
        ({"heads": 3}, r"1 to 2 heads"),
        ({"ratio": 0.0, "heads": 1}, r"a head count that divides 16"),
        ({"mlp_ratio": 0.99}, r"leaves at least 2 of 32 channels"),
    ],
)
def test_widths_that_do_not_fit_are_refused_before_any_work(
    settings: dict[str, Any], told: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_work(monkeypatch)
    with pytest.raises(ConfigError, match=told):
        pipeline(photos, tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_models_that_no_family_knows_are_refused(photos: Path, tmp_path: Path) -> None:
    from tests.unit.slim.families.tiny_mobile_sam import make_model

    for model in (torch.nn.Linear(2, 2), make_model()):
        with pytest.raises(DataError, match=r"a known family .*SamModel.*Linear|MobileSamModel"):
            pipeline(photos, tmp_path / "run", model)
    assert not (tmp_path / "run").exists()
