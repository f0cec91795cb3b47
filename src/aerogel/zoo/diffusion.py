"""Draw pictures of named classes with a small diffusion model, in diffusers' own format."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from aerogel.core.progress import is_watched
from aerogel.core.registry import nearest
from aerogel.errors import ConfigError, MismatchError, MissingDependencyError, UnknownNameError, compose
from aerogel.zoo.cards import open_weights

try:
    from diffusers import DiffusionPipeline, ImagePipelineOutput, SchedulerMixin, UNet2DModel
    from diffusers.utils import logging
    from diffusers.utils.torch_utils import randn_tensor
except ImportError as error:
    raise MissingDependencyError(
        compose("diffusers, to draw pictures", str(error), 'pip install "aerogel[parallel]"')
    ) from error

Labels = int | str | Sequence[int | str]
StepCallback = Callable[[Any, int, torch.Tensor, dict[str, Any]], dict[str, Any] | None]

_OUTPUT_TYPES = ("pil", "np", "pt")


class ClassConditionalPipeline(DiffusionPipeline):  # type: ignore[misc]  # a class that mypy skips
    """Draw pictures of classes, with classifier-free guidance (arXiv 2207.12598).

    The network's class embedding has one row more than there are classes: the last one means "no class".
    With ``patch_size`` p, squares of p x p pixels are channels of the network, which then sees pictures of
    S x S pixels as [p*p, S/p, S/p]; latents have that shape.
    """

    model_cpu_offload_seq = "unet"
    _callback_tensor_inputs = ("latents",)

    def __init__(
        self,
        unet: UNet2DModel,
        scheduler: SchedulerMixin,
        class_names: list[str] | None = None,
        patch_size: int = 1,
    ) -> None:
        """Put the parts together.

        Raises:
            MismatchError: the network has no class embedding, or not one for each name and one for none.
        """
        super().__init__()
        embedded = unet.config.num_class_embeds
        names = list(class_names or (str(number) for number in range((embedded or 1) - 1)))
        if embedded != len(names) + 1 or unet.config.in_channels % patch_size**2:
            raise MismatchError(
                compose(
                    f"num_class_embeds={len(names) + 1} and a multiple of {patch_size**2} channels",
                    f"num_class_embeds={embedded} and {unet.config.in_channels} channels",
                    "train it with one embedding more than there are classes, or pass its own class_names",
                )
            )
        self.register_modules(unet=unet, scheduler=scheduler)
        self.register_to_config(class_names=names, patch_size=patch_size)
        self._guidance_scale = 1.0
        self._num_timesteps = 0
        self._interrupt = False

    @property
    def guidance_scale(self) -> float:
        """Return the guidance scale of the current or last call."""
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Tell whether each step asks the network with and without the class."""
        return self._guidance_scale > 1

    @property
    def num_timesteps(self) -> int:
        """Return how often the current or last call asks the network."""
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        """Tell whether a callback has asked to skip the steps that are left, by setting ``_interrupt``."""
        return self._interrupt

    def get_label_ids(self, labels: Labels) -> list[int]:
        """Return the numbers of classes given by number or by name, in capitals or not; one or several.

        Raises:
            UnknownNameError: no class has that name; the nearest one is given.
            ConfigError: a number is out of range, or there are no labels.
        """
        given = [labels] if isinstance(labels, (int, str)) else list(labels)
        if not given:
            raise ConfigError(compose("one class or more", "none", f"choose of {self._list_classes()}"))
        return [self._find_class(label) for label in given]

    def _find_class(self, label: int | str) -> int:
        names: list[str] = self.config.class_names
        if isinstance(label, str):
            folded = [name.casefold() for name in names]
            if label.casefold() in folded:
                return names.index(label) if label in names else folded.index(label.casefold())
            close = nearest(label, names)
            raise UnknownNameError(
                compose(
                    f"the name of a class ({', '.join(names)})",
                    repr(label),
                    f"did you mean {close!r}?" if close else "choose one of the list",
                )
            )
        if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < len(names):
            raise ConfigError(
                compose(
                    f"class numbers from 0 to {len(names) - 1}, or names",
                    repr(label),
                    f"choose of {self._list_classes()}",
                )
            )
        return label

    def _list_classes(self) -> str:
        return ", ".join(f"{number} {name!r}" for number, name in enumerate(self.config.class_names))

    @torch.no_grad()
    def __call__(
        self,
        class_labels: Labels,
        num_inference_steps: int = 50,
        guidance_scale: float = 3.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Draw one picture for each label.

        class_labels: numbers or names of classes.
        guidance_scale: w of arXiv 2207.12598 plus one; at 1 or less the network is asked without guidance.
        latents: the noise to start from, [N, C, S, S] as the network takes it, of variance one.
        output_type: "pil"; "np" for [N, H, W, C] and "pt" for [N, C, H, W], both from 0 to 1.
        callback_on_step_end: called after a step as ``callback(pipe, number, timestep, {"latents": ...})``;
            what it returns as "latents" replaces them.

        Raises:
            UnknownNameError, ConfigError: the arguments ask for something that there is not.
        """
        classes = self.get_label_ids(class_labels)
        self._check(classes, num_inference_steps, output_type, latents, callback_on_step_end_tensor_inputs)
        self._guidance_scale, self._interrupt = guidance_scale, False
        device = self._execution_device
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        if latents is None:
            shape = self._latent_shape(len(classes))
            latents = randn_tensor(shape, generator=generator, device=device, dtype=self.unet.dtype)
        latents = latents.to(device, self.unet.dtype) * self.scheduler.init_noise_sigma
        labels = self._embed(classes, device)
        extra = self._step_arguments(generator)
        timesteps = self.scheduler.timesteps
        self._num_timesteps = len(timesteps)
        with self.progress_bar(total=len(timesteps)) as bar:
            for number, timestep in enumerate(timesteps):
                if self.interrupt:
                    continue
                found = self._predict(latents, timestep, labels)
                latents = self.scheduler.step(found, timestep, latents, **extra, return_dict=False)[0]
                if callback_on_step_end is not None:
                    changed = callback_on_step_end(self, number, timestep, {"latents": latents}) or {}
                    latents = changed.get("latents", latents)
                bar.update()
        images = self._finish(latents, output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _embed(self, classes: list[int], device: torch.device) -> torch.Tensor:
        """Return the network's class labels of one step, those of "no class" first under guidance."""
        labels = torch.tensor(classes, device=device)
        if not self.do_classifier_free_guidance:
            return labels
        return torch.cat([torch.full_like(labels, len(self.config.class_names)), labels])

    def _predict(self, latents: torch.Tensor, timestep: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Ask the network once; move its answer away from the one without a class (eq. 6 of 2207.12598)."""
        guided = self.do_classifier_free_guidance
        seen = torch.cat([latents] * 2) if guided else latents
        seen = self.scheduler.scale_model_input(seen, timestep)
        found: torch.Tensor = self.unet(seen, timestep, class_labels=labels, return_dict=False)[0]
        if not guided:
            return found
        without, given = found.chunk(2)
        return without + self.guidance_scale * (given - without)

    def _step_arguments(self, generator: torch.Generator | list[torch.Generator] | None) -> dict[str, Any]:
        taken = inspect.signature(self.scheduler.step).parameters
        # Guidance leaves -1..1, and noise that does not answer to the clipped picture fills its dark parts.
        wanted = {"generator": generator, "use_clipped_model_output": True}
        return {name: value for name, value in wanted.items() if name in taken}

    def _latent_shape(self, count: int) -> tuple[int, int, int, int]:
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return count, self.unet.config.in_channels, height, width

    def _check(
        self,
        classes: list[int],
        steps: int,
        output_type: str,
        latents: torch.Tensor | None,
        tensor_inputs: Sequence[str],
    ) -> None:
        shape = self._latent_shape(len(classes))
        if output_type not in _OUTPUT_TYPES:
            close = nearest(output_type, _OUTPUT_TYPES)
            remedy = f"did you mean {close!r}?" if close else "choose one of these"
            raise ConfigError(
                compose(f"output_type of {', '.join(_OUTPUT_TYPES)}", repr(output_type), remedy)
            )
        if steps < 1:
            raise ConfigError(compose("one step or more", str(steps), "set num_inference_steps, such as 50"))
        if latents is not None and tuple(latents.shape) != shape:
            raise ConfigError(
                compose(f"latents {list(shape)}", str(list(latents.shape)), "pass one noise for each label")
            )
        if unknown := sorted(set(tensor_inputs) - set(self._callback_tensor_inputs)):
            raise ConfigError(compose("tensor inputs of latents", ", ".join(unknown), "leave them out"))

    def _finish(self, latents: torch.Tensor, output_type: str) -> Any:
        pixels = functional.pixel_shuffle(latents, self.config.patch_size)
        images = (pixels.float() / 2 + 0.5).clamp(0, 1)
        if output_type == "pt":
            return images
        array = images.permute(0, 2, 3, 1).cpu().numpy()
        if output_type == "np":
            return array
        from PIL import Image

        bytes_ = (array * 255).round().astype("uint8")
        return [Image.fromarray(each.squeeze(-1) if each.shape[-1] == 1 else each) for each in bytes_]


def load_pipeline(
    name: str = "aerogel/fashion-unet", *, dtype: torch.dtype = torch.float32
) -> ClassConditionalPipeline:
    """Return the shipped pipeline called ``name``, ready to draw on the CPU.

    Raises:
        UnknownNameError: no such model ships; the nearest name is given.
        MismatchError: the model is no pipeline.
        IntegrityError: the weights are not the ones that the card describes.
    """
    with open_weights(name, "pipeline") as path, quiet_loading():
        pipe: ClassConditionalPipeline = ClassConditionalPipeline.from_pretrained(path.parents[1])
    nn.Module.to(pipe.unet, dtype)  # the pipeline's own `to` warns of modules to keep, and then names none
    return pipe


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Show no bars of loading where nobody watches."""
    watched = is_watched()
    if not watched:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if not watched:
            logging.enable_progress_bar()
