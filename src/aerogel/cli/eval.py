"""`aerogel condense eval`: the accuracy of a trained network on test images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from aerogel.cli.failures import OK
from aerogel.cli.screen import Screen
from aerogel.cli.settings import Flag

EXAMPLES = """Examples:
  aerogel condense eval student digits
  aerogel condense eval run/teacher photos/ --split test
"""


def eval_command(
    folder: Annotated[Path, Parameter(help="A folder that `student` or `teacher` wrote.")],
    data: Annotated[str, Parameter(help="Images, as for `aerogel condense`.")],
    /,
    *,
    split: Annotated[Literal["test", "train"], Parameter(help="Which part of DATA to score on.")] = "test",
    skip_bad: Annotated[bool, Flag, Parameter(help="Leave out unusable files, naming each.")] = False,
    device: Annotated[str, Parameter(help='"auto", "cpu", "cuda" or "cuda:1".')] = "auto",
    json: Annotated[bool, Flag, Parameter(help="End with one line of JSON on stdout.")] = False,
) -> int:
    """Score a trained student or teacher on test images.

    The images are brought to its size and channels; other classes are refused.
    """
    from aerogel.condense.graduate import load_trained, score_trained
    from aerogel.core.devices import choose_device
    from aerogel.core.progress import announce
    from aerogel.zoo import load_images

    trained = load_trained(folder)
    images = load_images(
        data,
        split=split,
        size=trained.size,
        channels=1 if trained.channels == 1 else 3,
        class_names=trained.class_names,
        skip_bad=skip_bad,
    )
    chosen = choose_device(device)
    announce(f"device: {chosen.value} ({chosen.reason})")
    found = score_trained(trained, images, chosen.value)
    screen = Screen(json_wanted=json)
    screen.say(f"{found}  ({found.samples:,} images)")
    screen.end({"folder": str(folder), "data": data, "split": split, "accuracy": found.to_dict()})
    return OK
