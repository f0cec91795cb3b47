"""Draft a plan without training anything: what would stay, and what that weighs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from aerogel.core.files import require_file_place
from aerogel.slim.archive import weigh
from aerogel.slim.channels import KINDS
from aerogel.slim.config import SlimConfig
from aerogel.slim.importance import score_channels
from aerogel.slim.plan import Plan
from aerogel.slim.planning import make_plan
from aerogel.slim.sources import Sources
from aerogel.slim.surgery import apply_plan
from aerogel.slim.widths import derive_widths


@dataclass(frozen=True)
class Draft:
    """Hold a plan, and what the model weighs before and after it."""

    plan: Plan
    before: dict[str, Any]
    after: dict[str, Any]

    def list_weights(self) -> list[tuple[str, int, int]]:
        """Return what is counted: its name, the number before and the number after."""
        names = {
            "hidden_size": "channels of the residual stream",
            "heads": "heads",
            "mlp_dim": "MLP channels of a block",
            "encoder_parameters": "parameters of the encoder",
            "parameters": "parameters in all",
            "macs": "linear MACs of the encoder",
            "macs_with_attention": "MACs with attention",
        }
        return [(name, self.before[key], self.after[key]) for key, name in names.items()]


def draft_plan(
    config: SlimConfig,
    sources: Sources,
    path: Path | None = None,
    *,
    device: str = "cpu",
    overwrite: bool = False,
) -> Draft:
    """Rank all channels of the teacher as it is, and write the plan to ``path``; nothing is cut or trained.

    Raises:
        ConfigError: a ratio leaves no channel, or a head count does not fit.
        FolderExistsError: there is a file at ``path``, and ``overwrite`` is off; or a folder.
        DataError: the folders on the way to ``path`` cannot be made.
    """
    if path is not None:
        require_file_place(path, overwrite=overwrite)
    teacher, score = sources.place_teacher(device), config.score
    widths = derive_widths(sources.channels, config.ratio, mlp_ratio=config.mlp_ratio, heads=config.heads)
    scores = score_channels(
        teacher,
        sources.draw_images(score.photos, config.seed, device),
        score.criterion,
        seed=config.seed,
        draws=score.draws,
        kinds=KINDS,
    )
    plan = make_plan(
        sources.channels,
        scores,
        widths,
        ranking=config.ranks_by,
        normalizer=score.compares_by,
        layout=config.layout,
    )
    if path is not None:
        plan.save(path)
    slim = apply_plan(teacher, plan)
    return Draft(plan, weigh(teacher, torch.float32), weigh(slim, torch.float32))
