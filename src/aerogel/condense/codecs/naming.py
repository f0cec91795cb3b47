"""Names of codecs: what ``stored-pruned10+int8`` says, as plain data that needs no torch to be checked."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from aerogel.core.registry import Registry, nearest
from aerogel.errors import ConfigError, compose

__all__ = ["FORMS", "PREFIX", "Codec", "Form", "Part", "parse_codec", "require_codecs", "suggest"]

PREFIX = "stored-"
_MOST_ROWS = 2**15
_MOST_DRAWN = 128  # classes of a random codebook, which is held in memory
_EXAMPLES = (
    "stored-fp32",
    "stored-fp16",
    "stored-int8",
    "stored-top5",
    "stored-pruned10",
    "stored-vq256",
    "stored-pq2x256",
    "stored-gauss16",
    "stored-pruned10+int8",
)

Role = Literal["views", "classes", "numbers", "codebook"]
# The order in which parts are written; a codebook stands for both classes and numbers.
_ORDER: tuple[Role, ...] = ("views", "classes", "numbers", "codebook")


@dataclass(frozen=True)
class Form:
    """Say how one kind of part is written and what it stands for.

    ``pattern`` matches the part's text, a group for each of its numbers, each of which lies between ``least``
    and ``most``. ``title`` and ``short`` take the numbers in their braces; titles are for tables, short ones
    for charts.
    """

    role: Role
    pattern: str
    title: str
    short: str
    least: int = 1
    most: int = 2**20


FORMS: Registry[Form] = Registry("part of a label codec")
_NUMBER = "([1-9][0-9]{0,6})"
for _kind, _form in (
    ("pruned", Form("views", f"pruned{_NUMBER}", "labels of one epoch in {0} stored", "1 in {0}", least=2)),
    ("top", Form("classes", f"top{_NUMBER}", "top {0}", "top {0}")),
    ("fp32", Form("numbers", "fp32", "fp32", "fp32")),
    ("fp16", Form("numbers", "fp16", "fp16", "fp16")),
    ("int8", Form("numbers", "int8", "int8", "int8")),
    ("vq", Form("codebook", f"vq{_NUMBER}", "codebook of {0}", "vq {0}", least=2, most=_MOST_ROWS)),
    (
        "pq",
        Form(
            "codebook",
            f"pq{_NUMBER}x{_NUMBER}",
            "{0} codebooks of {1}",
            "pq {0} x {1}",
            least=2,
            most=_MOST_ROWS,
        ),
    ),
    (
        "gauss",
        Form("codebook", f"gauss{_NUMBER}", "random codebook of {0} bits", "random {0} bits", most=16),
    ),
):
    FORMS.register(_kind)(_form)


@dataclass(frozen=True)
class Part:
    """Name one step of a codec and its numbers: ``top10`` is ("top", (10,))."""

    kind: str
    numbers: tuple[int, ...] = ()

    def __str__(self) -> str:
        """Write the part as it stands in a codec's name."""
        return self.kind + "x".join(str(number) for number in self.numbers)

    @property
    def role(self) -> Role:
        """Return what the part decides: which views, which classes, which number format, or a codebook."""
        return FORMS.get(self.kind).role


@dataclass(frozen=True)
class Codec:
    """Say how soft labels are stored: the parts of a name, in order.

    ``pruned`` decides which views have a label at all, the other parts what is written for one.
    """

    parts: tuple[Part, ...]

    @property
    def name(self) -> str:
        """Return the name that :func:`parse_codec` reads."""
        return PREFIX + "+".join(str(part) for part in self.parts)

    @property
    def encoding(self) -> tuple[Part, ...]:
        """Return the parts that say what is written for one view; float16 where no number format is named."""
        kept = tuple(part for part in self.parts if part.role != "views")
        if any(part.role in ("numbers", "codebook") for part in kept):
            return kept
        return (*kept, Part("fp16"))

    @property
    def keep_one_in(self) -> int:
        """Return the number of epochs of which one is stored."""
        return next((part.numbers[0] for part in self.parts if part.kind == "pruned"), 1)

    @property
    def has_codebook(self) -> bool:
        """Tell whether labels are indices into codebooks that are fitted to them first."""
        return any(part.role == "codebook" for part in self.parts)

    def kept_epochs(self, epochs: int) -> int:
        """Return how many of a run's ``epochs`` have stored views: the first n-th part, rounded up.

        The views of an epoch are independent draws for the key (seed, epoch, sample), so the first epochs'
        are as good a sample as any other. A run goes round them: its epoch e shows the views of epoch
        e modulo the number kept. Neither depends on batches.
        """
        return -(-epochs // self.keep_one_in)

    @property
    def title(self) -> str:
        """Return what tables call the labels."""
        whole = "" if self.keep_one_in > 1 else "all labels stored, "
        return whole + ", ".join(FORMS.get(part.kind).title.format(*part.numbers) for part in self._spelled)

    @property
    def short(self) -> str:
        """Return what charts call the labels."""
        named = ", ".join(FORMS.get(part.kind).short.format(*part.numbers) for part in self._spelled)
        return f"stored, {named}"

    @property
    def _spelled(self) -> tuple[Part, ...]:
        return tuple(part for part in self.parts if part.role == "views") + self.encoding

    def find_misfit(self, classes: int) -> str | None:
        """Return why labels of ``classes`` classes cannot be stored so, or None."""
        for part in self.parts:
            if part.kind == "top" and part.numbers[0] >= classes:
                return f"{self.name} keeps {part.numbers[0]} of {classes} classes, which is all of them"
            if part.kind == "pq" and part.numbers[0] > classes:
                return f"{self.name} cuts {classes} classes into {part.numbers[0]} parts"
            if part.kind == "gauss" and classes > _MOST_DRAWN:
                return f"{self.name} has one index for {classes} classes, of {_MOST_DRAWN} at most"
        return None


def parse_codec(name: str) -> Codec:
    """Read the name of a codec.

    Raises:
        ConfigError: there is no codec of that name; the message names the nearest.
    """
    parts = _split(name)
    found = Codec(tuple(part for part in parts if part is not None))
    if not parts or None in parts:
        close = suggest(name, _EXAMPLES)
        remedy = f"did you mean {close!r}?" if close else "write such a name"
        raise ConfigError(compose(f"a label codec such as {', '.join(_EXAMPLES)}", repr(name), remedy))
    for part in found.parts:
        form = FORMS.get(part.kind)
        if not all(form.least <= number <= form.most for number in part.numbers):
            raise ConfigError(
                compose(
                    f"numbers from {form.least} to {form.most:,} in {part.kind!r} of a label codec",
                    repr(name),
                    "change the number",
                )
            )
    wanted = _tidy(found)
    if wanted != found:
        raise ConfigError(
            compose(
                "the parts of a label codec once each: which views, which classes, the number format, left "
                "out where it is fp16; a codebook in place of the last two",
                repr(name),
                f"did you mean {wanted.name!r}?",
            )
        )
    return found


def suggest(name: str, known: Iterable[str]) -> str | None:
    """Find the name that a mistyped one most likely meant, with the numbers that were written."""
    _, dash, rest = name.partition("-")
    written = re.findall(r"([a-z_]+)([0-9]*)(?:x([0-9]+))?", rest if dash else name)
    repaired: list[str] = []
    for letters, *digits in written:
        kind = nearest(letters + digits[0], FORMS.names()) or nearest(letters, FORMS.names())
        if kind is None:
            break
        repaired.append(kind if kind[-1].isdigit() else kind + "x".join(digit for digit in digits if digit))
    built = PREFIX + "+".join(repaired)
    parts = _split(built)
    if repaired and len(repaired) == len(written) and parts and None not in parts:
        return built
    return nearest(name, known)


def require_codecs(kinds: Iterable[str], classes: int) -> None:
    """Check that the codecs among ``kinds`` of labels can store labels of ``classes`` classes.

    Raises:
        ConfigError: some cannot; all are named.
    """
    codecs = [parse_codec(kind) for kind in kinds if kind.startswith(PREFIX)]
    misfits = [misfit for codec in codecs if (misfit := codec.find_misfit(classes))]
    if misfits:
        raise ConfigError(
            compose(
                f"label codecs for {classes} classes in student.labels",
                "; ".join(misfits),
                "lower the number",
            )
        )


def _split(name: str) -> list[Part | None]:
    """Return the parts of a name, None for each that is none; nothing without the prefix."""
    if not name.startswith(PREFIX):
        return []
    return [_read_part(text) for text in name.removeprefix(PREFIX).split("+")]


def _read_part(text: str) -> Part | None:
    for kind in FORMS.names():
        match = re.fullmatch(FORMS.get(kind).pattern, text)
        if match:
            return Part(kind, tuple(int(number) for number in match.groups()))
    return None


def _tidy(codec: Codec) -> Codec:
    """Return the codec with its parts in order, one of each role, and without what goes without saying."""
    first: dict[Role, Part] = {}
    for part in codec.parts:
        first.setdefault(part.role, part)
    if "codebook" in first:
        first = {role: part for role, part in first.items() if role in ("views", "codebook")}
    if len(first) > 1 and first.get("numbers") == Part("fp16"):
        del first["numbers"]
    return Codec(tuple(first[role] for role in _ORDER if role in first))
