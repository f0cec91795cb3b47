"""What a label generator weighs at ImageNet-1K's shape, and what the labels that it replaces would.

    python benchmarks/condense-storage/run.py

1,000 classes, image towers of the shapes of CLIP ViT-B/32 and CLIP RN50 with random weights, LoRA of rank 8
on the tower (query and value projections; 3 x 3 convolutions) and of rank 128 on the head, every trained
number another than at the start. For each tower a condensed set with the adapter in int8 is written, opened
and checked like any other, and the same adapter is written in every codec. Bytes are those of the files, by
stat: the adapter with its config, the towers in fp16, the teacher (ResNet-18) in fp16. Full labels are 300
epochs of fp16 logits: a thousandth of them is really written, and what the container adds to its numbers is
counted for each 128 MiB of the whole. Exits with 1 if the adapter weighs more than 3.0e-5 of the labels of 50
images per class. Writes results.json beside this file and ends its output with that JSON on one line. Needs
3 GB of memory, 1 GB of disk and two minutes of one core.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor, nn
from towers import MAKERS
from transformers.utils import logging

from aerogel.condense.adapters import store_adapter
from aerogel.condense.archive import IMAGES, KIND, LABELS, StoredImages, delta_bytes, write_card, write_images
from aerogel.condense.condensed import load_condensed, load_generator, probe_logits
from aerogel.condense.config import ADAPTER_CODECS, ProjectorConfig, ViewConfig
from aerogel.condense.families import Backbone
from aerogel.condense.labels import Batch, make_batch
from aerogel.condense.networks import build_classifier
from aerogel.condense.projector import Projector, adapt, build_projector, load_adapter
from aerogel.condense.storing import store_labels
from aerogel.condense.views import Views
from aerogel.core.config import to_dict
from aerogel.core.environment import environment
from aerogel.core.folders import create_folder, seal_folder, write_text_atomic
from aerogel.measure import size_bytes

CLASSES = tuple(f"class-{index:03d}" for index in range(1000))
SIZE = 224
EPOCHS = 300
IPCS = (1, 10, 50, 100, 200)
LIMIT = 3.0e-5
CODEC = "int8"
SETTINGS = ProjectorConfig(rank=8, head_rank=128, templates=("{}",), dtype=CODEC)
SHARD_BYTES = 128 * 2**20
SAMPLE = 1000
VIEWS = ViewConfig(cutmix=0.0)


def draw_images() -> StoredImages:
    """Return one image of one colour per class; what they show matters to no figure but their own bytes."""
    generator = torch.Generator().manual_seed(0)
    colours = torch.randint(0, 256, (len(CLASSES), 3, 1, 1), generator=generator).to(torch.uint8)
    return StoredImages(colours.expand(-1, -1, SIZE, SIZE), torch.arange(len(CLASSES)), CLASSES)


@dataclass(frozen=True)
class Subject:
    """Hold a tower, its plain projector, and the adapted one as training would leave it."""

    backbone: Backbone
    plain: Projector
    adapted: PeftModel


def make_subject(backbone: Backbone, images: StoredImages) -> Subject:
    """Adapt a tower and move every trained number away from where it started."""
    plain = build_projector(backbone, images.images, images.labels, CLASSES, SETTINGS.templates)
    adapted = adapt(copy.deepcopy(plain), backbone, SETTINGS, len(CLASSES))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    return Subject(backbone, plain, adapted.eval())


def write_archive(folder: Path, subject: Subject, images: StoredImages) -> None:
    """Write a condensed set with the adapter in ``CODEC``; its probe is of the adapter as stored."""
    backbone = subject.backbone
    with create_folder(folder) as work:
        write_images(work / IMAGES, images, CLASSES)
        store_adapter(subject.adapted, copy.deepcopy(subject.plain), work / LABELS, CODEC)
        stored = load_adapter(copy.deepcopy(subject.plain), work / LABELS)
        delta = delta_bytes(work)
        facts: dict[str, Any] = {
            "images": len(images.labels),
            "ipc": 1,
            "class_names": list(CLASSES),
            "channels": 3,
            "size": SIZE,
            "tiles": 1,
            "mean": [0.5] * 3,
            "std": [0.25] * 3,
            "views": to_dict(VIEWS),
            "view_seed": 0,
            "templates": list(SETTINGS.templates),
            "backbone": {"name": backbone.name, "sha256": backbone.sha256, "grid": backbone.grid},
            "projector": to_dict(SETTINGS),
            "probe": probe_logits(stored, images.images, 4).tolist(),
            "source": {"name": "colours", "licence": "public domain", "images": len(images.labels)},
            "storage": [
                {"name": "images", "bytes": int(size_bytes(work / IMAGES))},
                {"name": "label generator (delta)", "bytes": delta},
            ],
        }
        write_card(work / "README.md", name="colours", facts=facts)
        seal_folder(work, kind=KIND, config={}, facts=facts)


def weigh_module(module: nn.Module, path: Path) -> int:
    """Write the parameters and buffers of floating point in fp16 and return the bytes of the file."""
    halves = {
        name: value.half().contiguous()
        for name, value in module.state_dict().items()
        if value.is_floating_point()
    }
    save_file(halves, path)
    return path.stat().st_size


class RandomLogits:
    """Give logits like numbers of no pattern, which cost what any would."""

    name = "random"

    def logits(self, batch: Batch) -> Tensor:
        """Return logits [B, classes]."""
        generator = torch.Generator().manual_seed(batch.epoch)
        return torch.randn(len(batch.labels), len(CLASSES), generator=generator)


def weigh_labels(folder: Path, ipc: int) -> dict[str, int]:
    """Write a thousandth of the labels of ``ipc`` images per class; return its bytes and the whole's."""
    count = ipc * len(CLASSES) // SAMPLE
    images, labels = torch.zeros(count, 1, 8, 8, dtype=torch.uint8), torch.zeros(count, dtype=torch.int64)
    views = Views(VIEWS, 0, count)

    def batches() -> Iterator[Batch]:
        for epoch in range(EPOCHS):
            yield make_batch(images, labels, views, epoch, np.arange(count), "cpu")

    folder.mkdir()
    store_labels(
        folder,
        RandomLogits(),
        batches(),
        epochs=EPOCHS,
        images=count,
        classes=len(CLASSES),
    )
    shards = [path.stat().st_size for path in sorted(folder.iterdir())]
    numbers = 2 * EPOCHS * count * len(CLASSES)
    overhead = (sum(shards) - numbers) / len(shards)
    whole = SAMPLE * numbers
    total = whole + math.ceil(math.ceil(whole / SHARD_BYTES) * overhead)
    return {"sample_bytes": sum(shards), "sample_numbers_bytes": numbers, "bytes": total}


def measure_tower(
    name: str, images: StoredImages, labels: Mapping[int, dict[str, int]], teacher: int, work: Path
) -> dict[str, Any]:
    """Write, open and weigh one tower's condensed set, and its adapter in every codec."""
    backbone, text = MAKERS[name](CLASSES)
    subject = make_subject(backbone, images)
    folder = work / name
    write_archive(folder, subject, images)
    data = load_condensed(folder)
    # Raises if what was stored gives other logits than the manifest records.
    load_generator(data, backbone)
    codecs = {
        codec: store_adapter(subject.adapted, copy.deepcopy(subject.plain), work / f"{name}-{codec}", codec)
        for codec in ADAPTER_CODECS
    }
    delta = int(size_bytes(folder / LABELS))
    tower = weigh_module(backbone.module, work / "tower.safetensors")
    words = weigh_module(text, work / "text.safetensors")
    view_bytes = labels[50]["bytes"] / (EPOCHS * 50 * len(CLASSES))
    figures: dict[str, Any] = {
        "tower_parameters": sum(each.numel() for each in backbone.module.parameters()),
        "trained_parameters": sum(
            each.numel() for each in subject.adapted.parameters() if each.requires_grad
        ),
        "delta_bytes": delta,
        "backbone_bytes": tower,
        "text_tower_bytes": words,
        "delta_plus_backbone_bytes": delta + tower,
        **{f"full_label_bytes_ipc{ipc}": each["bytes"] for ipc, each in labels.items()},
        **{f"ratio_ipc{ipc}": delta / each["bytes"] for ipc, each in labels.items()},
        "break_even_views": delta / view_bytes,
        "break_even_views_with_backbone": (delta + tower) / view_bytes,
        "teacher_fp16_bytes": teacher,
        "teacher_over_delta": teacher / delta,
        "codec_bytes": codecs,
        "archive_bytes": int(size_bytes(folder)),
    }
    print(
        f"{name}: adapter {delta:,} bytes in {CODEC}, {figures['ratio_ipc50']:.2e} of the labels of 50 "
        f"images per class; with the tower {delta + tower:,}; the teacher in fp16 {teacher:,}",
        flush=True,
    )
    return figures


def main() -> int:
    """Run the benchmark from the command line."""
    layout = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(description=__doc__, formatter_class=layout).parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    images = draw_images()
    with TemporaryDirectory() as place:
        work = Path(place)
        labels = {ipc: weigh_labels(work / f"labels-{ipc}", ipc) for ipc in IPCS}
        network = build_classifier(
            "resnet18",
            channels=3,
            classes=len(CLASSES),
            size=SIZE,
            width=None,
            depth=18,
            mean=(0.5,) * 3,
            std=(0.25,) * 3,
            seed=0,
        )
        teacher = weigh_module(network, work / "teacher.safetensors")
        figures = {name: measure_tower(name, images, labels, teacher, work) for name in MAKERS}
    missed = [name for name, each in figures.items() if not each["ratio_ipc50"] <= LIMIT]
    samples = {str(ipc): each for ipc, each in labels.items()}
    results = {
        "figures": figures,
        "labels": samples,
        "limit": LIMIT,
        "missed": missed,
        "environment": environment(),
    }
    text = json.dumps(results, indent=2, sort_keys=True)
    write_text_atomic(Path(__file__).parent / "results.json", text + "\n")
    print(json.dumps(results, sort_keys=True))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
