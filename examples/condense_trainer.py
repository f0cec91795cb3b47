"""Train a transformers image classifier on a condensed set with transformers' Trainer.

    python examples/condense_trainer.py

A small Vision Transformer without pre-training and a set made in seconds: it shows how, not how well.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from transformers import TrainingArguments, ViTConfig, ViTForImageClassification

import aerogel
from aerogel.condense import DistillationTrainer

quick = {"epochs": 4, "batch_size": 64, "lr": 1e-2}
views = {"flip": 0.0, "crop_scale": [0.8, 1.0]}  # a mirrored digit is another sign

with tempfile.TemporaryDirectory() as scratch:
    aerogel.condense(
        "digits",
        ipc=5,
        out=Path(scratch) / "run",
        views=views,
        teacher={"width": 16, "depth": 2, "held_out": 0.1, "views": views, "fit": quick},
        selection={"crop_scale": [0.9, 1.0]},
        projector={"rank": 4, "fit": quick},
        compare=False,
    )
    small = aerogel.load_condensed(Path(scratch) / "run" / "archive")  # or "user/name", from the hub

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = ViTConfig(**shape, image_size=8, patch_size=2, num_channels=1, num_labels=len(small.class_names))
    model = ViTForImageClassification(config)
    arguments = TrainingArguments(
        output_dir=str(Path(scratch) / "student"),
        num_train_epochs=3,
        per_device_train_batch_size=10,
        learning_rate=1e-3,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    # Every epoch shows another view of each image, and the label generator labels it.
    trainer = DistillationTrainer(model, arguments, data=small)
    done = trainer.train()
    print(f"{done.global_step} steps on {len(small)} images, mean loss {done.training_loss:.2f}")
