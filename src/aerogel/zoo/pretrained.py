"""Models by folder or Hugging Face hub name, from safetensors alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from aerogel.errors import DataError, MissingDependencyError, compose
from aerogel.zoo.inspection import inspect_folder

_LONGEST = 1000
_FAILURES = (
    OSError,
    ValueError,
    LookupError,
    RuntimeError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    SafetensorError,
    StrictDataclassError,
)
# What transformers raises on damaged folders, found by giving it damaged folders.


def load_pretrained(loader: str | type, name: str, **options: Any) -> Any:
    """Load a transformers model in float32 by a class, or the name of transformers' own, with all weights.

    ``options`` are for the model's constructor. Weights stored with pickle alone are not opened, and code
    from the folder or the hub is never run.

    Raises:
        MissingDependencyError: transformers is not installed.
        DataError: nothing of that name can be loaded, or weights of the model are missing in it.
    """
    kind: Any = _import(loader, name) if isinstance(loader, str) else loader
    if Path(name).is_dir():
        inspect_folder(Path(name))
    with quiet(), _refusals(name):
        model, info = kind.from_pretrained(
            name,
            use_safetensors=True,
            trust_remote_code=False,  # unsaid, transformers asks on the terminal
            dtype="float32",
            output_loading_info=True,
            **options,
        )
    missing = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if missing:
        raise DataError(
            compose(
                f"all weights of a {type(model).__name__} in {name!r}",
                f"a model without {', '.join(missing[:3])} ({len(missing)} in all)",
                "choose a model that was saved whole, with its head",
            )
        )
    return model.eval()


def read_config(name: str) -> dict[str, Any]:
    """Return the fields of a model's config as stored, from a folder or the Hugging Face hub.

    Raises:
        MissingDependencyError: transformers is not installed.
        DataError: nothing of that name can be read.
    """
    kind = _import("PreTrainedConfig", name)
    if Path(name).is_dir():
        inspect_folder(Path(name))
    with _refusals(name):
        fields: Any = kind.get_config_dict(name)[0]
    if not fields or not isinstance(fields, dict):
        raise DataError(
            compose(
                f"the config.json of a model in {name!r}", "none, or one without fields", "check the name"
            )
        )
    return fields


def load_part(loader: str, name: str) -> Any:
    """Load what goes with a model by the class called ``loader``: its config, tokenizer or image processor.

    Code from the folder or the hub is never run.

    Raises:
        MissingDependencyError: transformers is not installed.
        DataError: nothing of that name can be loaded.
    """
    kind = _import(loader, name)
    if Path(name).is_dir():
        inspect_folder(Path(name))
    with _refusals(name):
        return kind.from_pretrained(name, trust_remote_code=False)


def _import(loader: str, name: str) -> Any:
    try:
        import transformers
    except ImportError as missing:
        raise MissingDependencyError(
            compose(f"transformers, to load {name!r}", "no such package", 'pip install "aerogel[all]"')
        ) from missing
    return getattr(transformers, loader)


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    try:
        yield
    except ImportError as missing:
        raise MissingDependencyError(
            compose(
                f"the packages that transformers needs to load {name!r}",
                " ".join(str(missing).split())[:_LONGEST],
                "install what is missing",
            )
        ) from missing
    except _FAILURES as failure:
        raise DataError(
            compose(
                "the name of a model: a folder, or a hub name, with its weights as safetensors",
                f"{name!r}, which could not be loaded ({str(failure)[:_LONGEST]})",
                "check the name, the network and HF_HUB_OFFLINE, or give the folder of a downloaded model",
            )
        ) from failure


@contextmanager
def quiet() -> Iterator[None]:
    """Keep off the screen the bars that transformers draws while it loads and saves, and its load reports.

    What a report says of weights that are missing is checked by those who load.
    """
    from transformers.utils import logging

    settings: Any = logging

    shown, told = settings.is_progress_bar_enabled(), settings.get_verbosity()
    settings.disable_progress_bar()
    settings.set_verbosity_error()
    try:
        yield
    finally:
        settings.set_verbosity(told)
        if shown:
            settings.enable_progress_bar()
