"""A package answers a call by its own name."""

from __future__ import annotations

from aerogel.core.area import Area


def area(name: str) -> Area:
    made = Area(name)
    vars(made)["weigh"] = lambda *args, **kwargs: (args, kwargs)
    return made


def test_the_call_goes_to_the_function_of_the_same_name() -> None:
    assert area("house.weigh")(1, unit="g") == ((1,), {"unit": "g"})


def test_it_stays_a_module() -> None:
    assert area("house.weigh").weigh(2) == ((2,), {})
    assert area("house.weigh").__name__ == "house.weigh"
