"""Condense scikit-learn's handwritten digits from Python, and train from the result.

    python examples/condense_digits.py

The settings are small, so that it ends in seconds; `aerogel demo` takes its time and shows what is possible.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from torch.utils.data import DataLoader

import aerogel

quick = {"epochs": 6, "batch_size": 64, "lr": 1e-2}
views = {"flip": 0.0, "crop_scale": [0.8, 1.0]}  # a mirrored digit is another sign

with tempfile.TemporaryDirectory() as scratch:
    small = aerogel.condense(
        "digits",
        ipc=5,
        out=Path(scratch) / "run",
        views=views,
        teacher={"width": 16, "depth": 2, "held_out": 0.1, "views": views, "fit": quick},
        selection={"crop_scale": [0.9, 1.0]},
        projector={"rank": 4, "fit": quick},
        student={
            "width": 16,
            "depth": 2,
            "labels": ["generator", "stored-fp16", "hard"],
            "random_baseline": False,
            "fit": {**quick, "epochs": 30, "batch_size": 10},
        },
    )
    for row in small.rows:
        print(f"{row.labels:14} {row.images:7} {row.label_bytes:7,} bytes  {row.accuracy.text}")

    folder = small.save(Path(scratch) / "tiny-set")  # this folder is all that has to be shipped
    data = aerogel.load_condensed(folder)
    data.set_epoch(0)
    batch = next(iter(DataLoader(data, batch_size=5)))
    soft = data.labels(batch["view"], batch["sample"])
    print(f"views {tuple(batch['view'].shape)}, generated labels {tuple(soft.shape)}")
