"""Train the diffusion model that ships in the wheel: 32x32 pictures of clothes, drawn by class name.

    python recipes/zoo/train_fashion_unet.py --data fashion-mnist --work runs/fashion-unet \
        --out src/aerogel/zoo/weights/fashion-unet

Learns the velocity of "Progressive distillation for fast sampling of diffusion models" (arXiv 2202.00512,
appendix D) on the 60,000 training images, and drops a part of the labels for classifier-free guidance (arXiv
2207.12598). Batches, noise and dropped labels are functions of the seed and the step, and the work folder
holds a snapshot: a killed run continues where it stopped. Writes the running mean of the weights as fp16.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DModel
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional

from aerogel.core.files import sha256_file
from aerogel.core.randomness import derive_seed, permutation, seed_torch
from aerogel.errors import MismatchError, compose
from aerogel.zoo import ImageSet, load_splits
from aerogel.zoo.diffusion import ClassConditionalPipeline

NOISE_STEPS = 1000
# Squares of 2x2 pixels become four channels: a quarter of the work, and white noise stays white noise.
PATCH = 2
SNAPSHOT = "training.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True)
class Settings:
    """Hold what decides the trained weights, apart from the data."""

    steps: int = 6000
    batch_size: int = 32
    lr: float = 8e-4
    warmup: int = 200
    ema_decay: float = 0.999
    label_dropout: float = 0.12
    widths: tuple[int, ...] = (32, 64, 112)
    seed: int = 0


def build_unet(classes: int, settings: Settings) -> UNet2DModel:
    """Build the untrained network; its last class embedding stands for "no class"."""
    levels = len(settings.widths)
    with seed_torch(derive_seed(settings.seed, "weights")):
        return UNet2DModel(
            sample_size=32 // PATCH,
            in_channels=PATCH**2,
            out_channels=PATCH**2,
            layers_per_block=2,
            block_out_channels=settings.widths,
            down_block_types=("DownBlock2D",) + ("AttnDownBlock2D",) * (levels - 1),
            up_block_types=("AttnUpBlock2D",) * (levels - 1) + ("UpBlock2D",),
            attention_head_dim=16,
            norm_num_groups=8,
            resnet_time_scale_shift="scale_shift",
            num_class_embeds=classes + 1,
        )


def build_scheduler() -> DDIMScheduler:
    """Build the noise schedule of training, as the scheduler that sampling uses by default."""
    return DDIMScheduler(
        num_train_timesteps=NOISE_STEPS,
        beta_schedule="linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )


def fall_start(steps: int) -> int:
    """Return the step at which the learning rate begins to fall; up to it, runs of all lengths are one."""
    return steps * 7 // 10


def prepare(images: torch.Tensor) -> torch.Tensor:
    """Return uint8 [N, 1, 28, 28] as uint8 [N, 4, 16, 16]: padded with ground, then in patches."""
    return functional.pixel_unshuffle(functional.pad(images, (2, 2, 2, 2)), PATCH)


class Training:
    """Hold the network, the running mean of its weights and the optimiser, and take one step at a time."""

    def __init__(self, data: ImageSet, settings: Settings) -> None:
        """Start at step zero."""
        self.settings = settings
        self.step = 0
        self.images, self.labels = prepare(data.images), data.labels
        self.no_class = len(data.class_names)
        self._shuffled = (-1, np.empty(0, dtype=np.int64))
        self.scheduler = build_scheduler()
        self.unet = build_unet(self.no_class, settings).to(memory_format=torch.channels_last)
        self.means = {name: value.detach().clone() for name, value in self.unet.named_parameters()}
        self.optimiser = torch.optim.AdamW(
            self.unet.parameters(), lr=settings.lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )

    def rate(self) -> float:
        """Return this step's learning rate: it rises, stays, and falls to zero over the last three tenths."""
        settings = self.settings
        rise = (self.step + 1) / settings.warmup
        fall = (settings.steps - self.step) / (settings.steps - fall_start(settings.steps))
        return settings.lr * min(1.0, rise, fall)

    def _order(self, epoch: int) -> np.ndarray:
        if epoch != self._shuffled[0]:
            self._shuffled = (epoch, permutation(self.settings.seed, "batches", epoch, len(self.images)))
        return self._shuffled[1]

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return this step's images, float [B, 4, 16, 16] in -1..1, and labels, int64 [B]."""
        size = self.settings.batch_size
        epoch, place = divmod(self.step, len(self.images) // size)
        chosen = torch.from_numpy(self._order(epoch)[place * size : (place + 1) * size])
        return self.images[chosen].float() / 127.5 - 1, self.labels[chosen]

    def advance(self) -> float:
        """Take one step on the mean squared error of the velocity; return that error."""
        settings = self.settings
        clean, labels = self.batch()
        chance = torch.Generator().manual_seed(derive_seed(settings.seed, "noise", self.step))
        noise = torch.randn(clean.shape, generator=chance)
        # Evenly spread times with one random offset: a steadier loss than independent draws.
        spread = (torch.arange(len(clean)) / len(clean) + torch.rand(1, generator=chance)) % 1
        times = (spread * NOISE_STEPS).long().clamp(max=NOISE_STEPS - 1)
        dropped = torch.rand(len(clean), generator=chance) < settings.label_dropout
        labels = labels.masked_fill(dropped, self.no_class)
        noisy = self.scheduler.add_noise(clean, noise, times)
        target = self.scheduler.get_velocity(clean, noise, times)
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        found = self.unet(noisy, times, labels).sample
        loss = functional.mse_loss(found, target)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate()
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        weight = 1 - min(settings.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.unet.named_parameters():
                self.means[name].lerp_(value, weight)
        return loss.item()

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, value in self.unet.named_parameters():
            yield f"weight.{name}", value.detach()
            yield f"mean.{name}", self.means[name]
            for key in MOMENTS:
                yield f"{key}.{name}", self.optimiser.state[value][key]

    def save(self, folder: Path) -> None:
        """Write everything that a later run needs; a kill meanwhile leaves the former file whole."""
        folder.mkdir(parents=True, exist_ok=True)
        facts = {"step": str(self.step), "settings": json.dumps(asdict(self.settings))}
        # Copied into the usual layout: safetensors refuses channels-last memory.
        plain = {name: value.clone(memory_format=torch.contiguous_format) for name, value in self._tensors()}
        save_file(plain, folder / f"{SNAPSHOT}.part", facts)
        os.replace(folder / f"{SNAPSHOT}.part", folder / SNAPSHOT)

    def resume(self, folder: Path) -> None:
        """Continue from the folder's snapshot, if there is one.

        The number of steps may differ from that of the snapshot until either run's learning rate has begun to
        fall: up to there both are the same.

        Raises:
            MismatchError: the snapshot belongs to a run with other settings.
        """
        if not (folder / SNAPSHOT).exists():
            return
        with safe_open(folder / SNAPSHOT, framework="pt") as stored:
            self._require_same(stored.metadata())
            for name, value in self.unet.named_parameters():
                state = {key: torch.empty_like(value) for key in MOMENTS[:2]} | {"step": torch.tensor(0.0)}
                for key, tensor in {"weight": value.data, "mean": self.means[name], **state}.items():
                    tensor.copy_(stored.get_tensor(f"{key}.{name}"))
                self.optimiser.state[value] = state
            self.step = int(stored.metadata()["step"])

    def _require_same(self, facts: dict[str, str]) -> None:
        mine, theirs = json.loads(json.dumps(asdict(self.settings))), json.loads(facts["settings"])
        if int(facts["step"]) <= fall_start(min(mine["steps"], theirs["steps"])):
            theirs["steps"] = mine["steps"]
        if mine != theirs:
            raise MismatchError(compose(f"a run of {theirs}", str(mine), "use another --work folder"))


def train(training: Training, work: Path, *, every_s: float = 180) -> Iterator[tuple[int, float]]:
    """Train to the last step, with a snapshot every few minutes; yield each step's number and loss."""
    training.resume(work)
    saved = time.monotonic()
    while training.step < training.settings.steps:
        loss = training.advance()
        if time.monotonic() - saved > every_s or training.step == training.settings.steps:
            training.save(work)
            saved = time.monotonic()
        yield training.step, loss


def write_pipeline(training: Training, names: tuple[str, ...], out: Path) -> dict[str, float | str]:
    """Write the running mean of the weights as a pipeline in fp16; return what its card states."""
    unet = build_unet(len(names), training.settings)
    unet.load_state_dict(training.means)
    pipe = ClassConditionalPipeline(unet.half(), training.scheduler, list(names), PATCH)
    pipe.save_pretrained(out)
    return {
        "parameters": sum(value.numel() for value in unet.parameters()),
        "size_bytes": sum(path.stat().st_size for path in out.rglob("*") if path.is_file()),
        "sha256": sha256_file(out / "unet" / "diffusion_pytorch_model.safetensors"),
    }


def main() -> None:
    """Run the recipe from the command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--data", default="fashion-mnist", help="named source or folder with the IDX files")
    parser.add_argument("--work", type=Path, required=True, help="folder of the snapshot")
    parser.add_argument("--out", type=Path, required=True, help="folder of the finished pipeline")
    for name, value in asdict(Settings()).items():
        flag, several = f"--{name.replace('_', '-')}", isinstance(value, tuple)
        kind = int if several else type(value)
        parser.add_argument(flag, type=kind, nargs="+" if several else None, default=value)
    arguments = vars(parser.parse_args())
    source, work, out = (arguments.pop(name) for name in ("data", "work", "out"))
    settings = Settings(**{**arguments, "widths": tuple(arguments["widths"])})
    torch.set_num_threads(1)
    data = load_splits(source)[0]
    training = Training(data, settings)
    mean_loss, started = 0.0, time.monotonic()
    for step, loss in train(training, work):
        mean_loss = 0.98 * mean_loss + 0.02 * loss if mean_loss else loss
        if step % 50 == 0:
            seconds = time.monotonic() - started
            print(f"step {step}/{settings.steps} loss {mean_loss:.4f} {seconds:.0f} s", flush=True)
    card = write_pipeline(training, data.class_names, out)
    print(json.dumps({**card, **asdict(settings)}))


if __name__ == "__main__":
    main()
