"""Names lead to things, and wrong names to the nearest right one."""

from __future__ import annotations

import pytest

from aerogel.core.registry import Registry, nearest
from aerogel.errors import ConfigError, UnknownNameError


def make_registry() -> Registry[int]:
    students: Registry[int] = Registry("student")
    students.register("resnet18")(18)
    students.register("convnet3")(3)
    return students


def test_what_was_registered_is_found_and_listed_in_order() -> None:
    students = make_registry()
    assert students.get("resnet18") == 18
    assert students.names() == ("convnet3", "resnet18")


def test_the_decorator_gives_back_what_it_enters() -> None:
    makers: Registry[type] = Registry("maker")

    @makers.register("it")
    class Maker:
        pass

    assert makers.get("it") is Maker


def test_an_unknown_name_is_answered_with_the_list_and_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        make_registry().get("resnet-18")
    message = str(caught.value)
    assert message == (
        "expected the name of a student (convnet3, resnet18); got 'resnet-18'; "
        "what to do: did you mean 'resnet18'?"
    )
    with pytest.raises(KeyError, match="choose one of the list"):
        make_registry().get("zzz")
    with pytest.raises(UnknownNameError, match="none are known"):
        Registry("thing").get("a")


def test_a_name_is_given_once() -> None:
    students = make_registry()
    with pytest.raises(ConfigError, match="'convnet3', which is taken"):
        students.register("convnet3")(4)
    assert students.get("convnet3") == 3


def test_registries_do_not_share_names() -> None:
    make_registry()
    assert Registry[int]("student").names() == ()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("learning-rate", "learning_rate"),
        ("LEARNING_RATE", "learning_rate"),
        ("epoch", "Epochs"),
        ("qqq", None),
    ],
)
def test_nearest_forgives_case_dashes_and_slips(name: str, meant: str | None) -> None:
    assert nearest(name, ["learning_rate", "Epochs"]) == meant
