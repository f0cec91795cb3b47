"""A condensation starts only from parts that belong together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aerogel.condense.sources import Sources
from aerogel.errors import DataError, MismatchError
from tests.unit.condense import tiny


def test_sources_that_do_not_belong_together_are_refused() -> None:
    good = tiny.sources()
    assert good.check() is good
    one = tiny.draw(5, names=("bar",))
    with pytest.raises(DataError, match="two classes"):
        Sources(one, one).check()
    for test in (
        tiny.rename(good.test, ("dot", "bar", "ring")),
        tiny.draw(2, channels=3),
        tiny.draw(2, size=12),
    ):
        with pytest.raises(MismatchError, match="same class list, size and channels"):
            replace(good, test=test).check()
