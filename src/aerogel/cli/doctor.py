"""`aerogel doctor`: whether this installation works, and what to do where it does not."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from aerogel.cli.failures import EXTRAS, OK, PROBLEM, install_hint
from aerogel.cli.screen import Screen
from aerogel.cli.settings import Flag

if TYPE_CHECKING:
    from subprocess import CompletedProcess

EXAMPLES = """Examples:
  aerogel doctor
  aerogel doctor --json

Exit codes: 0 all well, 1 a problem found. A package of an extra that is not
installed is no problem.
"""

_DISTRIBUTIONS = {"yaml": "pyyaml", "PIL": "pillow", "sklearn": "scikit-learn"}
_PYTHONS = ((3, 10), (3, 13))
_FREE_BYTES = 2 * 10**9
_TRIAL_SECONDS = 120
_TRIAL = """
import torch
x = torch.ones(2, 2, requires_grad=True)
(x @ x).sum().backward()
print(x.grad.sum().item())
"""


@dataclass(frozen=True)
class Finding:
    """Tell the state of one thing, what was seen, and what to do about it."""

    what: str
    state: Literal["ok", "absent", "problem"]
    seen: str
    remedy: str = ""


def doctor_command(
    *, json: Annotated[bool, Flag, Parameter(help="End with one line of JSON on stdout.")] = False
) -> int:
    """Check whether this installation works, and say what to do where it does not."""
    findings = [finding for check in (check_python, check_packages, *SLOW_CHECKS) for finding in check()]
    screen = Screen(json_wanted=json)
    rows = [(each.what, each.state, each.seen, each.remedy) for each in findings]
    screen.show_table("The state of this installation", ("what", "state", "seen", "what to do"), rows)
    problems = [each.what for each in findings if each.state == "problem"]
    screen.say(f"{len(problems)} problem(s): {', '.join(problems)}" if problems else "all well")
    screen.end({"ok": not problems, "findings": [asdict(each) for each in findings]})
    return PROBLEM if problems else OK


def check_python() -> Iterator[Finding]:
    """Check that this Python is one that Aerogel is tested with."""
    found = sys.version_info[:2]
    version = ".".join(map(str, sys.version_info[:3]))
    if _PYTHONS[0] <= found <= _PYTHONS[1]:
        yield Finding("python", "ok", version)
    else:
        yield Finding("python", "problem", version, "use Python 3.10 to 3.13")


def check_packages() -> Iterator[Finding]:
    """Check which packages are installed, without importing them; those of extras may be absent."""
    import importlib.metadata

    for package, extra in EXTRAS.items():
        name = _DISTRIBUTIONS.get(package, package)
        if importlib.util.find_spec(package) is None:
            state: Literal["absent", "problem"] = "absent" if extra else "problem"
            yield Finding(name, state, "not installed", install_hint(package))
            continue
        try:
            yield Finding(name, "ok", importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "problem", "a folder of that name without a version", f"pip install {name}")


def check_torch() -> Iterator[Finding]:
    """Check that torch multiplies and differentiates, and say which device "auto" means here."""
    said = _run_python(_TRIAL)
    if said.returncode or said.stdout.strip() != "16.0":
        yield Finding(
            "torch works",
            "problem",
            _last_line(said),
            "install torch again: pip install --force-reinstall torch",
        )
        return
    from aerogel.core.devices import choose_device

    chosen = choose_device("auto")
    yield Finding("torch works", "ok", f"device {chosen.value} ({chosen.reason})")


def check_torchvision() -> Iterator[Finding]:
    """Check that a torchvision, if there, can be imported: one for another torch breaks transformers."""
    import importlib.metadata

    if importlib.util.find_spec("torchvision") is None:
        yield Finding("torchvision", "ok", "not installed, and not needed")
        return
    said = _run_python("import torchvision")
    if said.returncode:
        remedy = "pip uninstall torchvision, which Aerogel does not need, or install the build for this torch"
        yield Finding("torchvision", "problem", _last_line(said), remedy)
    else:
        yield Finding("torchvision", "ok", importlib.metadata.version("torchvision"))


def check_weights() -> Iterator[Finding]:
    """Check that the weights that ship are those that were released."""
    if importlib.util.find_spec("torch") is None:
        return
    from aerogel.core.files import sha256_file
    from aerogel.errors import AerogelError
    from aerogel.zoo.cards import CARDS

    folder = Path(__file__).resolve().parents[1] / "zoo" / "weights"
    for name in CARDS.names():
        card = CARDS.get(name)
        try:
            found = sha256_file(folder / card.file)
        except (OSError, AerogelError) as error:
            yield Finding(name, "problem", str(error), "install Aerogel again")
            continue
        if found == card.sha256:
            yield Finding(name, "ok", f"sha256 {found[:12]}")
        else:
            seen = f"sha256 {found[:12]} instead of {card.sha256[:12] or 'a recorded one'}"
            yield Finding(name, "problem", seen, "install Aerogel again")


def check_disk() -> Iterator[Finding]:
    """Check that runs can be written here and to the cache, and that there is room for them."""
    import shutil

    root = os.environ.get("AEROGEL_CACHE")
    cache = Path(root) if root else Path.home() / ".cache" / "aerogel"
    for what, folder, remedy in (
        ("this folder", Path.cwd(), "change to a folder that you may write to, or pass --out"),
        ("cache", cache, "set AEROGEL_CACHE to a folder that you may write to"),
    ):
        place = next(each for each in (folder, *folder.parents) if each.exists())
        free = shutil.disk_usage(place).free
        seen = f"{folder}, {free / 1e9:.1f} GB free"
        if not os.access(place, os.W_OK):
            yield Finding(what, "problem", f"{folder} cannot be written to", remedy)
        elif free < _FREE_BYTES:
            yield Finding(what, "problem", seen, "free some space: large runs take gigabytes")
        else:
            yield Finding(what, "ok", seen)


SLOW_CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    check_torch,
    check_torchvision,
    check_weights,
    check_disk,
)


def _run_python(code: str) -> CompletedProcess[str]:
    """Run code in another interpreter, because a broken package can take its process down with it."""
    import subprocess

    command = [sys.executable, "-c", code]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_TRIAL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer within {_TRIAL_SECONDS} s")


def _last_line(said: CompletedProcess[str]) -> str:
    lines = (said.stderr or said.stdout).strip().splitlines()
    return lines[-1][:200] if lines else f"exit code {said.returncode}"
