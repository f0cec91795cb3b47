"""Run condensations in processes of their own that start at once: forks of one that has imported everything.

Reads one folder a line, starts the run in a child, and answers with the child's number; then, when the child
has ended in whatever way, with how it ended.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Any

SETTINGS: dict[str, Any] = {
    "ipc": 1,
    "device": "cpu",
    "teacher": {"width": 8, "depth": 1, "snapshots": 2, "fit": {"epochs": 4, "batch_size": 64, "lr": 0.02}},
    "selection": {"candidates": 20, "crops": 2},
    "projector": {"rank": 2, "fit": {"epochs": 2, "batch_size": 64, "lr": 0.01}},
    "student": {
        "width": 4,
        "depth": 1,
        "labels": ["generator", "stored-fp16", "hard"],
        "lrs": [0.001, 0.01],
        "fit": {"epochs": 6, "batch_size": 5, "lr": 0.01},
    },
}


def run(out: Path) -> None:
    """Condense the digits, saving the state of a training after every epoch."""
    from aerogel.condense import fit
    from aerogel.condense.api import condense

    fit._SAVE_EVERY_S = 0.0
    condense("digits", out=out, **SETTINGS)


def main() -> None:
    """Serve until the input ends."""
    import datasets
    import sklearn.datasets

    import aerogel.condense.api
    import aerogel.condense.families.shipped

    del datasets, sklearn, aerogel
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                run(Path(line.strip()))
                code = 0
            except BaseException:  # noqa: BLE001 - a child never goes on as its parent
                traceback.print_exc()
            finally:
                os._exit(code)
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    main()
