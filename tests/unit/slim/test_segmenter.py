from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from aerogel.errors import DataError
from aerogel.slim.canvas import Canvas
from aerogel.slim.segmenter import Segmenter, evaluating
from tests.unit.slim.stand_ins import IMAGE_PX, rectangles, tiny_sam

POINTS = np.array([[10.0, 12.0], [40.0, 30.0], [63.0, 47.0]])
BOXES = np.array([[2.0, 3.0, 30.0, 40.0], [10.0, 5.0, 60.0, 47.0]])


def test_masks_are_those_of_the_whole_model_and_its_processor() -> None:
    """The same as pixels in, masks out, through transformers' own preparation."""
    from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

    model = tiny_sam().eval()
    photo = rectangles()
    processor = SamImageProcessorPil(
        size={"longest_edge": IMAGE_PX}, pad_size={"height": IMAGE_PX, "width": IMAGE_PX}
    )
    inputs = processor(photo.image, return_tensors="pt")
    encoded = Segmenter(model, Canvas.of(model)).encode(photo.image)
    for kind, prompts, given in (
        ("point", POINTS, {"input_points": torch.from_numpy(POINTS).float()[None, :, None]}),
        ("box", BOXES, {"input_boxes": torch.from_numpy(BOXES).float()[None]}),
    ):
        with torch.no_grad():
            whole = model(inputs["pixel_values"].float(), **given, multimask_output=False)
        theirs = processor.post_process_masks(
            [whole.pred_masks[0]], inputs["original_sizes"], inputs["reshaped_input_sizes"]
        )[0]
        ours = encoded.segment(kind, prompts)
        assert ours.shape == (len(prompts), *photo.size)
        assert ours.dtype == torch.bool
        assert torch.equal(ours, theirs[:, 0])
        assert 0.02 < ours.float().mean() < 0.98


def test_sam_hq_answers_too() -> None:
    model = tiny_sam(family="SamHQ")
    encoded = Segmenter(model, Canvas.of(model)).encode(rectangles().image)
    assert "intermediate_embeddings" in encoded.embeddings
    assert encoded.segment("point", POINTS).shape == (3, 48, 64)


def test_half_precision_models_get_their_own_type() -> None:
    model = tiny_sam().bfloat16()
    encoded = Segmenter(model, Canvas.of(model)).encode(rectangles().image)
    assert encoded.embeddings["image_embeddings"].dtype == torch.bfloat16
    assert encoded.segment("box", BOXES).dtype == torch.bool


def test_each_module_keeps_its_mode() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Dropout()).train()
    model[0].eval()
    with pytest.raises(ZeroDivisionError), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise ZeroDivisionError
    assert [module.training for module in model.modules()] == [True, False, True]


@pytest.mark.parametrize(
    ("logits", "words"),
    [
        (torch.zeros(1, 3, 3, 8, 8), r"pred_masks \[1, 3, 1, h, w\]"),
        (torch.zeros(3, 1, 8, 8), "pred_masks"),
        (torch.full((1, 3, 1, 8, 8), float("nan")), "NaN"),
    ],
)
def test_other_answers_are_refused(logits: torch.Tensor, words: str) -> None:
    class Model:
        def get_image_embeddings(self, pixel_values: torch.Tensor) -> torch.Tensor:
            return pixel_values

        def __call__(self, **given: Any) -> Any:
            return SimpleNamespace(pred_masks=logits)

    encoded = Segmenter(Model(), Canvas(IMAGE_PX)).encode(rectangles().image)
    with pytest.raises(DataError, match=words):
        encoded.segment("point", POINTS)
