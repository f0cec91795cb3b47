"""Noise through the encoder is the disturbed loss's gradient; masks are held against their own signs."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from aerogel.errors import DataError
from aerogel.slim import describe
from aerogel.slim.gates import hang_gates
from aerogel.slim.objectives import Disturbance, OwnMasks, differentiate
from tests.unit.slim.tiny import SIDE, build, pixels


def weights(model: Any) -> dict[str, Tensor]:
    names = ("layers.0.attn.qkv.weight", "layers.1.mlp.lin2.weight", "neck.conv1.weight")
    return {name: model.vision_encoder.get_parameter(name) for name in names}


@pytest.mark.parametrize("noise", [0.01, 0.1])
def test_noise_through_the_encoder_is_the_disturbed_loss(noise: float) -> None:
    model = build()
    image = pixels(count=1)
    objective = Disturbance(model.vision_encoder, seed=5)
    (gradient,) = differentiate(objective, [image], weights(model))

    clean = model.vision_encoder(image).last_hidden_state
    (drawn,) = objective.direct((clean,), 0, 0)
    functional.mse_loss(clean, (clean + noise * drawn).detach()).backward()
    assert gradient.numel == clean.numel() == 32 * 4 * 4
    for name, weight in weights(model).items():
        wanted = -2 * noise / gradient.numel * gradient.values[name]
        assert torch.allclose(weight.grad, wanted, rtol=1e-9, atol=1e-12 * float(wanted.abs().max()))


def test_directions_depend_on_seed_image_and_draw_alone() -> None:
    output = torch.zeros(1, 32, 4, 4, dtype=torch.float64)
    objective = Disturbance(build().vision_encoder, seed=5)

    def draw(*place: int) -> Tensor:
        return objective.direct((output,), *place)[0]

    torch.manual_seed(0)
    first = draw(3, 1)
    torch.manual_seed(1)
    assert torch.equal(first, draw(3, 1))
    others = [draw(3, 0), draw(2, 1), Disturbance(objective.encoder, 6).direct((output,), 3, 1)[0]]
    assert all(float((first * other).mean().abs()) < 0.2 for other in others)
    assert 0.8 < float(first.square().mean()) < 1.2
    assert torch.equal(draw(3, 1).float(), objective.direct((output.float(),), 3, 1)[0])


def test_signs_are_of_size_one() -> None:
    objective = Disturbance(build().vision_encoder, seed=5, law="rademacher")
    (drawn,) = objective.direct((torch.zeros(1, 32, 16, 16),), 0, 0)
    assert set(drawn.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(drawn.mean())) < 0.05


def test_further_outputs_count_as_much_as_the_embedding() -> None:
    model = build("sam_hq", global_attn_indexes=[0, 2])
    objective = Disturbance(model.vision_encoder, seed=5, law="rademacher")
    outputs = objective.observe(pixels(count=1))
    assert [list(each.shape) for each in outputs] == [[1, 32, 4, 4], [1, 4, 4, 24], [1, 4, 4, 24]]
    first, *further = objective.direct(outputs, 0, 0)
    assert float(first.square().mean()) == 1.0
    size = float(outputs[0].detach().square().mean())
    for drawn, output in zip(further, outputs[1:], strict=True):
        # The loss: mean over two blocks of mean squared errors, each in units of the embedding.
        ratio = size / float(output.detach().square().mean())
        wanted = ratio / (2 * output.numel())
        assert float(drawn.square().mean()) / outputs[0].numel() == pytest.approx(wanted)


def test_the_gate_acts_on_what_is_given_out() -> None:
    model = build("sam_hq")
    with hang_gates(model, describe(model).of_kind("embedding")) as gates:
        gate = gates["embedding"]
        _, stream = Disturbance(model.vision_encoder, seed=5, gate=gate).observe(pixels(count=1))
        # Block 1, of three, gives out what its own readers have seen; its last use of the gate is this one.
        with torch.no_grad():
            gate[7] = 0.0
        _, closed = Disturbance(model.vision_encoder, seed=5, gate=gate).observe(pixels(count=1))
    assert float(stream[..., 7].detach().abs().max()) > 0 == float(closed[..., 7].detach().abs().max())


def test_masks_are_held_against_their_own_signs() -> None:
    model = build()
    image = pixels(count=1)
    with torch.no_grad():
        (loss,) = OwnMasks(model).observe(image)
        steps = torch.tensor([8.0, 24.0, 40.0, 56.0], dtype=torch.float64)
        points = torch.cartesian_prod(steps, steps).flip(-1)[None, :, None]
        labels = torch.ones(1, 16, 1, dtype=torch.long)
        logits = model(image, input_points=points, input_labels=labels, multimask_output=False).pred_masks
    assert logits.shape[:3] == (1, 16, 1)
    assert float(loss) == pytest.approx(float(functional.softplus(-logits.abs()).mean()))


def test_points_lie_in_the_photo_and_not_in_its_padding() -> None:
    image = pixels(count=1)
    image[..., 48:, :] = 0
    image[..., 16:] = 0
    points = OwnMasks(build(), side=2)._place(image)
    assert points.tolist() == [[4.0, 12.0], [12.0, 12.0], [4.0, 36.0], [12.0, 36.0]]
    nothing = OwnMasks(build(), side=1)._place(torch.zeros(1, 3, SIDE, SIDE))
    assert nothing.tolist() == [[SIDE / 2, SIDE / 2]]


def test_derivatives_that_are_not_finite_are_refused_with_the_images_number() -> None:
    model = build()
    images = [*pixels(count=2).split(1), torch.full((1, 3, SIDE, SIDE), torch.inf, dtype=torch.float64)]
    objective = Disturbance(model.vision_encoder, seed=0)
    with pytest.raises(DataError, match="image 2, counted from 0"):
        list(differentiate(objective, images, weights(model)))
    with pytest.raises(DataError, match="at least one image"):
        list(differentiate(objective, [], weights(model)))


def test_a_graph_is_gone_before_the_next_image_is_asked_for() -> None:
    model = build()
    outputs: list[Any] = []
    hook = model.vision_encoder.neck.conv1.register_forward_hook(
        lambda _, args, output: outputs.append(weakref.ref(output))
    )
    alive: list[bool] = []

    def images() -> Iterator[Tensor]:
        for image in pixels(count=3).split(1):
            alive.append(any(each() is not None for each in outputs))
            yield image

    objective = Disturbance(model.vision_encoder, seed=0, draws=2)
    during = [outputs[-1]() is not None for _ in differentiate(objective, images(), weights(model))]
    hook.remove()
    # The first of two draws keeps the graph for the second, which frees it.
    assert during == [True, False] * 3 and len(outputs) == 3 and alive == [False] * 3


def test_no_gradient_is_left_behind_and_outputs_out_of_reach_are_left_out() -> None:
    model = build("sam_hq")
    reader = model.mask_decoder.compress_vit_conv1.weight
    inputs = {**weights(model), "reader": reader}
    (gradient,) = differentiate(Disturbance(model.vision_encoder, seed=0), [pixels(count=1)], inputs)
    assert gradient.values.keys() == weights(model).keys()
    assert all(each.grad is None for each in model.parameters())
