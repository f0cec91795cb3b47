"""Devices and number formats are chosen with a reason, and refused with a remedy."""

from __future__ import annotations

import platform

import pytest
import torch

from aerogel.core import devices
from aerogel.core.devices import Choice, choose_device, choose_dtype, is_cuda, limit_threads
from aerogel.errors import ConfigError, DeviceError


def pretend(patch: pytest.MonkeyPatch, cuda: int = 0, *, bfloat16: bool = True, mps: bool = False) -> None:
    patch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    patch.setattr(torch.cuda, "device_count", lambda: cuda)
    patch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bfloat16)
    patch.setattr(torch.backends.mps, "is_available", lambda: mps)
    patch.delenv("LOCAL_RANK", raising=False)


def test_without_a_card_the_cpu_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, mps=True)
    assert choose_device() == Choice("cpu", "no CUDA device was found")
    assert choose_device("cpu") == Choice("cpu", "it was asked for")
    assert choose_device("mps").value == "mps"


def test_each_process_takes_its_own_card(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, cuda=4)
    assert choose_device() == Choice("cuda:0", "a CUDA device was found")
    assert choose_device("cuda:3").value == "cuda:3"
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert choose_device("auto").value == choose_device("cuda").value == "cuda:2"
    assert "local process 2" in choose_device("auto").reason
    assert choose_device("cuda:1").value == "cuda:1"
    monkeypatch.setenv("LOCAL_RANK", "4")
    with pytest.raises(DeviceError, match="from 0 to 3; got number 4"):
        choose_device("auto")


@pytest.mark.parametrize("name", ["gpu", "cud", "cuda:x", "cuda:-1", "cpu:0", "", "CUDA", "cuda:4"])
def test_a_wrong_device_is_refused_with_a_remedy(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    pretend(monkeypatch, cuda=4)
    with pytest.raises(DeviceError, match="what to do: "):
        choose_device(name)


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    with pytest.raises(DeviceError, match="a CUDA device; got none"):
        choose_device("cuda")
    with pytest.raises(RuntimeError, match="mps"):
        choose_device("mps")
    with pytest.raises(DeviceError, match="did you mean 'cuda'"):
        choose_device("cud")


@pytest.mark.parametrize(
    ("requested", "device", "bfloat16", "value"),
    [
        ("auto", "cpu", True, "float32"),
        ("auto", "mps", True, "float32"),
        ("auto", "cuda:0", True, "bfloat16"),
        ("auto", "cuda:0", False, "float32"),
        ("fp32", "cuda", True, "float32"),
        ("bf16", "cpu", False, "bfloat16"),
        ("torch.bfloat16", "cuda", True, "bfloat16"),
        ("half", "cuda", False, "float16"),
    ],
)
def test_formats_are_chosen_for_the_device(
    monkeypatch: pytest.MonkeyPatch, requested: str, device: str, bfloat16: bool, value: str
) -> None:
    pretend(monkeypatch, cuda=1, bfloat16=bfloat16)
    choice = choose_dtype(requested, device)
    assert choice.value == value
    assert choice.reason
    assert isinstance(getattr(torch, value), torch.dtype)


@pytest.mark.parametrize(
    ("requested", "device"),
    [("float16", "cpu"), ("bfloat16", "cuda"), ("float64", "cpu"), ("floot32", "cpu")],
)
def test_formats_that_do_not_go_are_refused(
    monkeypatch: pytest.MonkeyPatch, requested: str, device: str
) -> None:
    pretend(monkeypatch, cuda=1, bfloat16=False)
    with pytest.raises(DeviceError, match="what to do: "):
        choose_dtype(requested, device)


@pytest.mark.parametrize(
    ("capability", "machine", "told"),
    [
        ("AVX2", "x86_64", True),
        ("DEFAULT", "AMD64", True),
        ("AVX512", "x86_64", False),
        ("DEFAULT", "aarch64", False),
    ],
)
def test_it_is_said_once_where_bfloat16_is_slow(
    capability: str,
    machine: str,
    told: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    devices._warn_of_emulation.cache_clear()
    for requested in ("float32", "bfloat16", "bf16"):
        choose_dtype(requested, "cpu")
    assert capsys.readouterr().err.count("no AVX-512") == told
    devices._warn_of_emulation.cache_clear()


def test_threads_are_limited_and_given_back() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), limit_threads(before + 2):
        assert torch.get_num_threads() == before + 2
        raise KeyError
    assert torch.get_num_threads() == before
    with pytest.raises(ConfigError, match="one thread or more"), limit_threads(0):
        pass


@pytest.mark.parametrize(
    ("device", "wanted"),
    [("cuda", True), ("cuda:1", True), (torch.device("cuda", 0), True), ("cpu", False), ("mps", False)],
)
def test_cuda_devices_are_told_by_name_or_as_torch_has_them(device: object, wanted: bool) -> None:
    assert is_cuda(device) is wanted
