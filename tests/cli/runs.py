"""Command lines for runs of seconds on scikit-learn's digits."""

from __future__ import annotations

TINY = (
    "teacher.width=8",
    "teacher.depth=2",
    "teacher.held_out=0.2",
    "teacher.snapshots=1",
    "teacher.fit.epochs=3",
    "teacher.fit.batch_size=64",
    "teacher.fit.lr=2e-2",
    "selection.candidates=20",
    "projector.rank=2",
    "projector.fit.epochs=1",
    "projector.fit.batch_size=32",
    "projector.fit.lr=1e-2",
    "student.width=8",
    "student.depth=1",
    "student.fit.epochs=2",
    "student.fit.batch_size=10",
    "student.labels=[generator, stored-fp16, hard]",
    "views.flip=0",
    "views.cutmix=0.2",
)


def tiny_settings(*more: str) -> list[str]:
    """Return the flags of a tiny run."""
    return [word for setting in (*TINY, *more) for word in ("--set", setting)]
