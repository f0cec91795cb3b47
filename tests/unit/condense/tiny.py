"""Tiny data, settings and models for the tests of condense: whole runs in a second or two."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from aerogel.condense.config import CondenseConfig
from aerogel.condense.families.backbone import Backbone, hash_weights
from aerogel.condense.families.cifar_resnet import CifarResNet, Shape
from aerogel.condense.sources import Sources
from aerogel.core.config import from_dict
from aerogel.zoo.imageset import ImageSet

NAMES = ("bar", "dot", "ring")
BACKBONE = "aerogel/shapes-resnet8"


def draw(
    count: int, *, channels: int = 1, names: tuple[str, ...] = NAMES, seed: int = 0, size: int = 8
) -> ImageSet:
    """Return ``count`` images per class: one bright patch, at a place of the class's own, in noise."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 60, (count * len(names), channels, size, size), generator=generator)
    labels = torch.arange(len(names)).repeat_interleave(count)
    for index, label in enumerate(labels.tolist()):
        top, left = divmod(3 * label, size)
        images[index, :, top : top + 3, left : left + 3] += 180
    ids = tuple(f"{seed}:{index}" for index in range(len(labels)))
    return ImageSet(images.to(torch.uint8), labels, names, ids, "patches", "public domain")


def sources(count: int = 24, **settings: Any) -> Sources:
    """Return training and test images of the same kind."""
    return Sources(draw(count, seed=1, **settings), draw(8, seed=2, **settings))


def config(**changes: Any) -> CondenseConfig:
    """Return settings for a run of seconds; ``changes`` are merged into the nested settings."""
    fit = {"epochs": 6, "batch_size": 16, "lr": 0.01}
    views = {"crop_scale": [0.9, 1.0], "flip": 0.0, "cutmix": 0.2}
    settings: dict[str, Any] = {
        "dataset": "patches",
        "ipc": 2,
        "device": "cpu",
        "views": views,
        "teacher": {"width": 8, "depth": 1, "held_out": 0.2, "views": views, "fit": fit, "snapshots": 2},
        "selection": {"candidates": 8, "crops": 2},
        "projector": {"rank": 2, "fit": fit},
        "student": {
            "width": 4,
            "depth": 1,
            "labels": ["generator", "hard"],
            "random_baseline": False,
            "fit": {**fit, "epochs": 3, "batch_size": 4},
        },
    }
    for name, value in changes.items():
        known = settings.get(name)
        settings[name] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
    return from_dict(CondenseConfig, settings)


class Stripes(nn.Module):
    """Turn images into 6 features by one convolution: the smallest backbone that LoRA can change."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, 2, 1)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.norm(self.conv(images.expand(-1, 3, -1, -1))).relu().mean((2, 3))
        return features


def stripes(width: int = 6, seed: int = 0) -> Backbone:
    """Return a backbone of random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = Stripes(width).eval().requires_grad_(False)
    return Backbone(
        name=f"tests/stripes-{width}",
        module=module,
        features=width,
        lora_targets=("conv",),
        sha256=hash_weights(module),
        size_bytes=100,
    )


def write_tokenizer(folder: Path, *, names: tuple[str, ...] = NAMES, letters: str = "") -> int:
    """Write a tokenizer of a few words, and of ``letters``, and return how many it knows."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<start>", "<end>", "<unknown>", "a", "photo", "of", *names, ".", *letters]
    vocabulary = {word: index for index, word in enumerate(words)}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    plain.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain,
        pad_token="<pad>",
        bos_token="<start>",
        eos_token="<end>",
        unk_token="<unknown>",
    )
    tokenizer.save_pretrained(folder)
    return len(words)


def write_clip(folder: Path, *, names: tuple[str, ...] = NAMES, size: int = 8, seed: int = 0) -> Path:
    """Write a CLIP of random weights and a tokenizer of a few words, as a downloaded one lies on disk."""
    from transformers import CLIPConfig, CLIPModel

    words = write_tokenizer(folder, names=names)
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    words_tower = {
        "vocab_size": words,
        "max_position_embeddings": 16,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    settings = CLIPConfig(
        text_config={**tower, **words_tower, "pad_token_id": 0},
        vision_config={**tower, "image_size": size, "patch_size": 4},
        projection_dim=12,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CLIPModel(settings).eval()
        for parameter in model.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return folder


def write_classifier(
    folder: Path, *, names: tuple[str, ...] = NAMES, kind: str = "vit", **processor: Any
) -> Path:
    """Write a transformers image classifier of random weights, 16-pixel images, with its image processor."""
    from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

    labels = {
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "vit":
            shape = {
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
            }
            model: Any = ViTForImageClassification(ViTConfig(**shape, image_size=16, patch_size=4, **labels))
            nn.init.normal_(model.classifier.weight)
            settings = {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}}
        else:
            shape = {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "layer_type": "basic"}
            model = ResNetForImageClassification(ResNetConfig(**shape, **labels))
            settings = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 16}}
    model.eval().save_pretrained(folder)
    text = json.dumps({**settings, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4], **processor})
    (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")
    return folder


def write_cifar_resnet(file: Path, *, projected: bool = False) -> Path:
    """Write a CIFAR ResNet of 4, 8 and 16 channels for the three classes, with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = CifarResNet(Shape((1, 2, 1), 4, len(NAMES), projected))
        for name, value in network.state_dict().items():
            if name.endswith(("running_mean", "running_var")):
                value.uniform_(0.1, 0.5)
    save_file(network.state_dict(), file)
    return file


def rename(data: ImageSet, names: tuple[str, ...]) -> ImageSet:
    """Return the same images with other class names."""
    return replace(data, class_names=names)
