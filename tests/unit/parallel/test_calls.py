"""A round's calls know their arguments."""

from __future__ import annotations

from aerogel.parallel.calls import Calls


def test_each_step_is_called_with_its_own_arguments() -> None:
    calls = Calls(lambda *args, **kwargs: (args, kwargs), {3: ((1,), {"t": 3}), 4: ((1,), {"t": 4})})
    assert calls(4) == ((1,), {"t": 4})
    assert calls(3) == ((1,), {"t": 3})
