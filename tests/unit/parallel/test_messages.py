"""Messages arrive whole; what only one process has is refused by name."""

from __future__ import annotations

import threading

import pytest
import torch

from aerogel.errors import DeviceError
from aerogel.parallel.messages import Failure, Turn, open_message, pack_message
from aerogel.parallel.parcel import Packer
from aerogel.parallel.rounds import Round


def test_a_turn_arrives_as_it_was() -> None:
    parcel, _ = Packer(torch.device("cpu")).pack({2: ((torch.ones(2),), {"timestep": 3.0})})
    sent = Turn("unet/0", Round((2,), fresh=True, body=2), torch.bfloat16, parcel, b"data")
    came = open_message(pack_message(sent))
    assert (came.lane, came.planned, came.autocast) == (sent.lane, sent.planned, sent.autocast)
    assert came.parcel == parcel


def test_a_failure_says_whose_it_is() -> None:
    assert open_message(pack_message(Failure(1, "text", lost=True))) == Failure(1, "text", lost=True)


@pytest.mark.parametrize("held", [lambda: None, threading.Lock()])
def test_what_stays_here_is_refused(held: object) -> None:
    with pytest.raises(DeviceError, match=r"arguments of the denoiser .* cannot be pickled"):
        pack_message({"callback": held})
