"""Class lists: name the classes that a source leaves unnamed, and hold a source to a given list."""

from __future__ import annotations

from collections.abc import Sequence

from aerogel.errors import DataError, compose

MOST_CLASSES = 1_000_000


def name_classes(values: Sequence[int | str | None], where: str) -> tuple[str, ...]:
    """Make a class list of label values: the sorted texts, else one number per class up to the highest.

    Raises:
        DataError: numbers too high to be classes.
    """
    if any(isinstance(value, str) for value in values):
        return tuple(sorted({value for value in values if isinstance(value, str)}))
    highest = max((value for value in values if isinstance(value, int)), default=-1)
    if highest >= MOST_CLASSES:
        remedy = "pass label_column= with the column of class numbers"
        raise DataError(
            compose(f"class numbers counted from 0 in {where}", f"labels up to {highest}", remedy)
        )
    return tuple(str(number) for number in range(highest + 1))


def align_classes(declared: Sequence[str], wanted: Sequence[str], where: str) -> tuple[int, ...]:
    """Map every declared class to its place in the wanted list.

    The same names in another order are matched by name; as many names, none of them shared, rename the
    classes in order. Anything in between is refused, because it cannot be told from a mistake.

    Raises:
        DataError: the lists share some names, or differ in length.
    """
    if set(declared) == set(wanted) and len(declared) == len(wanted):
        return tuple(list(wanted).index(name) for name in declared)
    if len(declared) == len(wanted) and not set(declared) & set(wanted):
        return tuple(range(len(declared)))
    missing = [name for name in declared if name not in set(wanted)][:10]
    extra = [name for name in wanted if name not in set(declared)][:10]
    got = f"{len(wanted)} names, without {missing} and with the unknown {extra}"
    remedy = "pass class_names with the source's names in any order, or with a new name for each of them"
    raise DataError(compose(f"the {len(declared)} classes of {where}", got, remedy))
