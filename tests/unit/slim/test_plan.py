"""Plans are checked, written, read back and composed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aerogel.core.config import validate
from aerogel.errors import ConfigError, IntegrityError, MismatchError
from aerogel.slim.families import describe
from aerogel.slim.plan import Plan, find_stock_faults, identity_plan, load_plan
from tests.unit.slim.tiny import build, draw_plan

SIZES = {"embedding": 6, "blocks.0.heads": 2, "blocks.0.head_dims": 3, "blocks.0.mlp": 4}
KEPT = {
    "embedding": (0, 1, 3, 5),
    "blocks.0.heads": (0, 1),
    "blocks.0.head_dims": (1, 2),
    "blocks.0.mlp": (0, 3),
}
PLAN = Plan("sam", "stock", SIZES, KEPT)


def plans() -> st.SearchStrategy[Plan]:
    def subset(size: int) -> st.SearchStrategy[tuple[int, ...]]:
        return st.sets(st.integers(0, size - 1), min_size=1).map(lambda found: tuple(sorted(found)))

    kept = st.fixed_dictionaries({name: subset(size) for name, size in SIZES.items()})
    return kept.map(lambda found: Plan("sam", "flex", SIZES, found))


def test_a_sound_plan_passes() -> None:
    assert validate(PLAN) == PLAN
    assert PLAN.widths == {"embedding": 4, "blocks.0.heads": 2, "blocks.0.head_dims": 2, "blocks.0.mlp": 2}
    assert not PLAN.is_identity


@pytest.mark.parametrize(
    ("name", "indices", "said"),
    [
        ("embedding", (), "at least one channel"),
        ("embedding", (1, 0, 2, 3), "ascending"),
        ("embedding", (0, 0, 2, 3), "ascending"),
        ("embedding", (0, 1, 2, 6), "indices below 6"),
        ("embedding", (-1, 1, 2, 3), "indices below 6"),
        ("embedding", (0, 1), "heads times head dimensions"),
        ("blocks.1.mlp", (0, 1), "one without the other in 'blocks.1.mlp'"),
        ("neck", (0, 1), "names that end in"),
    ],
)
def test_mistakes_are_named(name: str, indices: tuple[int, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        validate(replace(PLAN, kept={**KEPT, name: indices}))


def test_stock_is_uniform() -> None:
    widths = {"embedding": 4, "blocks.0.heads": 2, "blocks.0.head_dims": 2, "blocks.0.mlp": 5}
    assert find_stock_faults(widths) == []
    second = {name.replace("0", "1"): width for name, width in widths.items() if name != "embedding"}
    assert find_stock_faults({**widths, **second}) == []
    for name in second:
        faults = find_stock_faults({**widths, **second, name: 1})
        assert len(faults) == 1 and name.rpartition(".")[2] in faults[0]


def test_a_file_gives_the_plan_back(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    PLAN.save(path)
    assert load_plan(path) == PLAN
    assert load_plan(path).digest == PLAN.digest
    text = path.read_text(encoding="utf-8")
    assert '\n    "embedding": [0, 1, 3, 5],\n' in text, "one line for each group, to be read by people"
    assert '"type": "slim_plan"' in text and '"version": 1' in text


def test_the_digest_is_of_the_content() -> None:
    renamed = Plan("sam", "stock", dict(reversed(SIZES.items())), dict(reversed(KEPT.items())))
    assert renamed.digest == PLAN.digest
    assert replace(PLAN, kept={**KEPT, "blocks.0.mlp": (1, 3)}).digest != PLAN.digest


def test_files_that_are_no_plans_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    with pytest.raises(IntegrityError, match="a readable file"):
        load_plan(path)
    for text, error, said in (
        ("{", IntegrityError, "the JSON of a plan"),
        ("[]", ConfigError, "got list"),
        ('{"type": "other"}', ConfigError, "slim_plan"),
        ('{"version": 2}', ConfigError, "newer Aerogel"),
        ('{"familly": "sam"}', ConfigError, "did you mean 'family'"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(error, match=said):
            load_plan(path)


def test_a_plan_with_mistakes_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ascending"):
        replace(PLAN, kept={**KEPT, "embedding": (3, 1)}).save(tmp_path / "plan.json")
    assert not list(tmp_path.iterdir())


@given(plans(), st.data())
def test_composition(first: Plan, data: st.DataObject) -> None:
    def narrow(size: int) -> st.SearchStrategy[tuple[int, ...]]:
        return st.sets(st.integers(0, size - 1), min_size=1).map(lambda found: tuple(sorted(found)))

    kept = {name: data.draw(narrow(width)) for name, width in first.widths.items()}
    both = validate(first.then(Plan("sam", "flex", first.widths, kept)))
    channels = {name: list(range(100, 100 + size)) for name, size in SIZES.items()}
    for name, each in channels.items():
        once = [each[index] for index in first.kept[name]]
        assert [once[index] for index in kept[name]] == [each[index] for index in both.kept[name]]
    whole = Plan("sam", "flex", first.widths, {n: tuple(range(w)) for n, w in first.widths.items()})
    assert first.then(whole) == first


def test_plans_that_do_not_follow_each_other_are_refused() -> None:
    with pytest.raises(MismatchError, match="6 channels in embedding, not 4"):
        PLAN.then(PLAN)


def test_identity() -> None:
    channels = describe(build())
    plan = identity_plan(channels)
    assert plan.is_identity and plan.layout == "stock"
    plan.require_fit(channels)


def test_a_plan_fits_one_shape_of_model(tmp_path: Path) -> None:
    model = build()
    plan = draw_plan(model, {"mlp": 8})
    plan.require_fit(describe(model))
    with pytest.raises(MismatchError, match=r"36 channels in blocks\.0\.mlp, not 40"):
        plan.require_fit(describe(build(mlp_dim=36)))
    with pytest.raises(MismatchError, match="family 'sam'"):
        plan.require_fit(describe(build("sam_hq")))
    with pytest.raises(ConfigError, match="at least one channel"):
        replace(plan, kept={**plan.kept, "embedding": ()}).require_fit(describe(model))
