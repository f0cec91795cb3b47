"""Every step is answered once, at the times that the paper says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aerogel.errors import ConfigError
from aerogel.parallel.rounds import Round, Stride2, plan_rounds, predict_speedup


def warm(step: int) -> Round:
    return Round((step,), fresh=True, body=step)


def single(step: int, body: int | None = None) -> Round:
    return Round((step,), fresh=False, body=step if body is None else body)


def double(step: int, *, shift: int = 0, repeated: bool = False) -> Round:
    times = step - shift, step + 1 - shift
    return Round((step, step + 1), fresh=False, body=times[1], tails=times[:1], repeated=repeated)


@pytest.mark.parametrize(
    ("steps", "warmup", "stride", "shift", "expected"),
    [
        (6, 1, 1, False, [warm(0), single(1), single(2), single(3), single(4), single(5)]),
        (6, 1, 2, False, [warm(0), double(1), double(3), single(5)]),
        (7, 2, 2, False, [warm(0), warm(1), double(2), double(4), single(6)]),
        (6, 2, 2, False, [warm(0), warm(1), double(2), double(4)]),
        (5, 2, 1, True, [warm(0), warm(1), single(2, 1), single(3, 2), single(4, 3)]),
        (6, 1, 2, True, [warm(0), double(1, shift=1), double(3, shift=1), single(5, 4)]),
        (3, 3, 1, False, [warm(0), warm(1), warm(2)]),
        (3, 3, 2, True, [warm(0), warm(1), warm(2)]),
        (2, 9, 1, False, [warm(0), warm(1)]),
        (1, 1, 2, False, [warm(0)]),
    ],
)
def test_rounds_by_hand(steps: int, warmup: int, stride: int, shift: bool, expected: list[Round]) -> None:
    assert plan_rounds(steps, warmup=warmup, stride=stride, time_shift=shift) == tuple(expected)


def test_a_shift_gives_the_times_of_the_paper() -> None:
    """{50, 49, 49, 48, ..., 2} for 50 steps and a warm-up of 2 (appendix of arXiv 2406.06911)."""
    found = [50 - each.body for each in plan_rounds(50, warmup=2, stride=1, time_shift=True)]
    assert found == [50, 49, *range(49, 1, -1)]


def test_the_published_stride_repeats_the_first_answer() -> None:
    found = plan_rounds(7, warmup=2, stride=2, stride2="published")
    assert found == (warm(0), warm(1), double(2, repeated=True), double(4, repeated=True), single(6))
    assert plan_rounds(7, warmup=2, stride=1, stride2="published") == plan_rounds(7, warmup=2, stride=1)


@pytest.mark.parametrize("stride2", ["paper", "published"])
@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("warmup", range(1, 6))
def test_every_step_is_answered_once(warmup: int, stride: int, shift: bool, stride2: Stride2) -> None:
    for steps in range(1, 21):
        found = plan_rounds(steps, warmup=warmup, stride=stride, time_shift=shift, stride2=stride2)
        assert [step for each in found for step in each.steps] == list(range(steps))
        first, rest = found[: min(warmup, steps)], found[min(warmup, steps) :]
        assert all(each == warm(step) for step, each in enumerate(first))
        assert not any(each.fresh for each in rest)
        assert all(len(each.steps) == stride for each in rest[:-1])
        for each in rest:
            assert (*each.tails, each.body) == tuple(step - shift for step in each.steps)
            assert each.repeated == (stride2 == "published" and len(each.steps) == 2)


@pytest.mark.parametrize(
    ("planned", "text"),
    [
        (warm(3), "step 3: warm-up"),
        (single(4), "step 4: in parallel, at the times of 4"),
        (double(4), "steps 4, 5: in parallel, at the times of 4, 5"),
        (double(4, shift=1), "steps 4, 5: in parallel, at the times of 3, 4"),
    ],
)
def test_a_round_is_one_line(planned: Round, text: str) -> None:
    assert str(planned) == text


@pytest.mark.parametrize(
    ("steps", "warmup", "stride", "said"),
    [
        (0, 1, 1, r"expected 1 denoising step or more; got 0; what to do: raise num_inference_steps"),
        (-3, 1, 1, r"got -3; what to do"),
        (5, 0, 1, r"expected a warm-up of 1 step or more, .*; got 0; what to do: pass warmup=1"),
        (5, -1, 2, r"warm-up .* got -1;"),
        (5, 1, 3, r"expected a stride of 1 or 2; got 3; what to do: pass stride=1"),
        (5, 1, 0, r"stride of 1 or 2; got 0;"),
    ],
)
def test_numbers_out_of_range_are_refused(steps: int, warmup: int, stride: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan_rounds(steps, warmup=warmup, stride=stride)


@pytest.mark.parametrize(
    ("steps", "warmup", "bounds"),
    [
        (50, 1, (1.96, 2.88, 3.77, 7.02, 3.70, 5.36, 10.9)),
        (50, 3, (1.89, 2.68, 3.39, 5.63, 3.33, 4.55, 7.78)),
        (50, 9, (1.69, 2.21, 2.60, 3.54, 2.56, 3.12, 4.17)),
        (28, 3, (1.81, 2.47, 3.03, 4.57, 2.95, 3.82, 5.76)),
    ],
)
def test_predictions_are_the_bounds_of_a_balanced_division(
    steps: int, warmup: int, bounds: tuple[float, ...]
) -> None:
    """For N components and a stride S: N2S1, N3S1, N4S1, N8S1, N2S2, N3S2 and N7S2."""
    settings = [(2, 1), (3, 1), (4, 1), (8, 1), (2, 2), (3, 2), (7, 2)]
    for (components, stride), bound in zip(settings, bounds, strict=True):
        found = predict_speedup(steps, warmup=warmup, stride=stride, slowest_share=1 / components)
        assert found == pytest.approx(bound, abs=0.051 if bound > 10 else 0.0051)


@pytest.mark.parametrize(
    ("steps", "warmup", "stride", "share", "overhead", "expected"),
    [
        (10, 2, 1, 0.5, 0.0, 10 / (2 + 8 * 0.5)),
        (10, 2, 1, 0.5, 0.125, 10 / (2 + 8 * 0.625)),
        (11, 2, 2, 0.5, 0.25, 11 / (2 + 5 * 0.75)),
        (10, 10, 1, 0.5, 0.3, 1.0),
        (10, 99, 2, 0.5, 0.3, 1.0),
        (10, 1, 1, 1.0, 1.0, 10 / 19),
    ],
)
def test_predictions_by_hand(
    steps: int, warmup: int, stride: int, share: float, overhead: float, expected: float
) -> None:
    found = predict_speedup(steps, warmup=warmup, stride=stride, slowest_share=share, overhead_share=overhead)
    assert found == pytest.approx(expected, rel=1e-12)


@given(st.integers(1, 60), st.integers(1, 70), st.sampled_from([1, 2]), st.floats(0.01, 1), st.floats(0, 1))
def test_predictions_count_the_planned_rounds(
    steps: int, warmup: int, stride: int, share: float, overhead: float
) -> None:
    rounds = plan_rounds(steps, warmup=warmup, stride=stride)
    cost = sum(1.0 if each.fresh else share + overhead for each in rounds)
    found = predict_speedup(steps, warmup=warmup, stride=stride, slowest_share=share, overhead_share=overhead)
    assert found == pytest.approx(steps / cost)
