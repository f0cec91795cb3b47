"""Result folders on the Hugging Face hub: sent when they are sound, fetched and held to their manifest."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from aerogel.core.folders import create_folder, verify_folder
from aerogel.core.manifests import MANIFEST_NAME, Manifest, read_manifest
from aerogel.errors import (
    AerogelError,
    ConfigError,
    DataError,
    IntegrityError,
    MissingDependencyError,
    compose,
)

_REPO_TYPE = "dataset"


def publish_folder(
    folder: Path,
    repo_id: str,
    kind: str,
    *,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    replaced: Sequence[str] = (),
) -> str:
    """Send a result folder to a dataset repository ``user/name`` of the hub, and return its address.

    The folder is verified first, and exactly the files of its manifest are sent. The repository is made where
    there is none; files in it that match a pattern of ``replaced`` and are not sent are removed in the same
    commit. ``token`` None is the one that `hf auth login` keeps.

    Raises:
        ConfigError: ``repo_id`` is no name on the hub.
        DataError: the hub refuses, or cannot be reached.
        IntegrityError: a file of the folder is damaged, missing or too many; nothing is sent then.
        MissingDependencyError: huggingface_hub is not installed.
    """
    hub = _import_hub()
    require_repo_id(repo_id)
    manifest = verify_folder(folder, kind)
    with _refusals(f"to send {folder} to {repo_id!r}", "check the network, and log in: hf auth login"):
        remote = hub.HfApi(token=token)
        address = remote.create_repo(repo_id, repo_type=_REPO_TYPE, private=private, exist_ok=True)
        remote.upload_folder(
            repo_id=repo_id,
            repo_type=_REPO_TYPE,
            folder_path=str(folder),
            revision=revision,
            commit_message=f"{kind} {manifest.digest[:12]}",
            allow_patterns=_patterns(manifest),
            delete_patterns=list(replaced) or None,
        )
    return str(address)


def fetch_folder(
    repo_id: str,
    kind: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    max_bytes: int | None = None,
) -> Path:
    """Fetch a result folder from a dataset repository of the hub, verify it, and return where it lies.

    The manifest comes first; then exactly the files that it lists, of the same commit. Files that the hub or
    the owner put beside them are not fetched. The sound folder is kept in the user's cache (``AEROGEL_CACHE``
    moves it) under its commit; what was fetched before is used again, also without a network.

    Raises:
        ConfigError: ``repo_id`` is no name on the hub.
        DataError: no such repository, no manifest in it, more than ``max_bytes``, or no network.
        IntegrityError: a file differs from the manifest; nothing is kept then.
        MismatchError: the repository holds a folder of another kind.
        MissingDependencyError: huggingface_hub is not installed.
    """
    hub = _import_hub()
    require_repo_id(repo_id)
    options: dict[str, Any] = {"repo_id": repo_id, "repo_type": _REPO_TYPE, "token": token}
    remedy = "check the name, the network and HF_HUB_OFFLINE, log in (hf auth login), or pass a folder"
    with _refusals(f"a folder, or a repository {repo_id!r} of the hub", remedy):
        first = Path(hub.snapshot_download(**options, revision=revision, allow_patterns=[MANIFEST_NAME]))
        target = _cache() / repo_id.replace("/", "--") / first.name
        if (target / MANIFEST_NAME).is_file():
            return _verified(target, kind)
        _require_file(first / MANIFEST_NAME, repo_id)
        with create_folder(target) as fresh:
            shutil.copyfile(first / MANIFEST_NAME, fresh / MANIFEST_NAME)
            manifest = read_manifest(fresh)
            _require_size(manifest, max_bytes, repo_id)
            patterns = _patterns(manifest)
            whole = Path(hub.snapshot_download(**options, revision=first.name, allow_patterns=patterns))
            for name in manifest.files:
                _require_file(whole / name, repo_id)
                (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                # The hub's own cache holds links to its blobs; a folder of ours holds files.
                shutil.copyfile(whole / name, fresh / name)
            verify_folder(fresh, kind)
    return target


def require_repo_id(repo_id: str) -> None:
    """Check that ``repo_id`` is a name ``user/name`` as the hub gives them.

    Raises:
        ConfigError: it is not.
    """
    utils = _import_hub().utils
    try:
        utils.validate_repo_id(repo_id)
        if repo_id.count("/") == 1:
            return
        fault = "no user before it"
    except utils.HFValidationError as error:
        fault = str(error).splitlines()[0]
    raise ConfigError(
        compose("a name on the hub, user/name", f"{repo_id!r} ({fault})", "pass such as anna/tiny-set")
    )


def _verified(folder: Path, kind: str) -> Path:
    try:
        verify_folder(folder, kind)
    except IntegrityError as error:
        raise IntegrityError(
            compose(
                f"a sound copy in the cache at {folder}", str(error), "delete that folder, and load again"
            )
        ) from error
    return folder


def _patterns(manifest: Manifest) -> list[str]:
    """Return patterns that match the files of a manifest and nothing else."""
    return [MANIFEST_NAME, *(glob.escape(name) for name in manifest.files)]


def _require_file(path: Path, repo_id: str) -> None:
    if not path.is_file():
        raise DataError(
            compose(
                f"{path.name} in {repo_id!r} on the hub",
                "none, or one that was not fetched before the network was off",
                "pass a repository that push_to_hub wrote, or unset HF_HUB_OFFLINE",
            )
        )


def _require_size(manifest: Manifest, max_bytes: int | None, repo_id: str) -> None:
    if max_bytes is not None and manifest.total_bytes > max_bytes:
        raise DataError(
            compose(
                f"at most {max_bytes:,} bytes in {repo_id!r}", f"{manifest.total_bytes:,}", "raise max_bytes"
            )
        )


def _cache() -> Path:
    root = os.environ.get("AEROGEL_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "aerogel") / "hub"


def _import_hub() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError as missing:
        raise MissingDependencyError(
            compose("the package huggingface_hub", "none", 'pip install "aerogel[condense]"')
        ) from missing
    return huggingface_hub


@contextmanager
def _refusals(expected: str, remedy: str) -> Iterator[None]:
    """Turn what the hub's client raises into errors that say what to do."""
    from huggingface_hub.errors import HfHubHTTPError

    # Its parents are the errors of the client's own transport, whichever that is: no connection is one too.
    refused: tuple[type[Exception], ...] = (*HfHubHTTPError.__bases__, OSError, ValueError)
    try:
        yield
    except AerogelError:
        raise
    except refused as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(compose(expected, f"from the hub: {reason}", remedy)) from error
