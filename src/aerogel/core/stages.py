"""Steps of a run that can be killed at any moment and continued."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aerogel.core.canonical import canonical_json, canonical_sha256, parse_json, plain_value, show_value
from aerogel.core.files import open_regular, require_space, storage_errors, sweep_temporaries, sync_folder
from aerogel.core.folders import (
    put_in_place,
    recover_folder,
    require_replaceable,
    resolve_target,
    seal_folder,
    verify_folder,
    write_text_atomic,
)
from aerogel.core.locks import hold_lock
from aerogel.core.manifests import MANIFEST_NAME, Manifest, is_sealed, read_manifest
from aerogel.core.progress import announce
from aerogel.errors import DataError, FolderConflictError, FolderExistsError, IntegrityError, compose

__all__ = ["CHECKPOINT_NAME", "Stage", "run_stage"]

CHECKPOINT_NAME = "checkpoint"
_RECORD_NAME = ".stage.json"
_RESERVED = ("fingerprint", "inputs")
_SHOWN = 10
_ABSENT = "absent"
_MOST_BYTES = 1 << 24


@dataclass(frozen=True)
class Stage:
    """Describe a step: the folder it fills and everything that its result depends on.

    ``inputs`` maps the name of each thing it reads to the digest of that thing's manifest. ``command`` is
    recorded and has no influence.
    """

    folder: Path
    kind: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    seed: int | None = None
    command: str | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """Gather what the result depends on."""
        gathered = {"kind": self.kind, "config": self.config, "inputs": self.inputs, "seed": self.seed}
        identity: dict[str, Any] = plain_value(gathered, "stage")
        return identity

    @property
    def fingerprint(self) -> str:
        """Hash what the result depends on."""
        return canonical_sha256(self.identity, "stage")


def run_stage(
    stage: Stage,
    build: Callable[[Path], Mapping[str, Any]],
    *,
    overwrite: bool = False,
    need_bytes: int | None = None,
) -> Manifest:
    """Fill a stage's folder, continue where a killed run stopped, or return at once when it is done.

    ``build`` gets the folder ``<name>.partial`` to write into, and the same folder with what it holds when an
    earlier run of the same stage was cut short. Files that it needs only for that belong into its
    ``checkpoint`` folder, which is dropped at the end; all others become the result, so a continued run must
    end with the same files as an uninterrupted one. Files should be written atomically. ``build`` returns the
    facts to record.

    A finished folder of the same stage is verified and returned. With ``overwrite`` a folder of another
    stage, or a damaged one, is replaced.

    Raises:
        FolderConflictError: the folder was made with other settings, or another run is working in it.
        FolderExistsError: a folder that Aerogel did not make lies at the place.
        IntegrityError: the finished folder is damaged.
        StorageFullError: the disk is full; what was done so far stays for the next run.
    """
    target = resolve_target(stage.folder)
    with hold_lock(target), storage_errors(target):
        recover_folder(target)
        finished = _find_finished(target, stage, overwrite)
        if finished is not None:
            return finished
        if need_bytes is not None:
            require_space(target, need_bytes)
        partial = target.with_name(f"{target.name}.partial")
        record = _open_partial(partial, stage, overwrite)
        if _RECORD_NAME in os.listdir(partial):
            if "facts" not in record:
                record |= {"facts": _check_facts(build(partial))}
                write_text_atomic(partial / _RECORD_NAME, canonical_json(record))
            manifest = _seal(partial, stage, record["facts"])
        else:
            manifest = verify_folder(partial, stage.kind)
        put_in_place(partial, target, overwrite=overwrite)
        return manifest


def is_made(folder: Path) -> bool:
    """Tell whether a folder is the work of Aerogel, finished or not."""
    return is_sealed(folder) or (folder / _RECORD_NAME).is_file()


def _find_finished(target: Path, stage: Stage, overwrite: bool) -> Manifest | None:
    if not os.path.lexists(target) or (target.is_dir() and not os.listdir(target)):
        return None
    if not target.is_dir() or MANIFEST_NAME not in os.listdir(target):
        require_replaceable(target, overwrite=overwrite)
    manifest = read_manifest(target)
    if manifest.facts.get("fingerprint") != stage.fingerprint:
        if not overwrite:
            raise _conflict(target, _identity_of(manifest), stage)
        require_replaceable(target, overwrite=True)
        return None
    try:
        return verify_folder(target, stage.kind)
    except IntegrityError:
        if not overwrite:
            raise
        require_replaceable(target, overwrite=True)
        return None


def _open_partial(partial: Path, stage: Stage, overwrite: bool) -> dict[str, Any]:
    if os.path.lexists(partial):
        record = _read_record(partial)
        if record.get("fingerprint") == stage.fingerprint:
            sweep_temporaries(partial)
            announce(f"continuing {stage.kind} from {partial}")
            return record
        if record and not overwrite:
            raise _conflict(partial, record.get("identity"), stage)
        shutil.rmtree(partial)
    # The folder appears together with its record, so that a filled one without a record is never ours.
    start = partial.with_name(f".{partial.name}.aerogel-new")
    if start.exists():
        shutil.rmtree(start)
    (start / CHECKPOINT_NAME).mkdir(parents=True)
    record = {"identity": stage.identity, "fingerprint": stage.fingerprint}
    write_text_atomic(start / _RECORD_NAME, canonical_json(record))
    os.rename(start, partial)
    sync_folder(partial.parent)
    return record


def _read_record(partial: Path) -> dict[str, Any]:
    if partial.is_dir() and not partial.is_symlink():
        names = os.listdir(partial)
        if not names:
            return {}
        try:
            if _RECORD_NAME in names:
                with os.fdopen(open_regular(partial / _RECORD_NAME), "rb") as file:
                    record = parse_json(file.read(_MOST_BYTES))
                if isinstance(record, dict) and "fingerprint" in record and _has_facts(record):
                    return record
            elif MANIFEST_NAME in names:
                manifest = read_manifest(partial)
                return {"identity": _identity_of(manifest), "fingerprint": manifest.facts.get("fingerprint")}
        except (IntegrityError, ValueError):
            pass
    raise FolderExistsError(
        compose(
            f"nothing or the work of an interrupted run at {partial}",
            "something else",
            "move it away or delete it yourself, or choose another folder",
        )
    )


def _has_facts(record: dict[str, Any]) -> bool:
    return "facts" not in record or isinstance(record["facts"], dict)


def _seal(partial: Path, stage: Stage, facts: Mapping[str, Any]) -> Manifest:
    if (partial / CHECKPOINT_NAME).exists():
        shutil.rmtree(partial / CHECKPOINT_NAME)
    sweep_temporaries(partial)
    manifest = seal_folder(
        partial,
        kind=stage.kind,
        config=stage.config,
        facts={**facts, "fingerprint": stage.fingerprint, "inputs": dict(stage.inputs)},
        seed=stage.seed,
        command=stage.command,
        exclude={_RECORD_NAME},
    )
    # Without the record the manifest stands for the folder: a kill right after this leaves a finished one.
    (partial / _RECORD_NAME).unlink()
    sync_folder(partial)
    return manifest


def _check_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    taken = [name for name in _RESERVED if name in facts]
    if taken:
        raise DataError(compose("facts under names of their own", ", ".join(taken), "rename them"))
    checked: dict[str, Any] = plain_value(facts, "facts")
    return checked


def _identity_of(manifest: Manifest) -> dict[str, Any]:
    inputs = manifest.facts.get("inputs", {})
    return {"kind": manifest.kind, "config": manifest.config, "inputs": inputs, "seed": manifest.seed}


def _conflict(folder: Path, theirs: Any, stage: Stage) -> FolderConflictError:
    there, here = _flatten(theirs), _flatten(stage.identity)
    odd = [key for key in sorted({*there, *here}) if there.get(key, _ABSENT) != here.get(key, _ABSENT)]
    shown = [
        f"{key} is {there.get(key, _ABSENT)} there and {here.get(key, _ABSENT)} here" for key in odd[:_SHOWN]
    ]
    if len(odd) > _SHOWN:
        shown.append(f"{len(odd) - _SHOWN} more")
    return FolderConflictError(
        compose(
            f"a folder made with the same settings at {folder}",
            f"another: {'; '.join(shown) or 'its record is damaged'}",
            "use the same settings, choose another folder, or allow overwriting it",
        )
    )


def _flatten(value: Any, name: str = "") -> dict[str, str]:
    if isinstance(value, dict) and value:
        flat: dict[str, str] = {}
        for key, item in value.items():
            flat |= _flatten(item, f"{name}.{key}" if name else key)
        return flat
    return {name: show_value(value)}
