"""Say what the shipped models are, and open their files only as they were released."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal

from aerogel.core.files import sha256_file
from aerogel.core.registry import Registry
from aerogel.errors import IntegrityError, MismatchError, compose

Kind = Literal["backbone", "pipeline", "segmenter"]


@dataclass(frozen=True)
class Card:
    """Say what a shipped model is: weights, hash, licence, data, the command that made it, and its figures.

    ``file`` lies below the folder of weights; that of a pipeline or a segmenter in the model's own folder.
    """

    kind: Kind
    file: str
    sha256: str
    licence: str
    data: str
    command: str
    figures: dict[str, float]


CARDS: Registry[Card] = Registry("zoo model")
CARDS.register("aerogel/shapes-resnet8")(
    Card(
        kind="backbone",
        file="shapes-resnet8.safetensors",
        sha256="04dba520fbb6036191ecf489a12dcfe0d52871f60ba8e6b35e09ba1ab75e78c7",
        licence="Apache-2.0",
        data="400,000 drawn images (aerogel.zoo.shapes; outlines 0 to 3 are one circle); no photographs",
        command="python recipes/zoo/train_shapes_resnet8.py --out src/aerogel/zoo/weights",
        figures={"outline_accuracy": 0.352, "texture_accuracy": 0.718},
    )
)
CARDS.register("aerogel/fashion-unet")(
    Card(
        kind="pipeline",
        file="fashion-unet/unet/diffusion_pytorch_model.safetensors",
        sha256="ed0cb233e7b44c7f3b6608a7ece20e10a6b13e9196ed15bfd76fa606669a3e6b",
        licence="Apache-2.0",
        data="the 60,000 training images of Fashion-MNIST (Zalando, MIT licence), padded to 32x32",
        command="python recipes/zoo/train_fashion_unet.py --work runs/fashion-unet"
        " --out src/aerogel/zoo/weights/fashion-unet",
        # Of 300 pictures at guidance 3, by a judge that knows 93.0 % of the test images.
        figures={"recognised": 0.993, "judge_accuracy": 0.930},
    )
)
CARDS.register("aerogel/sam-nano")(
    Card(
        kind="segmenter",
        file="sam-nano/model.safetensors",
        sha256="1cdabc9a4a7b0e005e8c68006691a8335270fc7a7569577d2fc5a4a3451a5277",
        licence="Apache-2.0",
        data="what MobileSAM (Apache-2.0) says of 1,000 ImageNet photos without labels, learned by sam-small,"
        " which was slimmed on the same photos; the photos do not ship",
        command="python recipes/zoo/make_sam_nano.py --small runs/sam-small/model --data FOLDER"
        " --work runs/sam-nano --out src/aerogel/zoo/weights/sam-nano",
        # mIoU on 620 objects of 100 COCO photos (benchmarks/slim-zoo).
        figures={"point_miou": 0.417, "box_miou": 0.649},
    )
)


@contextmanager
def open_weights(name: str, kind: Kind) -> Iterator[Path]:
    """Give the path of a shipped model's weights, once they are known to be those of its card.

    Raises:
        UnknownNameError: no such model ships; the nearest name is given.
        MismatchError: the model is of another kind.
        IntegrityError: the file is not the one that the card describes.
    """
    card = CARDS.get(name)
    if card.kind != kind:
        fitting = [each for each in CARDS.names() if CARDS.get(each).kind == kind]
        raise MismatchError(
            compose(f"the name of a {kind}", f"{name}, a {card.kind}", f"choose of {', '.join(fitting)}")
        )
    folder, _, below = card.file.rpartition("/")[0].partition("/")
    # The folder of a pipeline or a segmenter is taken as a whole: its configurations lie beside its weights.
    with as_file(files("aerogel.zoo") / "weights" / (folder or card.file)) as place:
        path = place / below / Path(card.file).name if folder else place
        found = sha256_file(path)
        if found != card.sha256:
            raise IntegrityError(
                compose(f"{card.file} with SHA-256 {card.sha256[:12]}", found[:12], "install aerogel again")
            )
        yield path
