"""A hub in a folder: what stands in for huggingface_hub, and writes down what it is asked."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError


@dataclass
class FakeHub:
    """Keep repositories below ``root`` and snapshots of links below ``cache``, as the hub's client does."""

    root: Path
    cache: Path
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    offline: bool = False

    def install(self, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
        """Take the place of the client."""
        hub = self

        class Api:
            def __init__(self, token: str | None = None) -> None:
                hub.calls.append(("login", {"token": token}))

            def create_repo(self, repo_id: str, **options: Any) -> str:
                hub.calls.append(("create", {"repo_id": repo_id, **options}))
                hub._require_network()
                (hub.root / repo_id).mkdir(parents=True, exist_ok=True)
                return f"https://hub.test/datasets/{repo_id}"

            def upload_folder(self, **options: Any) -> None:
                hub.calls.append(("upload", options))
                place = hub.root / options["repo_id"]
                for path in hub._files(place):
                    if any(fnmatch.fnmatch(path, pattern) for pattern in options["delete_patterns"] or ()):
                        (place / path).unlink()
                for path in hub._files(Path(options["folder_path"])):
                    if any(fnmatch.fnmatch(path, pattern) for pattern in options["allow_patterns"]):
                        (place / path).parent.mkdir(parents=True, exist_ok=True)
                        shutil.copyfile(Path(options["folder_path"]) / path, place / path)
                (place / ".gitattributes").write_text("*.parquet filter=lfs\n", encoding="utf-8")

        monkeypatch.setattr("huggingface_hub.HfApi", Api)
        monkeypatch.setattr("huggingface_hub.snapshot_download", self.download)
        return self

    def download(self, **options: Any) -> str:
        """Link the files that match into a snapshot and return its folder, named after the content."""
        self.calls.append(("download", options))
        place = self.root / options["repo_id"]
        if self.offline:
            known = sorted(self.cache.glob(f"{options['repo_id'].replace('/', '--')}/*"))
            if not known:
                raise LocalEntryNotFoundError("the hub cannot be reached")
            return str(known[0])
        if not place.is_dir():
            raise RepositoryNotFoundError("404: no such repository", response=_Response())
        whole = b"".join((place / name).read_bytes() for name in self._files(place))
        commit = hashlib.sha1(whole).hexdigest()
        assert options["revision"] in (None, commit, "v1")
        snapshot = self.cache / options["repo_id"].replace("/", "--") / commit
        for name in self._files(place):
            link = snapshot / name
            if any(fnmatch.fnmatch(name, each) for each in options["allow_patterns"]) and not link.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(place / name)
        return str(snapshot)

    def asked(self, what: str) -> list[dict[str, Any]]:
        """Return the arguments of the calls of one kind."""
        return [options for name, options in self.calls if name == what]

    def _require_network(self) -> None:
        if self.offline:
            raise ConnectionError("the hub cannot be reached")

    def _files(self, place: Path) -> list[str]:
        found = [Path(parent) / name for parent, _, names in os.walk(place) for name in names]
        return sorted(path.relative_to(place).as_posix() for path in found)


class _Response:
    """The least of an answer that the client's errors look at."""

    headers: dict[str, str] = {}  # noqa: RUF012 - never written to
    request = None
    status_code = 404
