"""Slim the segmenter that ships with the photos that ship, print the receipt and keep what came out.

    python examples/slim_photos.py

The settings are small, so that it ends in seconds; `aerogel slim --recipe sam-nano-r10` takes its time.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import aerogel
from aerogel.slim.account import describe_run

with tempfile.TemporaryDirectory() as scratch:
    slimmed = aerogel.slim(
        "aerogel/sam-nano",
        images="aerogel/samples",
        ratio=0.25,
        limit=4,
        held_out=1,
        out=Path(scratch) / "run",
        rotate={"photos": 2},
        score={"photos": 2},
        reconstruct={"photos": 3},
        align={"epochs": 1, "batch_size": 2, "accumulate": 1, "checkpoint_blocks": False},
    )
    receipt = describe_run(slimmed.folder).receipt
    for part in ("paid", "saved", "lost"):
        for line in getattr(receipt, part):
            print(f"{part:6} {line.label:26} {line.value:>18}  {line.note}")
    print(receipt.total)

    slimmed.save_pretrained("slim-sam", overwrite=True)  # SamModel.from_pretrained("slim-sam") loads it
    slimmed.report("slim-sam.html")  # the receipt again, and masks before and after
