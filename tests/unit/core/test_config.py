"""Settings are read back as they were written, and wrong ones are told all their mistakes at once."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aerogel.core.config import config, from_dict, load_config, override, save_config, to_dict, validate
from aerogel.errors import ConfigError


@config("net", version=2, migrations={1: lambda old: {"width": old["wide"]}})
@dataclass(frozen=True)
class Net:
    """A nested configuration with an older version."""

    width: int = 128


@config("run", version=1)
@dataclass(frozen=True)
class Run:
    """Every kind of field."""

    name: str
    lr: float = 0.1
    epochs: int = 3
    fast: bool = False
    crop: Literal["centre", "random"] = "centre"
    seed: int | None = None
    width: int | Literal["auto"] = "auto"
    betas: tuple[float, ...] = (0.9, 0.95)
    size: tuple[int, str] = (1, "px")
    weights: dict[str, float] = field(default_factory=dict)
    net: Net = Net()
    nets: tuple[Net, ...] = ()

    def check(self) -> list[str]:
        """List what is out of range."""
        mistakes = []
        if self.epochs < 1:
            mistakes.append(f"epochs: expected 1 or more; got {self.epochs}; what to do: raise it")
        if self.lr > self.epochs:
            mistakes.append(f"lr: expected no more than epochs; got {self.lr}; what to do: lower it")
        return mistakes


TEXT = st.text(max_size=8)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
RUNS = st.builds(
    Run,
    name=TEXT,
    lr=st.floats(max_value=1.0, allow_nan=False, allow_infinity=False) | st.integers(-5, 1),
    epochs=st.integers(1, 2**70),
    fast=st.booleans(),
    crop=st.sampled_from(["centre", "random"]),
    seed=st.none() | st.integers(),
    width=st.integers() | st.just("auto"),
    betas=st.lists(FLOATS, max_size=3).map(tuple),
    size=st.tuples(st.integers(), TEXT),
    weights=st.dictionaries(TEXT, FLOATS, max_size=3),
    net=st.builds(Net, st.integers()),
    nets=st.lists(st.builds(Net, st.integers()), max_size=2).map(tuple),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("configs")


@given(run=RUNS)
def test_every_configuration_survives_dict_and_json(run: Run) -> None:
    data = to_dict(run)
    assert from_dict(Run, data) == run
    assert from_dict(Run, json.loads(json.dumps(data))) == run
    assert to_dict(from_dict(Run, data)) == data


@settings(max_examples=40)
@given(run=RUNS, suffix=st.sampled_from([".json", ".yaml", ".YML"]))
def test_every_configuration_survives_a_file(place: Path, run: Run, suffix: str) -> None:
    path = place / f"run{suffix}"
    save_config(run, path)
    assert load_config(Run, path) == run


def test_what_is_written_names_types_and_versions() -> None:
    data = to_dict(Run(name="a", nets=(Net(1),)))
    assert (data["type"], data["version"]) == ("run", 1)
    assert data["net"] == {"type": "net", "version": 2, "width": 128}
    assert data["nets"] == [{"type": "net", "version": 2, "width": 1}]
    assert data["betas"] == [0.9, 0.95]


def test_equal_numbers_are_written_equally() -> None:
    assert json.dumps(to_dict(Run(name="a", lr=1))) == json.dumps(to_dict(Run(name="a", lr=1.0)))


def test_defaults_may_be_left_out_and_so_may_type_and_version() -> None:
    assert from_dict(Run, {"name": "a"}) == Run(name="a")
    assert from_dict(Run, {"name": "a", "net": {"width": 3}}) == Run(name="a", net=Net(3))


def test_all_mistakes_are_reported_at_once_each_in_its_place() -> None:
    wrong = {
        "lrate": 0.1,
        "epochs": 0,
        "fast": 1,
        "crop": "center",
        "seed": "x",
        "betas": [0.9, "b"],
        "size": [1],
        "weights": {"a": None},
        "net": {"widht": 3, "width": 1.5},
        "nets": [{}, 3],
        "type": "run",
    }
    with pytest.raises(ConfigError) as caught:
        from_dict(Run, wrong, where="recipe.yaml")
    lines = str(caught.value).splitlines()
    assert lines[0] == "recipe.yaml has 11 mistakes:"
    found = "\n".join(lines[1:])
    for part in (
        "unknown key 'lrate'",
        "a value for name; got none",
        "true or false for fast; got 1 (int)",
        "got 'center' (str); what to do: did you mean 'centre'?",
        "an integer or null for seed; got 'x'",
        "a finite number for betas[1]; got 'b'",
        "a list of 2 for size",
        "a finite number for weights.a; got None",
        "unknown key 'net.widht'; what to do: did you mean 'width'?",
        "an integer for net.width; got 1.5",
        "the settings of net as a mapping for nets[1]; got 3",
    ):
        assert part in found
    assert all("; what to do: " in line for line in lines[1:])


def test_ranges_are_reported_beside_other_mistakes_but_not_for_unread_fields() -> None:
    with pytest.raises(ConfigError) as caught:
        from_dict(Run, {"name": "a", "epochs": 0, "lr": "fast"})
    assert "epochs: expected 1 or more" in str(caught.value)
    assert "no more than epochs" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"^config has a mistake: lr: expected no more than epochs"):
        from_dict(Run, {"name": "a", "lr": 9})


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"epochs": True}, "an integer for epochs; got True"),
        ({"epochs": 2.0}, "an integer for epochs; got 2.0"),
        ({"lr": float("nan")}, "a finite number for lr; got nan"),
        ({"lr": float("inf")}, "a finite number"),
        ({"lr": True}, "a finite number"),
        ({"name": None}, "text for name"),
        ({"betas": "0.9"}, "a list for betas"),
        ({"weights": {1: 2.0}}, "a mapping from names"),
        ({"width": "automatic"}, "an integer or 'auto' for width"),
        ({"type": "walk"}, "'run' for type; got 'walk'"),
        ({"version": 2}, "install a newer Aerogel"),
        ({"version": 0}, "a version from 1 up"),
        ({"version": "1"}, "a version from 1 up"),
        ({"net": {"type": "run"}}, "'net' for net.type"),
        ({3: 4}, "unknown key '3'"),
    ],
)
def test_each_mistake_is_explained(change: dict[Any, Any], part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_dict(Run, {"name": "a"} | change)
    assert part in str(caught.value)


@pytest.mark.parametrize("data", [None, [], "x", 3])
def test_what_is_no_mapping_is_refused(data: Any) -> None:
    with pytest.raises(ConfigError, match="as a mapping"):
        from_dict(Run, data)


def test_an_older_version_is_carried_over() -> None:
    assert from_dict(Net, {"version": 1, "wide": 3}) == Net(3)

    @config("bare", version=3)
    @dataclass(frozen=True)
    class Bare:
        pass

    with pytest.raises(ConfigError, match="write the settings anew"):
        from_dict(Bare, {"version": 2})


def test_direct_construction_is_checked_too() -> None:
    assert validate(Run(name="a", lr=1)) == Run(name="a", lr=1.0)
    wrong = replace(Run(name="a"), epochs=0, fast=1, net=Net("wide"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as caught:
        validate(wrong)
    for part in ("run config has 4 mistakes", "epochs: expected 1", "true or false for fast", "net.width"):
        assert part in str(caught.value)
    with pytest.raises(ConfigError):
        to_dict(wrong)


def test_only_marked_frozen_dataclasses_are_configurations() -> None:
    @dataclass(frozen=True)
    class Plain:
        pass

    with pytest.raises(ConfigError, match="marked with @config"):
        from_dict(Plain, {})

    @dataclass
    class Loose:
        pass

    with pytest.raises(ConfigError, match="a frozen dataclass"):
        config("loose")(Loose)

    @dataclass(frozen=True)
    class Taken:
        type: str = "x"

    with pytest.raises(ConfigError, match="without fields named type or version"):
        config("taken")(Taken)


def test_recipes_are_read_as_people_write_them(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("# a recipe\nname: a\nlr: 1e-3\nepochs: 10\nbetas: [.5, 1]\n")
    assert load_config(Run, path) == Run(name="a", lr=0.001, epochs=10, betas=(0.5, 1.0))


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("a.yaml", "name: a\nname: b\n", "'name' occurs twice"),
        ("a.json", '{"name": "a", "name": "b"}', "'name' occurs twice"),
        ("a.yaml", "name: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
        ("a.yaml", "name: [\n", "a readable recipe"),
        ("a.yaml", "a: 1\n---\nb: 2\n", "a readable recipe"),
        ("a.yaml", "[" * 500, "nested too deep"),
        ("a.json", "{'name': 1}", "a readable recipe"),
        ("a.json", '{"name": NaN}', "NaN"),
        ("a.yaml", "\0", "a readable recipe"),
        ("a.toml", "", "a file named .json, .yaml or .yml"),
        ("a.yaml", "", "a value for name; got none"),
        ("a.yaml", "x: " + "y" * 2**20, "at most 1,048,576 bytes"),
        ("a.yaml", "a: &a [1, 2]\nname: [*a, *a]\n", "unknown key 'a'"),
    ],
)
def test_bad_files_are_refused_with_the_reason(tmp_path: Path, name: str, text: str, part: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(Run, tmp_path / name)
    assert part in str(caught.value)


def test_bytes_that_are_no_text_and_files_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"name: \xff")
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    for name in ("a.yaml", "pipe.yaml", "folder.yaml", "missing.yaml"):
        with pytest.raises(ConfigError, match="recipe"):
            load_config(Run, tmp_path / name)


def test_a_yaml_bomb_neither_explodes_nor_is_printed(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    (tmp_path / "bomb.yaml").write_text("\n".join([*lines, "name: *a11", "betas: *a11"]))
    with pytest.raises(ConfigError) as caught:
        load_config(Run, tmp_path / "bomb.yaml")
    assert len(str(caught.value)) < 10_000


def test_a_recipe_may_be_a_link(tmp_path: Path) -> None:
    save_config(Run(name="a"), tmp_path / "real.json")
    (tmp_path / "link.json").symlink_to("real.json")
    assert load_config(Run, tmp_path / "link.json") == Run(name="a")


def test_single_settings_go_ahead_of_a_config() -> None:
    run = Run("a", lr=0.2, net=Net(64))
    merged = override(run, {"epochs": 7, "net": {"width": 32}, "weights": {"x": 1.0}})
    assert from_dict(Run, merged) == replace(run, epochs=7, net=Net(32), weights={"x": 1.0})
    assert run.net == Net(64)
    assert override(None, {"name": "b"}) == {"name": "b"}
