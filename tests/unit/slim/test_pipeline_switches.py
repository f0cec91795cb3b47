"""Every switch of a slimming changes what it should, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from aerogel.core.folders import read_manifest
from aerogel.slim import pipeline as module
from aerogel.slim.families import describe
from aerogel.slim.plan import identity_plan
from aerogel.slim.surgery import apply_plan
from tests.unit.slim import tiny
from tests.unit.slim.runs import encoder_weights, pipeline, run, same, teacher, weights

# Steps so small that nothing moves: what is left is what cutting does.
STILL: dict[str, Any] = {"lr": 1e-30, "epochs": 1}
OFF = {"photos": 0}
COMPETING: dict[str, Any] = {"layout": "flex", "rotate": OFF, "reconstruct": OFF, "align": STILL}


def test_without_pruning_nothing_but_aligning_happens(photos: Path, tmp_path: Path) -> None:
    model = teacher()
    built = pipeline(photos, tmp_path, model, ratio=0.0, align=STILL)
    slimmed = built.slim()
    assert built.plan() == identity_plan(describe(model)) and built.plan().is_identity
    assert type(slimmed) is type(model) and slimmed is not model
    ours, theirs = weights(slimmed), weights(model)
    assert all(torch.allclose(ours[name], theirs[name], rtol=0.0, atol=1e-20) for name in theirs)


def test_one_step_cuts_once_and_aligns_to_the_output(photos: Path, tmp_path: Path) -> None:
    found = run(photos, tmp_path, method="one-step")
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {
        "whole-rotation",
        "whole-plan",
        "whole-reconstruction",
        "output-aligning",
        "model",
        "exhibits",
    }
    assert found.plan.widths["embedding"] == 8 and found.plan.widths["blocks.1.mlp"] == 16
    losses = read_manifest(tmp_path / "output-aligning").facts["losses"]
    assert len(losses) == 2 and set(losses[0]) == {"loss", "output"}


def test_scratch_has_the_shape_and_none_of_the_weights(photos: Path, tmp_path: Path) -> None:
    warm = pipeline(photos, tmp_path / "warm", method="one-step", rotate=OFF, align=STILL)
    cold = pipeline(photos, tmp_path / "cold", method="one-step", start="random", align=STILL)
    ours, theirs = encoder_weights(cold.slim()), encoder_weights(warm.slim())
    assert cold.plan() == warm.plan()
    assert {name: each.shape for name, each in ours.items()} == {
        name: each.shape for name, each in theirs.items()
    }
    assert all(not torch.equal(ours[name], theirs[name]) for name in ours if ours[name].ndim > 1)
    again = pipeline(photos, tmp_path / "again", method="one-step", start="random", align=STILL)
    assert same(encoder_weights(again.slim()), ours)
    other = pipeline(photos, tmp_path / "other", method="one-step", start="random", seed=5, align=STILL)
    assert not same(encoder_weights(other.slim()), ours)


@pytest.mark.parametrize(("ranking", "free"), [("mlp", {"mlp"}), ("global", {"mlp", "head_dims"})])
def test_blocks_compete_in_the_flex_layout(
    ranking: str, free: set[str], photos: Path, tmp_path: Path
) -> None:
    model = tiny.build(dtype=torch.float32)
    with torch.no_grad():
        # A block in which a few channels are all that matters keeps few.
        model.vision_encoder.layers[2].mlp.lin1.weight[:4] *= 50.0
        model.vision_encoder.layers[2].attn.qkv.weight.view(3, 4, 6, 24)[:, :, 0] *= 50.0
    score = {"ranking": ranking, "normalizer": "mean", "criterion": "magnitude"}
    built = pipeline(photos, tmp_path, model, score=score, **COMPETING)
    plan = built.plan()
    assert plan.layout == "flex" and type(built.slim()).__name__ == "FlexSamModel"
    for kind, mean in (("heads", 4), ("head_dims", 3), ("mlp", 20)):
        widths = [plan.widths[f"blocks.{index}.{kind}"] for index in range(3)]
        assert (len(set(widths)) > 1) == (kind in free), (kind, widths)
        assert sum(widths) == 3 * mean


@pytest.mark.parametrize("mlp", ["criterion", "least-squares"])
def test_a_block_that_says_next_to_nothing_gives_its_places_to_the_others(
    mlp: str, photos: Path, tmp_path: Path
) -> None:
    model = tiny.build(dtype=torch.float32)
    quiet: Any = model.vision_encoder.layers[1]
    with torch.no_grad():
        for value in (quiet.mlp.lin2.weight, quiet.attn.proj.weight):
            value *= 1e-3
    built = pipeline(photos, tmp_path, model, score={"mlp": mlp}, **COMPETING)
    widths = built.plan().widths
    for kind, mean, most in (("head_dims", 3, 1), ("mlp", 20, 4)):
        found = [widths[f"blocks.{index}.{kind}"] for index in range(3)]
        assert sum(found) == 3 * mean and found[1] <= most, (kind, found)


def test_positions_are_kept_unless_the_published_fault_is_wanted(photos: Path, tmp_path: Path) -> None:
    kept = encoder_weights(pipeline(photos, tmp_path / "kept", align=STILL).slim())
    lost = encoder_weights(
        pipeline(photos, tmp_path / "lost", align=STILL, surgery={"positions": False}).slim()
    )
    names = [name for name in kept if "rel_pos" in name]
    assert names and all(kept[name].abs().sum() > 0 for name in names)
    assert all(lost[name].abs().max() < 1e-20 for name in names)


def test_the_temperature_is_kept_unless_the_published_fault_is_wanted(photos: Path, tmp_path: Path) -> None:
    plain = pipeline(
        photos, tmp_path / "plain", align=STILL, reconstruct=OFF, score={"criterion": "magnitude"}
    )
    hotter = pipeline(
        photos,
        tmp_path / "hotter",
        align=STILL,
        reconstruct=OFF,
        score={"criterion": "magnitude"},
        surgery={"temperature": False},
    )
    kept, changed = encoder_weights(plain.slim()), encoder_weights(hotter.slim())
    assert plain.plan() == hotter.plan()
    for index in range(2):
        ours, theirs = (each[f"layers.{index}.attn.qkv.weight"] for each in (kept, changed))
        # Eight dimensions of a head became four: rows are queries, keys and values of two heads.
        assert torch.allclose(theirs[8:16], ours[8:16] * 2**0.5, rtol=1e-6)
        assert torch.equal(theirs[:8], ours[:8]) and torch.equal(theirs[16:], ours[16:])


@pytest.mark.parametrize(
    "switch",
    [
        {"repair_qkv": False},
        {"relative": False},
        {"mask_padding": "windows"},
        {"mask_padding": "none"},
        {"weighting": "dynamic"},
    ],
)
def test_each_switch_of_aligning_changes_what_is_learned(
    switch: dict[str, Any], photos: Path, tmp_path: Path
) -> None:
    # Windows of three tokens in rows of four are padded, and so are photos that are not square.
    model = tiny.build(dtype=torch.float32)
    ours, theirs = (
        pipeline(photos, tmp_path / name, model, align=align)
        for name, align in (("ours", {}), ("theirs", switch))
    )
    learned = [encoder_weights(each.slim(1)) for each in (ours, theirs)]
    assert ours.plan(1) == theirs.plan(1)
    assert not same(*learned)
    losses = [
        read_manifest(tmp_path / name / "bottleneck-aligning").facts["losses"] for name in ("ours", "theirs")
    ]
    assert losses[0] != losses[1]
    if "repair_qkv" in switch:
        assert losses[0][0]["global_qkv"] > 0.0 and losses[1][0]["global_qkv"] == 0.0
        assert losses[1][0]["window_qkv"] > 0.0


def spy_on_scores(patch: pytest.MonkeyPatch) -> list[tuple[str, tuple[str, ...], int]]:
    seen: list[tuple[str, tuple[str, ...], int]] = []
    score = module.score_channels

    def spy(model: Any, images: Any, criterion: str, **named: Any) -> Any:
        seen.append((criterion, tuple(named["kinds"]), describe(model).sizes["blocks.0.head_dims"]))
        return score(model, images, criterion, **named)

    match = module.score_mlps

    def spy_on_mlps(model: Any, images: Any, **named: Any) -> Any:
        seen.append(("least-squares", ("mlp",), describe(model).sizes["blocks.0.head_dims"]))
        return match(model, images, **named)

    patch.setattr(module, "score_channels", spy)
    patch.setattr(module, "score_mlps", spy_on_mlps)
    return seen


def test_mlps_are_ranked_anew_once_the_heads_are_cut(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = spy_on_scores(monkeypatch)
    pipeline(photos, tmp_path / "ours").plan()
    assert [each[1:] for each in seen] == [
        (("embedding",), 8),
        (("heads", "head_dims"), 8),
        (("mlp",), 4),
    ]
    seen.clear()
    pipeline(photos, tmp_path / "competing", layout="flex", score={"ranking": "mlp"}).plan()
    assert [each[:2] for each in seen][2:] == [("least-squares", ("mlp",)), ("channel-fisher", ("mlp",))]
    seen.clear()
    pipeline(photos, tmp_path / "published", score={"rescore": False, "mlp": "criterion"}).plan()
    assert [each[1:] for each in seen] == [(("embedding",), 8), (("heads", "head_dims", "mlp"), 8)]


@pytest.mark.parametrize(
    ("settings", "ranked"),
    [
        ({}, "least-squares"),
        ({"score": {"mlp": "criterion"}}, "channel-fisher"),
        ({"reconstruct": OFF}, "channel-fisher"),
        ({"score": {"criterion": "taylor"}}, "taylor"),
        ({"score": {"criterion": "taylor", "mlp": "least-squares"}}, "least-squares"),
    ],
)
def test_least_squares_rank_mlps_that_are_fitted_after_it(
    settings: dict[str, Any], ranked: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = spy_on_scores(monkeypatch)
    plan = pipeline(photos, tmp_path, method="one-step", **settings).plan()
    assert [each[0] for each in seen if "mlp" in each[1]] == [ranked]
    assert plan.widths["blocks.0.mlp"] == 16


def test_the_criterion_decides(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = spy_on_scores(monkeypatch)
    names = ("channel-fisher", "disturbed-taylor", "taylor", "magnitude", "random")
    plans = {
        name: pipeline(photos, tmp_path / name, score={"criterion": name}, align=STILL).plan(1)
        for name in names
    }
    assert [each[0] for each in seen] == list(names)
    assert len({plan.kept["embedding"] for plan in plans.values()}) > 2


def test_fewer_heads_stay(photos: Path, tmp_path: Path) -> None:
    found = pipeline(photos, tmp_path, heads=1, align=STILL).slim()
    assert found.config.vision_config.num_attention_heads == 1
    assert found.vision_encoder.layers[0].attn.qkv.weight.shape == (24, 8)


def test_nothing_is_fitted_where_no_photos_are_for_it(photos: Path, tmp_path: Path) -> None:
    built = pipeline(photos, tmp_path, rotate=OFF, align=STILL, reconstruct=OFF)
    slimmed = encoder_weights(built.slim(1))
    assert not list(tmp_path.glob("*-reconstruction"))
    cut = encoder_weights(apply_plan(teacher(), built.plan(1)))
    assert all(torch.allclose(slimmed[name], cut[name], rtol=0.0, atol=1e-20) for name in cut)
    fitted = encoder_weights(pipeline(photos, tmp_path / "fitted", align=STILL).slim(1))
    assert not same(slimmed, fitted)
