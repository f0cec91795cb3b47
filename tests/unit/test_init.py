"""The public names, whichever way they are reached."""

from __future__ import annotations

import subprocess
import sys

import pytest

import aerogel

ORDERS = {
    "the name first": "import aerogel; aerogel.condense; import aerogel.condense.config",
    "the package first": "import aerogel.condense",
    "a submodule first": "import aerogel.condense.config; import aerogel",
    "from": "from aerogel import condense; import aerogel",
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_condense_is_the_call_and_the_package(order: str) -> None:
    check = "import sys; sys.exit(not (callable(aerogel.condense) and aerogel.condense.__path__))"
    subprocess.run([sys.executable, "-c", f"{order}; {check}"], check=True)


def test_every_public_name_resolves() -> None:
    for name in aerogel.__all__:
        assert getattr(aerogel, name) is not None
        assert name in dir(aerogel)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'condensed'"):
        aerogel.condensed  # noqa: B018
