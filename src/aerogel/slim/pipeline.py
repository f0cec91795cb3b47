"""Run the phases of a slimming in order, each into folders of its own that survive a kill."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor

from aerogel.core.config import to_dict
from aerogel.core.devices import choose_device, choose_dtype
from aerogel.core.folders import write_bytes_atomic
from aerogel.core.manifests import Manifest
from aerogel.core.progress import announce, track
from aerogel.core.randomness import derive_seed
from aerogel.core.stages import CHECKPOINT_NAME
from aerogel.core.staging import Staging
from aerogel.errors import MismatchError, compose
from aerogel.slim.alignment import align
from aerogel.slim.archive import KIND, write_model
from aerogel.slim.channels import Group, Kind
from aerogel.slim.checkpoint import read_epochs
from aerogel.slim.config import AlignConfig, SlimConfig
from aerogel.slim.exhibits import KIND as EXHIBITS_KIND
from aerogel.slim.exhibits import write_exhibits
from aerogel.slim.families import describe, find_family
from aerogel.slim.faults import change_temperature_, forget_positions_, forget_weights_
from aerogel.slim.importance import score_channels
from aerogel.slim.lesson import Lesson
from aerogel.slim.phases import MASKS_STAGE, PHASES, list_alignings
from aerogel.slim.plan import Plan, identity_plan, load_plan
from aerogel.slim.planning import make_plan
from aerogel.slim.reconstruction import measure_photo, reconstruct_
from aerogel.slim.rotation import rotate_embedding_, rotate_heads_
from aerogel.slim.run_folder import EXHIBITS, MODEL, PLAN, SCORES, WEIGHTS, require_method
from aerogel.slim.sources import Sources
from aerogel.slim.subset import score_mlps, weigh_shares
from aerogel.slim.surgery import apply_plan
from aerogel.slim.widths import Widths, derive_widths
from aerogel.zoo.launch import join_crew

# What the tokens of photos may take in memory while layers are fitted.
_FIT_BYTES = 2 * 2**30


class Pipeline:
    """Slim the teacher of ``sources`` into ``out``, stage by stage.

    Finished stages are opened, interrupted ones go on. The teacher is not changed. Where accelerate started
    several processes, each makes the same calls; the aligning is shared, the rest is the first one's.
    """

    def __init__(
        self,
        config: SlimConfig,
        sources: Sources,
        out: Path,
        *,
        overwrite: bool = False,
        command: str | None = None,
        teacher_cache: Path | None = None,
    ) -> None:
        """Check that the widths and the layout fit the model, before any work.

        What the teacher makes of photos is kept in ``teacher_cache``, which other runs may share.

        Raises:
            ConfigError: a ratio leaves no channel, or a head count does not fit.
            MismatchError: the model cannot take the layout, or has no decoder of masks to learn.
            FolderConflictError: ``out`` holds what another method made, and ``overwrite`` is off.
        """
        self.config, self.sources, self.out = config, sources, out
        self.widths = derive_widths(
            sources.channels, config.ratio, mlp_ratio=config.mlp_ratio, heads=config.heads
        )
        find_family(sources.teacher).require_layout(sources.teacher, "flex")
        device = choose_device(config.device)
        announce(f"device: {device.value} ({device.reason})")
        self.device = device.value
        phases = PHASES[config.method]
        if not config.score.rescore:
            phases = tuple(replace(each, rounds=(sum(each.rounds, ()),)) for each in phases)
        self.phases = phases
        if not overwrite:
            method = f"{config.method}, which learned masks" if config.masks.epochs else config.method
            require_method(out, [stage for stage, _ in list_alignings(config)], method)
        if config.masks.epochs and not hasattr(sources.teacher, "mask_decoder"):
            got, remedy = type(sources.teacher).__name__, "pass the whole model, or set masks.epochs to 0"
            raise MismatchError(compose("a model with a mask decoder, to learn masks", got, remedy))
        crew = join_crew(self.device)
        self._staging = Staging(out, config.seed, overwrite, command, crew)
        self._teacher_cache = teacher_cache
        self._models: dict[int, Any] = {}
        self._rotated: dict[int, Any] = {}

    @property
    def leads(self) -> bool:
        """Tell whether this process writes what the run leaves behind; of several, only the first does."""
        return self._staging.crew.rank == 0

    @cached_property
    def _half(self) -> bool:
        return choose_dtype(self.config.align.dtype, self.device).value == "bfloat16"

    @cached_property
    def teacher(self) -> Any:
        """Return the teacher, or a copy of it where it is elsewhere or not in float32."""
        return self.sources.place_teacher(self.device)

    def slim(self, phases: int | None = None) -> Any:
        """Return the model after the first ``phases``, by default the finished one, which learned masks too.

        The teacher is after none.
        """
        if phases is None:
            return self._finished
        if phases == 0:
            return self.teacher
        if phases not in self._models:
            self._models[phases] = self._align(phases - 1)
        return self._models[phases]

    def plan(self, phases: int | None = None) -> Plan:
        """Return what the first ``phases`` cut, by default all, as one plan in the teacher's numbering.

        Where models are rotated before they are cut, the numbers are those of their new channels.
        What comes before the last of them is run where needed; nothing is aligned after the last plan.
        """
        count = len(self.phases) if phases is None else phases
        whole = identity_plan(self.sources.channels)
        for number in range(count):
            whole = whole.then(self._plan(number))
        return whole

    def finish(self) -> Manifest:
        """Write the slimmed model as transformers saves it, with its plan and card; return the manifest."""
        student, plan = self.slim(), self.plan()
        settings = {"dtype": self.config.dtype, "layout": self.config.layout}
        inputs = {
            **self.sources.digests,
            **{stage: self._staging.done[stage].digest for stage, _ in list_alignings(self.config)},
        }

        def build(work: Path) -> Mapping[str, Any]:
            return write_model(student, self.teacher, plan, self.sources, self.config, work)

        return self._staging.run(MODEL, KIND, settings, inputs, build)

    def exhibit(self) -> Manifest:
        """Draw the masks before and after on photos that were kept back, and time both encoders."""
        inputs = {"model": self.finish().digest, "held_out": self.sources.digests["held_out"]}

        def build(work: Path) -> Mapping[str, Any]:
            return write_exhibits(self.slim(), self.teacher, self.sources.held_out, work)

        return self._staging.run(EXHIBITS, EXHIBITS_KIND, {}, inputs, build)

    def _rotate(self, number: int) -> Any:
        """Return the model that a phase begins with, in a basis in which few channels say most of it."""
        if number in self._rotated:
            return self._rotated[number]
        phase, config, model = self.phases[number], self.config, self.slim(number)
        cut = set(sum(phase.rounds, ())).intersection(("embedding", "head_dims"))
        kinds = sorted(
            {group.kind for group in describe(model).groups if group.kind in cut and self._narrows(group)}
        )
        if not config.rotate.photos or not kinds or config.start == "random":
            return model
        turned = copy.deepcopy(model)

        def build(work: Path) -> Mapping[str, Any]:
            images = partial(self._draw, config.rotate.photos, "looking for a basis")
            lost: list[float] = []
            if "embedding" in kinds and self.widths.embedding is not None:
                lost = rotate_embedding_(turned, self.widths.embedding, images(), half=self._half)
            if "head_dims" in kinds:
                rotate_heads_(turned, images(), half=self._half)
            self._write_weights(turned, work)
            return {"lost": lost}

        settings = {
            "rotate": to_dict(config.rotate),
            "widths": {kind: self.widths.get(kind) for kind in kinds},
            "dtype": config.align.dtype,
        }
        self._staging.run(phase.rotate_stage, "slim-weights", settings, self._inputs(number), build)
        turned.load_state_dict(load_file(self.out / phase.rotate_stage / WEIGHTS), strict=False)
        self._rotated[number] = turned.eval()
        return turned

    def _narrows(self, group: Group) -> bool:
        return self.widths.get(group.kind) not in (None, group.size)

    def _plan(self, number: int) -> Plan:
        """Choose the channels that a phase keeps, by scores of the model that it begins with."""
        phase, config = self.phases[number], self.config
        model = self._rotate(number)

        def build(work: Path) -> Mapping[str, Any]:
            whole = identity_plan(describe(model))
            scores: dict[str, Tensor] = {}
            for place, kinds in enumerate(phase.rounds):
                # What a round cut is gone before the next is scored, which the published code does not do.
                cut = self._cut(model, whole)
                found = self._score(cut, kinds, f"{phase.cuts}/{place}")
                scores |= found
                wanted = Widths(**{kind: self.widths.get(kind) for kind in kinds})
                last = number == len(self.phases) - 1 and place == len(phase.rounds) - 1
                whole = whole.then(
                    make_plan(
                        describe(cut),
                        found,
                        wanted,
                        ranking=config.ranks_by,
                        normalizer=config.score.compares_by,
                        layout=config.layout if last else None,
                    )
                )
            write_bytes_atomic(work / SCORES, save(scores))
            whole.save(work / PLAN)
            return {"widths": whole.widths, "plan": whole.digest}

        settings = {
            "score": to_dict(config.score),
            "matches_mlps": config.matches_mlps,
            "surgery": to_dict(config.surgery),
            "widths": asdict(self.widths),
            "layout": config.layout,
            "rounds": phase.rounds,
        }
        inputs = self._inputs(number)
        if phase.rotate_stage in self._staging.done:
            inputs["rotated"] = self._staging.done[phase.rotate_stage].digest
        self._staging.run(phase.plan_stage, "slim-plan", settings, inputs, build)
        return load_plan(self.out / phase.plan_stage / PLAN)

    def _align(self, number: int) -> Any:
        """Cut the model that a phase begins with, and align what is left."""
        phase, config = self.phases[number], self.config
        plan, before = self._plan(number), self._rotate(number)
        student = self._fit(number, plan)
        by = config.align_by(phase.lesson)

        def build(work: Path) -> Mapping[str, Any]:
            if config.start == "random":
                forget_weights_(student, derive_seed(config.seed, "start"))
            lesson = Lesson(phase.lesson, self.teacher, before if phase.lesson == "embedding" else None)
            return self._teach(student, lesson, by, work)

        settings = {
            "align": by.identify(),
            "surgery": to_dict(config.surgery),
            "start": config.start,
            "lesson": phase.lesson,
        }
        inputs = {**self._inputs(number), "plan": self._staging.done[phase.plan_stage].digest}
        if phase.fit_stage in self._staging.done:
            inputs["start"] = self._staging.done[phase.fit_stage].digest
        self._staging.run(phase.align_stage, "slim-weights", settings, inputs, build, together=True)
        student.load_state_dict(load_file(self.out / phase.align_stage / WEIGHTS), strict=False)
        return student.eval()

    @cached_property
    def _finished(self) -> Any:
        """Return the model after all phases, taught the teacher's masks if that is on."""
        config, aligned = self.config, self.slim(len(self.phases))
        if not config.masks.epochs:
            return aligned
        student, by = copy.deepcopy(aligned), config.align_by("masks")

        def build(work: Path) -> Mapping[str, Any]:
            return self._teach(student, Lesson("masks", self.teacher, masks=config.masks), by, work)

        settings = {"align": by.identify(), "masks": to_dict(config.masks)}
        self._staging.run(
            MASKS_STAGE, "slim-weights", settings, self._inputs(len(self.phases)), build, together=True
        )
        student.load_state_dict(load_file(self.out / MASKS_STAGE / WEIGHTS), strict=False)
        return student.eval()

    def _teach(self, student: Any, lesson: Lesson, config: AlignConfig, work: Path) -> dict[str, Any]:
        """Align a student, and write its weights into ``work``; return the losses for the manifest."""
        photos, seed = self.sources.photos, derive_seed(self.config.seed, "align", lesson.phase)
        cache = self._teacher_cache
        run = align(student, lesson, photos, config, seed=seed, device=self.device, work=work, cache=cache)
        steps = config.epochs * -(-len(photos) // config.batch_size)
        # Closed at once, also after an error: until then the loop has its hooks and modes on the models.
        with closing(run):
            for _ in track(run, total=steps, label=f"aligning by the {lesson.phase}", unit="step"):
                pass
        if self.leads:
            self._write_weights(student, work, decoder=lesson.phase == "masks")
        return {"losses": read_epochs(work / CHECKPOINT_NAME)}

    def _fit(self, number: int, plan: Plan) -> Any:
        """Cut the model that a phase begins with; fit what is left to what was there, if that is on."""
        phase, config = self.phases[number], self.config.reconstruct
        before = self._rotate(number)
        student = self._cut(before, plan)
        if not config.photos or plan.is_identity or self.config.start == "random":
            return student

        def build(work: Path) -> Mapping[str, Any]:
            most = max(1, _FIT_BYTES // measure_photo(student, before))
            count = min(config.photos, most, len(self.sources.photos))
            watched = self._draw(count, "looking at what is to be fitted")
            errors = reconstruct_(student, before, plan, watched, ridge=config.ridge, half=self._half)
            self._write_weights(student, work)
            return {"photos": count, "errors": [round(error, 6) for error in errors]}

        settings = {
            "reconstruct": to_dict(config),
            "surgery": to_dict(self.config.surgery),
            "dtype": self.config.align.dtype,
        }
        inputs = {**self._inputs(number), "plan": self._staging.done[phase.plan_stage].digest}
        self._staging.run(phase.fit_stage, "slim-weights", settings, inputs, build)
        student.load_state_dict(load_file(self.out / phase.fit_stage / WEIGHTS), strict=False)
        return student

    def _write_weights(self, model: Any, work: Path, *, decoder: bool = False) -> None:
        """Write the encoder and what reads its residual stream from outside, or all of the mask decoder."""
        channels = self.sources.channels
        touched = {axis.parameter for group in channels.groups for axis in group.axes}
        tensors = {
            name: value.detach().cpu().contiguous()
            for name, value in model.state_dict().items()
            if name.startswith(channels.encoder)
            or name in touched
            or (decoder and name.startswith("mask_decoder."))
        }
        write_bytes_atomic(work / WEIGHTS, save(tensors))

    def _score(self, model: Any, kinds: Sequence[Kind], stream: str) -> dict[str, Tensor]:
        config = self.config
        score, seed = config.score, derive_seed(config.seed, "score", stream)
        matched, competing = config.matches_mlps and "mlp" in kinds, config.ranks_by != "local"
        shares: dict[str, Tensor] = {}
        if matched:
            # Where blocks compete, one of them may keep more than the mean.
            most = None if competing else self.widths.mlp
            watched = self._draw(score.photos, "matching mlp")
            shares = score_mlps(model, watched, most=most, half=self._half)
            kinds = [kind for kind in kinds if kind != "mlp" or competing]
        found: dict[str, Tensor] = {}
        if kinds:
            watched = self._draw(score.photos, f"scoring {', '.join(kinds)}")
            found = score_channels(model, watched, score.criterion, seed=seed, draws=score.draws, kinds=kinds)
        return found | (weigh_shares(shares, found) if competing else shares)

    def _draw(self, most: int, label: str) -> Iterator[Tensor]:
        count = min(most, len(self.sources.photos))
        images = self.sources.draw_images(count, self.config.seed, self.device)
        return track(images, total=count, label=label, unit="photo")

    def _cut(self, model: Any, plan: Plan) -> Any:
        """Return a copy of the model with what the plan keeps; faults that were asked for are put back."""
        student, surgery = apply_plan(model, plan), self.config.surgery
        if not surgery.temperature:
            change_temperature_(student, plan)
        if not surgery.positions and not plan.is_identity:
            forget_positions_(student)
        return student

    def _inputs(self, number: int) -> dict[str, str]:
        if number == 0:
            return dict(self.sources.digests)
        return {
            **self.sources.digests,
            "model": self._staging.done[self.phases[number - 1].align_stage].digest,
        }
