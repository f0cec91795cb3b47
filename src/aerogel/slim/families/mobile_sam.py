"""MobileSAM (arXiv 2306.14289): TinyViT as the image encoder of transformers' own SAM.

Images are prepared as for SAM: the longer side is resized to 1024 pixels, the pixels are normalised by
ImageNet's mean (123.675, 116.28, 103.53 of 0 to 255) and standard deviation (58.395, 57.12, 57.375), then
zeros fill the image up to a square, below and to the right, so that they stand for the mean colour.
"""

from __future__ import annotations

import json
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from aerogel.errors import (
    ConfigError,
    DataError,
    IntegrityError,
    MismatchError,
    MissingDependencyError,
    compose,
)
from aerogel.slim.families.mobile_sam_names import LEFT_OUT, publish_name
from aerogel.slim.families.tiny_vit import SIDE, TinyVit, TinyVitConfig, WindowAttention

try:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import PreTrainedConfig, SamConfig, SamImageProcessorPil, SamModel, SamProcessor
    from transformers.models.sam.modeling_sam import (
        SamImageSegmentationOutput,
        SamMaskDecoder,
        SamPositionalEmbedding,
        SamPromptEncoder,
    )
except ImportError as missing:
    raise MissingDependencyError(
        compose("transformers 5, for SAM's decoder", f"none ({missing})", 'pip install "aerogel[slim]"')
    ) from missing

_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
_NAMED_IN_ERRORS = 5
_SHARED = (
    "shared_image_embedding.positional_embedding",
    "prompt_encoder.shared_embedding.positional_embedding",
)


class MobileSamVisionConfig(PreTrainedConfig):
    """Hold the shape of the encoder where transformers looks for it; fields as in ``TinyVitConfig``.

    ``image_size`` is in pixels, a multiple of 16; ``num_pos_feats`` is half the decoder's channels. ``scale``
    spreads the positional encoding of a new model.
    """

    base_config_key = "vision_config"
    model_type = "aerogel_tiny_vit"

    embed_dims: list[int] | tuple[int, ...] = (64, 128, 160, 320)
    depths: list[int] | tuple[int, ...] = (2, 2, 6, 2)
    num_heads: list[int] | tuple[int, ...] = (2, 4, 5, 10)
    window_sizes: list[int] | tuple[int, ...] = (7, 7, 14, 7)
    mlp_ratio: float = 4.0
    conv_ratio: float = 4.0
    output_channels: int = 256
    image_size: int = 1024
    num_pos_feats: int = 128
    scale: float = 1.0

    def tiny_vit(self) -> TinyVitConfig:
        """Return the encoder's own configuration.

        Raises:
            ConfigError: the fields describe no TinyViT.
        """
        fields: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields_of(TinyVitConfig)}
        # JSON gives lists back.
        for name, value in fields.items():
            fields[name] = tuple(value) if isinstance(value, list) else value
        return TinyVitConfig(**fields)


class MobileSamConfig(SamConfig):
    """Describe a MobileSAM: the encoder, and SAM's prompt encoder and mask decoder."""

    model_type = "aerogel_mobile_sam"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        **SamConfig.sub_configs_defaults,
        "vision_config": MobileSamVisionConfig,
    }


class MobileSamModel(SamModel):
    """Segment as transformers' ``SamModel`` does, with TinyViT as the ``vision_encoder``.

    Prompts, masks and outputs are ``SamModel``'s; so are ``save_pretrained`` and ``from_pretrained``.
    """

    config: MobileSamConfig
    config_class = MobileSamConfig
    vision_encoder: Any  # a TinyVit
    supports_gradient_checkpointing = False
    _no_split_modules = ["Bottleneck", "AttentionBlock"]  # noqa: RUF012 - as in the parent

    def __init__(self, config: MobileSamConfig) -> None:
        """Build the model with random weights.

        Raises:
            ConfigError: the parts do not fit together.
        """
        _require_fit(config)
        # SamModel's own constructor would build its ViT first.
        super(SamModel, self).__init__(config)
        vision: Any = config.vision_config
        finish: Any = self.post_init
        decoder: Any = config.mask_decoder_config
        decoder._attn_implementation = config._attn_implementation
        self.shared_image_embedding = SamPositionalEmbedding(vision)
        self.vision_encoder = TinyVit(vision.tiny_vit())
        self.prompt_encoder = SamPromptEncoder(config)
        self.mask_decoder = SamMaskDecoder(decoder)
        finish()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, WindowAttention):
            nn.init.zeros_(module.biases)

    def get_input_embeddings(self) -> nn.Module:
        """Return the layer that sees the pixels."""
        stem: nn.Module = self.vision_encoder.stem
        return stem

    @torch.no_grad()
    def get_image_embeddings(self, pixel_values: Tensor, **kwargs: Any) -> Tensor:
        """Return embeddings [B, 256, S / 16, S / 16] of ``pixel_values`` [B, 3, S, S], without a gradient.

        What else ``SamModel`` takes here is for its own encoder, and makes no difference.

        Raises:
            DataError: the images are not of the model's size.
        """
        return self._embed(pixel_values)

    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_points: Tensor | None = None,
        input_labels: Tensor | None = None,
        input_boxes: Tensor | None = None,
        input_masks: Tensor | None = None,
        image_embeddings: Tensor | None = None,
        multimask_output: bool = True,
        **kwargs: Any,
    ) -> SamImageSegmentationOutput:
        """Return ``iou_scores`` [B, P, M] and ``pred_masks`` [B, P, M, S / 4, S / 4] for P prompts an image.

        Either ``pixel_values`` [B, 3, S, S] or ``image_embeddings`` come, with ``input_points`` [B, P, N, 2]
        and ``input_labels`` [B, P, N], or ``input_boxes`` [B, P, 4], all in pixels of the prepared image.
        Masks are logits; M is 3, or 1 without ``multimask_output``. Gradients reach the encoder.

        Raises:
            DataError: the images are not of the model's size.
        """
        if pixel_values is not None and image_embeddings is None:
            image_embeddings, pixel_values = self._embed(pixel_values), None
        output: SamImageSegmentationOutput = super().forward(
            pixel_values=pixel_values,
            input_points=input_points,
            input_labels=input_labels,
            input_boxes=input_boxes,
            input_masks=input_masks,
            image_embeddings=image_embeddings,
            multimask_output=multimask_output,
            **kwargs,
        )
        return output

    def _embed(self, pixel_values: Tensor) -> Tensor:
        vision: Any = self.config.vision_config
        side = vision.image_size
        if tuple(pixel_values.shape[1:]) != (3, side, side):
            raise DataError(
                compose(
                    f"pixels [B, 3, {side}, {side}]",
                    f"a shape of {list(pixel_values.shape)}",
                    "prepare the images with build_processor, or call vision_encoder for features alone",
                )
            )
        embeddings: Tensor = self.vision_encoder(pixel_values)
        return embeddings


def _require_fit(config: MobileSamConfig) -> None:
    vision: Any = config.vision_config
    prompts: Any = config.prompt_encoder_config
    decoder: Any = config.mask_decoder_config
    channels = {vision.output_channels, 2 * vision.num_pos_feats, prompts.hidden_size, decoder.hidden_size}
    wrong = [f"channels of {sorted(channels, key=str)}"] if len(channels) > 1 else []
    if vision.image_size != prompts.image_size or vision.image_size % SIDE or prompts.patch_size != SIDE:
        sizes = f"{vision.image_size} and {prompts.image_size} pixels"
        wrong.append(f"images of {sizes}, {prompts.patch_size} of them a position")
    if wrong:
        raise ConfigError(
            compose(
                "one number of channels (output_channels, twice num_pos_feats, both hidden_size), and "
                f"one image size, a multiple of the {SIDE} pixels that a position stands for",
                " and ".join(wrong),
                "change these fields; MobileSamConfig() has those of MobileSAM",
            )
        )


def build_processor(image_size: int = 1024) -> SamProcessor:
    """Return transformers' processor of images and prompts for a model of that size; it needs only pillow."""
    side = {"height": image_size, "width": image_size}
    return SamProcessor(SamImageProcessorPil(size={"longest_edge": image_size}, pad_size=side))


def load_mobile_sam(
    source: str | Path, config: MobileSamConfig | None = None, dtype: torch.dtype = torch.float32
) -> MobileSamModel:
    """Load a MobileSAM in evaluation mode, with its weights in ``dtype``.

    ``source`` is the published checkpoint as safetensors, in any floating-point type, a folder that holds it
    and no other, or a folder that ``save_pretrained`` wrote. ``config`` gives the shape of a checkpoint, by
    default MobileSAM's own; a saved folder brings its own.

    Raises:
        ConfigError: the configuration describes no MobileSAM.
        DataError: there is no such file or folder, or it is of another kind.
        IntegrityError: the file is damaged.
        MismatchError: weights are missing, left over or of another shape than the model's.
    """
    path = Path(source)
    saved = (path / "config.json").is_file()
    if saved:
        config, path = _read_config(path / "config.json"), path / "model.safetensors"
    elif path.is_dir():
        path = _only_checkpoint(path)
    stored = _read(path)
    config = config or MobileSamConfig()
    outline = _outline(config, path)
    names = {name: name if saved else publish_name(name) for name in outline}
    if saved:
        names[_SHARED[1]] = _SHARED[0]  # one tensor under two names, of which transformers stores the first
    _require_shapes(outline, stored, names, path)
    model: Any = MobileSamModel(config)
    model.load_state_dict({name: stored[theirs] for name, theirs in names.items()}, strict=True)
    loaded: MobileSamModel = model.to(dtype=dtype).eval()
    return loaded


def _read_config(file: Path) -> MobileSamConfig:
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
        kind = fields["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as failure:
        raise IntegrityError(
            compose(f"the configuration of a model in {file}", repr(failure), "save or fetch it again")
        ) from failure
    if kind != MobileSamConfig.model_type:
        raise MismatchError(
            compose(
                f"a model of type {MobileSamConfig.model_type}",
                f"one of type {kind} in {file.parent}",
                "load it with transformers, or give MobileSAM's checkpoint",
            )
        )
    try:
        config: MobileSamConfig = MobileSamConfig.from_dict(fields)
    except StrictDataclassError as failure:
        raise ConfigError(
            compose(f"the fields of a MobileSamConfig in {file}", str(failure), "correct them")
        ) from failure
    return config


def _outline(config: MobileSamConfig, path: Path) -> dict[str, Tensor]:
    """Return the model's weights without memory for them, which a config may ask for without end.

    Raises:
        ConfigError: the configuration describes no MobileSAM.
    """
    try:
        with torch.device("meta"):
            return dict(MobileSamModel(config).state_dict())
    except (TypeError, ArithmeticError, RuntimeError) as failure:
        raise ConfigError(
            compose(f"the configuration of a MobileSAM for {path}", str(failure)[:300], "correct it")
        ) from failure


def _only_checkpoint(folder: Path) -> Path:
    found = sorted(folder.glob("*.safetensors"))
    if len(found) != 1:
        raise DataError(
            compose(
                f"one .safetensors file in {folder}, or what save_pretrained wrote",
                ", ".join(path.name for path in found[:_NAMED_IN_ERRORS]) or "none",
                "give the path of the checkpoint itself",
            )
        )
    return found[0]


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise DataError(compose("MobileSAM's checkpoint", f"no file at {path}", "check the path"))
    if path.suffix != ".safetensors":
        how = "a .safetensors file"
        if path.suffix in _PICKLES:
            how += (
                ": pickled weights can run code when they are opened. Convert a file that you trust with "
                "safetensors.torch.save_file(torch.load(path, weights_only=True), 'mobile_sam.safetensors')"
            )
        raise DataError(compose("MobileSAM's checkpoint as safetensors", f"{path}", f"give {how}"))
    try:
        return load_file(path)
    except (OSError, SafetensorError) as failure:
        raise IntegrityError(
            compose(f"a whole safetensors file at {path}", str(failure), "fetch or convert it again")
        ) from failure


def _require_shapes(
    outline: dict[str, Tensor], stored: dict[str, Tensor], names: dict[str, str], path: Path
) -> None:
    """Check that each of the model's names stands for a stored weight of its shape, and all are used."""
    _require_none(
        path,
        missing=set(names.values()) - stored.keys(),
        left_over=stored.keys() - set(names.values()) - LEFT_OUT,
    )
    wrong = {
        f"{names[name]} {list(stored[names[name]].shape)} for {list(weight.shape)}"
        for name, weight in outline.items()
        if stored[names[name]].shape != weight.shape
    }
    if wrong:
        raise MismatchError(
            compose(
                "weights of the shapes that the configuration gives",
                f"{_list(wrong)} in {path}",
                "pass the config of this checkpoint",
            )
        )


def _require_none(path: Path, missing: set[str], left_over: set[str]) -> None:
    faults = [f"without {_list(missing)}"] * bool(missing) + [f"with {_list(left_over)} left over"] * bool(
        left_over
    )
    if faults:
        raise MismatchError(
            compose(
                "exactly the weights of a MobileSAM",
                f"{path} {' and '.join(faults)}",
                "give MobileSAM's checkpoint with its names as published, and the config of its shape",
            )
        )


def _list(names: set[str]) -> str:
    ordered = sorted(names)
    rest = len(ordered) - _NAMED_IN_ERRORS
    return ", ".join(ordered[:_NAMED_IN_ERRORS]) + (f" and {rest} more" if rest > 0 else "")
