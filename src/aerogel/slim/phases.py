"""The phases of a slimming, and the names of their folders."""

from __future__ import annotations

from dataclasses import dataclass

from aerogel.slim.channels import Kind
from aerogel.slim.config import SlimConfig
from aerogel.slim.lesson import Phase as Lessons


@dataclass(frozen=True)
class Phase:
    """Name what is cut, in rounds that are scored one after the other, and what is aligned after that."""

    cuts: str
    rounds: tuple[tuple[Kind, ...], ...]
    lesson: Lessons

    @property
    def rotate_stage(self) -> str:
        """Return the name of the folder of what was rotated."""
        return f"{self.cuts}-rotation"

    @property
    def plan_stage(self) -> str:
        """Return the name of the folder of the plan."""
        return f"{self.cuts}-plan"

    @property
    def fit_stage(self) -> str:
        """Return the name of the folder of what was fitted."""
        return f"{self.cuts}-reconstruction"

    @property
    def align_stage(self) -> str:
        """Return the name of the folder of what was aligned."""
        return f"{self.lesson}-aligning"


# Section 3.2 of arXiv 2312.05284: what one phase cuts, the other aligns by.
PHASES: dict[str, tuple[Phase, ...]] = {
    "alternate": (
        Phase("embedding", (("embedding",),), "bottleneck"),
        Phase("bottleneck", (("heads", "head_dims"), ("mlp",)), "embedding"),
    ),
    "one-step": (Phase("whole", (("embedding", "heads", "head_dims", "mlp"),), "output"),),
}

MASKS_STAGE = "masks-aligning"


def list_alignings(config: SlimConfig) -> list[tuple[str, Lessons]]:
    """Return the folders of all alignings of a slimming, in order, and what each is by."""
    found = [(phase.align_stage, phase.lesson) for phase in PHASES[config.method]]
    return [*found, (MASKS_STAGE, "masks")] if config.masks.epochs else found
