"""Image towers of CLIP's published shapes with random weights, as backbones of the label generator."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
)

from aerogel.condense.families.architectures import ARCHITECTURES
from aerogel.condense.families.backbone import Backbone, hash_weights
from aerogel.condense.families.contrastive import ClassWords
from aerogel.condense.families.opening import build_backbone
from aerogel.condense.families.preparation import Preparation
from aerogel.core.randomness import seed_torch

# What a CLIP's temperature is after training.
LOGIT_SCALE = 100.0


class Bottleneck(nn.Module):
    """Apply a residual block whose stride is an average pooling (arXiv 2103.00020, section 2.4)."""

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * planes
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(planes)
        self.pool = nn.AvgPool2d(stride)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride), nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, maps: Tensor) -> Tensor:
        """Return the block's maps [B, 4 x planes, H / stride, W / stride]."""
        hidden = functional.relu(self.norm1(self.conv1(maps)))
        hidden = functional.relu(self.norm2(self.conv2(hidden)))
        return functional.relu(self.norm3(self.conv3(self.pool(hidden))) + self.shortcut(maps))


class AttentionPool(nn.Module):
    """Pool maps by one query, their mean, over all places (arXiv 2103.00020, section 2.4)."""

    def __init__(self, places: int, width: int, heads: int, outputs: int) -> None:
        super().__init__()
        self.heads = heads
        self.positions = nn.Parameter(torch.randn(places + 1, width) / width**0.5)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.project = nn.Linear(width, outputs)

    def forward(self, maps: Tensor) -> Tensor:
        """Return features [B, outputs] of ``maps`` [B, width, H, W]."""
        tokens = maps.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + self.positions
        shape = (len(maps), -1, self.heads, tokens.shape[-1] // self.heads)
        query = self.query(tokens[:, :1]).view(shape).transpose(1, 2)
        key, value = (layer(tokens).view(shape).transpose(1, 2) for layer in (self.key, self.value))
        pooled = functional.scaled_dot_product_attention(query, key, value)
        features: Tensor = self.project(pooled.transpose(1, 2).flatten(1))
        return features


class ClipResNet50(nn.Module):
    """Map images [B, 3, 224, 224] in [0, 1] to unit features [B, 1024]: the tower of CLIP RN50."""

    def __init__(self) -> None:
        super().__init__()
        stem: list[nn.Module] = []
        for inputs, outputs, stride in ((3, 32, 2), (32, 32, 1), (32, 64, 1)):
            stem += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.stem = nn.Sequential(*stem, nn.AvgPool2d(2))
        blocks: list[nn.Module] = []
        inputs = 64
        for planes, depth in ((64, 3), (128, 4), (256, 6), (512, 3)):
            for index in range(depth):
                blocks.append(Bottleneck(inputs, planes, 2 if index == 0 and planes > 64 else 1))
                inputs = 4 * planes
        self.blocks = nn.Sequential(*blocks)
        self.pool = AttentionPool(49, 2048, 32, 1024)

    def forward(self, images: Tensor) -> Tensor:
        """Return unit features [B, 1024]."""
        return functional.normalize(self.pool(self.blocks(self.stem(images - 0.5))), dim=-1)


def make_tokenizer(names: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """Return a tokenizer of whole words that knows the class names, with CLIP's ids for start and end."""
    words = ["<pad>", "<unknown>", "a", "photo", "of", ".", *names]
    vocabulary = {word: index for index, word in enumerate(words)} | {"<start>": 49406, "<end>": 49407}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    plain.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 49406), ("<end>", 49407)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", eos_token="<end>", unk_token="<unknown>"
    )


def make_vit(names: tuple[str, ...]) -> tuple[Backbone, nn.Module]:
    """Return CLIP ViT-B/32's shape as a backbone, and its text tower."""
    with seed_torch(0):
        model: Any = CLIPModel(CLIPConfig()).eval()
    with torch.no_grad():
        model.logit_scale.fill_(torch.tensor(LOGIT_SCALE).log())
    text = nn.ModuleList([model.text_model, model.text_projection])
    family = ARCHITECTURES["clip"]
    preparation = Preparation((224, 224), None, "bicubic", 1.0, *family.statistics)
    backbone = build_backbone(
        "random/clip-vit-base-patch32",
        family,
        model,
        preparation,
        1,
        make_tokenizer(names),
        {"dtype": "float16"},
    )
    return backbone, text


def make_rn50(names: tuple[str, ...]) -> tuple[Backbone, nn.Module]:
    """Return CLIP RN50's shape as a backbone whose 3 x 3 convolutions take LoRA, and its text tower."""
    with seed_torch(0):
        module = ClipResNet50().eval().requires_grad_(False)
        text: Any = CLIPTextModelWithProjection(CLIPTextConfig(projection_dim=1024)).eval()
    tokenizer = make_tokenizer(names)
    clip = SimpleNamespace(
        text_model=text.text_model,
        text_projection=text.text_projection,
        config=SimpleNamespace(text_config=text.config),
    )
    targets = [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)
    ]
    backbone = Backbone(
        name="random/clip-rn50",
        module=module,
        features=1024,
        lora_targets=tuple(targets),
        sha256=hash_weights(module),
        size_bytes=sum(parameter.numel() for parameter in module.parameters()) * 2,
        text=ClassWords(clip, tokenizer, padded=False),
        logit_scale=LOGIT_SCALE,
        unit_features=True,
    )
    return backbone, text


MAKERS: dict[str, Callable[[tuple[str, ...]], tuple[Backbone, nn.Module]]] = {
    "vit_b32": make_vit,
    "rn50": make_rn50,
}
