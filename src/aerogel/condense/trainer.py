"""transformers' Trainer on a condensed set: every epoch shows other views, each with its soft label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from transformers import Trainer, TrainerCallback

from aerogel.condense.collation import HARD, PARTNERS, SOFT, WEIGHTS, ViewKeys
from aerogel.condense.labels import mixed_cross_entropy
from aerogel.errors import ConfigError, MismatchError, compose

if TYPE_CHECKING:
    from aerogel.condense.condensed import CondensedSet


class DistillationTrainer(Trainer):
    """Train a transformers image classifier on a condensed set: MSE to its soft labels and cross-entropy.

    The loss is that of arXiv 2408.08201, section 3.4. Evaluation is Trainer's own, on batches with
    ``pixel_values`` and ``labels``.
    """

    def __init__(
        self,
        model: Any,
        args: Any = None,
        *,
        data: CondensedSet,
        processor: Any = None,
        ce_weight: float = 0.1,
        **settings: Any,
    ) -> None:
        """Train ``model`` on ``data`` as ``args`` says; ``processor`` is the model's image processor, if any.

        ``ce_weight`` is the weight of the cross-entropy to the hard labels. ``settings`` are Trainer's.

        Raises:
            ConfigError: ``settings`` name a training set or a collator, which come from ``data``.
            DataError: the processor does what is not reproduced here.
            MismatchError: the model has another number of classes, or takes images of other channels.
        """
        taken = sorted({"train_dataset", "data_collator"} & set(settings))
        if taken:
            raise ConfigError(
                compose("data alone to train on", f"also {', '.join(taken)}", "leave these arguments out")
            )
        classes = len(data.class_names)
        found = int(model.config.num_labels)
        if found != classes:
            raise MismatchError(
                compose(
                    f"a model of {classes} classes",
                    f"{found}",
                    f"load it with num_labels={classes} (and "
                    "ignore_mismatched_sizes=True for one that was trained)",
                )
            )
        channels = getattr(model.config, "num_channels", None)
        keys = ViewKeys(len(data))
        super().__init__(
            model,
            args,
            train_dataset=keys,
            data_collator=data.collator(processor, channels=channels),
            **settings,
        )
        # A mean over the batch, which Trainer then divides where it accumulates gradients.
        self.model_accepts_loss_kwargs = False
        self.ce_weight = ce_weight
        self.add_callback(_TellEpoch(keys))

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss of a batch of views, or Trainer's own for a batch without soft labels."""
        if SOFT not in inputs:
            return super().compute_loss(model, inputs, return_outputs=return_outputs)
        extra = (HARD, PARTNERS, WEIGHTS, SOFT)
        hard, partners, weights, soft = (inputs[name] for name in extra)
        outputs = model(**{name: value for name, value in inputs.items() if name not in extra})
        logits = outputs.logits.float()
        loss: torch.Tensor = functional.mse_loss(logits, soft)
        loss = loss + self.ce_weight * mixed_cross_entropy(logits, hard, partners, weights)
        return (loss, outputs) if return_outputs else loss


class _TellEpoch(TrainerCallback):
    """Tell the keys which epoch begins; Trainer's count survives a resume."""

    def __init__(self, keys: ViewKeys) -> None:
        self.keys = keys

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Choose the views of the epoch."""
        self.keys.set_epoch(int(state.epoch or 0))
