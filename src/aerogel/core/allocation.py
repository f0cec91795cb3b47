"""Keep freed memory for the next tensors, where the C library would give it back after each."""

from __future__ import annotations

import ctypes
import os
import sys

# What glibc's mallopt calls them (malloc.h).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_TOP_BYTES = 2**26


def keep_memory() -> bool:
    """Let this process, to its end, reuse the memory of tensors that are gone; tell whether it will.

    glibc takes each large tensor's memory from the system and gives it back with the tensor, so that every
    operation on a CPU touches new pages; where these are dear, as in virtual machines, that takes longer than
    the operation. Afterwards a process holds what it needed at most. It also asks torch for large pages, if
    torch is not loaded yet and the user has not chosen. With another C library nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    options = ((_TRIM_THRESHOLD, -1), (_TOP_PAD, _TOP_BYTES), (_MMAP_MAX, 0))
    taken = [set_option(name, value) == 1 for name, value in options]
    return all(taken)
