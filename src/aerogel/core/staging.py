"""Run the stages of a run: one process leads, the others follow."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aerogel.core.crew import Crew
from aerogel.core.files import write_text_atomic
from aerogel.core.manifests import Manifest, read_manifest
from aerogel.core.stages import CHECKPOINT_NAME, Stage, run_stage
from aerogel.errors import RankError, compose

__all__ = ["TIMINGS", "Staging"]

TIMINGS = "timings.json"
Build = Callable[[Path], Mapping[str, Any]]


@dataclass
class Staging:
    """Hold the folder of a run, how its stages are kept, and those that are done."""

    out: Path
    seed: int
    overwrite: bool = False
    command: str | None = None
    crew: Crew = field(default_factory=Crew)
    done: dict[str, Manifest] = field(default_factory=dict)

    def run(
        self,
        name: str,
        kind: str,
        settings: Mapping[str, Any],
        inputs: Mapping[str, str],
        build: Build,
        *,
        together: bool = False,
    ) -> Manifest:
        """Run one stage once, and return its manifest in every process.

        The first process alone fills the folder; with ``together`` the others call ``build`` as well, when
        and where it does, and must write nothing. The stage's time goes to ``timings.json``, added up where
        a checkpoint was gone on from.

        Raises:
            FolderConflictError: the folder was made with other settings.
            RankError: the first process failed.
        """
        if name not in self.done:
            stage = Stage(self.out / name, kind, settings, inputs, self.seed, self.command)
            self.done[name] = (
                self._follow(stage, build) if self.crew.rank else self._lead(stage, build, together)
            )
        return self.done[name]

    def _lead(self, stage: Stage, build: Build, together: bool) -> Manifest:
        def act(work: Path) -> Mapping[str, Any]:
            begin = time.monotonic()
            begun = CHECKPOINT_NAME in os.listdir(work) and any((work / CHECKPOINT_NAME).iterdir())
            if together:
                self.crew.tell(("build", str(work)))
            try:
                return build(work)
            finally:
                name = stage.folder.relative_to(self.out).as_posix()
                self._note_time(name, time.monotonic() - begin, more=begun)

        try:
            manifest = run_stage(stage, act, overwrite=self.overwrite)
        except Exception as error:
            # The others may be gone already, or elsewhere; the cause is what this process raises.
            with suppress(Exception):
                self.crew.tell(("failed", f"{type(error).__name__}: {error}"))
            raise
        self.crew.tell(("done", ""))
        return manifest

    def _follow(self, stage: Stage, build: Build) -> Manifest:
        while True:
            word, text = self.crew.tell(None)
            if word == "done":
                return read_manifest(stage.folder)
            if word == "failed":
                raise RankError(
                    compose(f"the stage {stage.folder.name} in the first process", text, "look at its error")
                )
            build(Path(text))

    def _note_time(self, name: str, seconds: float, *, more: bool) -> None:
        path = self.out / TIMINGS
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        known[name] = round((known.get(name, 0.0) if more else 0.0) + seconds, 3)
        write_text_atomic(path, json.dumps(known, indent=2, sort_keys=True) + "\n")
