"""Recipes that come with Aerogel, by name."""

from __future__ import annotations

from pathlib import Path

from aerogel.errors import UnknownNameError, compose

FOLDER = Path(__file__).resolve().parents[1] / "recipes"


def list_recipes() -> list[str]:
    """List the names of the recipes that come with Aerogel."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find_recipe(recipe: str | Path) -> Path:
    """Find a recipe: an existing file, else the name of one that comes with Aerogel.

    Raises:
        UnknownNameError: it is neither; the nearest name is given.
    """
    path = Path(recipe)
    if path.is_file():
        return path
    names = list_recipes()
    if str(recipe) in names:
        return FOLDER / f"{recipe}.yaml"
    from aerogel.core.registry import nearest

    close = nearest(str(recipe), names)
    raise UnknownNameError(
        compose(
            "a recipe file, or the name of a recipe that comes with Aerogel",
            f"{str(recipe)!r}, which is neither",
            f"did you mean {close!r}?" if close else f"check the path, or use one of {', '.join(names)}",
        )
    )
