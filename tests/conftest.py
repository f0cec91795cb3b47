"""What holds for every test: no network, no hub, no cache of the user's, one thread, repeatable examples."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    """Set what libraries read from the environment when they are first imported."""
    os.environ.update(
        HF_HUB_OFFLINE="1",
        HF_DATASETS_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HOME=str(config.rootpath / ".pytest_cache" / "huggingface"),
        MPLBACKEND="Agg",
        OMP_NUM_THREADS="1",
        MKL_NUM_THREADS="1",
        TOKENIZERS_PARALLELISM="false",
    )


def is_local(family: int, address: Any) -> bool:
    """Tell whether a socket address stays on this machine."""
    if family == socket.AF_UNIX:
        return True
    host = address[0]
    if host in {"", "localhost"}:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def guard(connect: Callable[[socket.socket, Any], Any]) -> Callable[[socket.socket, Any], Any]:
    """Wrap a socket method so that an address elsewhere fails the test, whatever the tested code catches."""

    def guarded(self: socket.socket, address: Any) -> Any:
        if not is_local(self.family, address):
            pytest.fail(f"a test tried to reach {address!r}; tests have no network", pytrace=True)
        return connect(self, address)

    return guarded


@pytest.fixture(scope="session", autouse=True)
def _apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AEROGEL_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(socket.socket, "connect", guard(socket.socket.connect))
        patch.setattr(socket.socket, "connect_ex", guard(socket.socket.connect_ex))
        yield
