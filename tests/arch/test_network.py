"""Tests have no network, and the guard that sees to it works."""

from __future__ import annotations

import os
import socket

import pytest

DOCUMENTATION_ADDRESS = "192.0.2.1"  # reserved for documentation (RFC 5737): never anybody's machine


@pytest.mark.parametrize("method", ["connect", "connect_ex"])
def test_an_address_elsewhere_fails_the_test(method: str) -> None:
    with socket.socket() as client, pytest.raises(pytest.fail.Exception, match="no network"):
        getattr(client, method)((DOCUMENTATION_ADDRESS, 80))


def test_this_machine_can_be_reached() -> None:
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())
        accepted, _ = server.accept()
        accepted.close()


def test_the_hub_is_off() -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"
