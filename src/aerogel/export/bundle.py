"""What lies beside the graphs: the two configs that transformers.js reads, and a card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aerogel.core.files import write_text_atomic
from aerogel.export.graphs import BOX_FOLDER
from aerogel.export.subject import read_side
from aerogel.measure.units import format_bytes

_CARD = """---
library_name: transformers.js
pipeline_tag: mask-generation
---

# A segmenter as ONNX, in two parts

The image encoder runs once for a photo, the decoder once for its prompts. The licence is that of the model
that it was made from.

| file | size |
|---|---|
{files}

```js
import {{ AutoProcessor, RawImage, SamModel }} from '@huggingface/transformers';

const model = await SamModel.from_pretrained(here, {{ dtype: 'fp32' }});
const processor = await AutoProcessor.from_pretrained(here);
const image = await RawImage.read(photo);
const inputs = await processor(image, {{ input_points: [[[450, 600]]] }});
const {{ pred_masks, iou_scores }} = await model(inputs);
const masks = await processor.post_process_masks(
  pred_masks, inputs.original_sizes, inputs.reshaped_input_sizes,
);
```
"""
_BOXES = """
For boxes:

```js
const model = await SamModel.from_pretrained(here, {{ dtype: 'fp32', subfolder: '{folder}' }});
const inputs = await processor(image, {{ input_boxes: [[[650, 900, 1000, 1250]]] }});
const outputs = await model({{ ...inputs, input_labels: inputs.input_boxes }});
```

`input_labels` is not used; transformers.js would look for points without it.
"""


def write_configs(model: Any, folder: Path) -> None:
    """Write ``config.json`` and ``preprocessor_config.json``, in the words that transformers.js knows."""
    _write_json(folder / "config.json", describe_model(model))
    _write_json(folder / "preprocessor_config.json", describe_processor(read_side(model)))


def describe_model(model: Any) -> dict[str, Any]:
    """Return the config of a plain SAM with the same inputs and outputs; widths are in the graphs alone."""
    config: Any = model.config
    prompts, decoder = config.prompt_encoder_config, config.mask_decoder_config
    return {
        "architectures": ["SamModel"],
        "model_type": "sam",
        "vision_config": {
            "model_type": "sam_vision_model",
            "image_size": read_side(model),
            "patch_size": prompts.patch_size,
            "output_channels": prompts.hidden_size,
        },
        "prompt_encoder_config": {
            "hidden_size": prompts.hidden_size,
            "image_size": prompts.image_size,
            "patch_size": prompts.patch_size,
        },
        "mask_decoder_config": {
            "hidden_size": decoder.hidden_size,
            "num_multimask_outputs": decoder.num_multimask_outputs,
        },
    }


def describe_processor(side: int) -> dict[str, Any]:
    """Return how photos are prepared: the long side to ``side`` pixels, normalised, filled up with zeros."""
    from transformers import SamImageProcessorPil

    processor = SamImageProcessorPil(
        size={"longest_edge": side},
        pad_size={"height": side, "width": side},
        mask_size={"longest_edge": side // 4},
        mask_pad_size={"height": side // 4, "width": side // 4},
        do_convert_rgb=True,
    )
    fields: dict[str, Any] = json.loads(processor.to_json_string())
    return fields | {"image_processor_type": "SamImageProcessor", "processor_class": "SamProcessor"}


def write_card(folder: Path, sizes: Mapping[str, int], *, boxes: bool) -> None:
    """Write the card of the folder: what lies in it, and how it is loaded."""
    rows = "\n".join(f"| `{name}` | {format_bytes(size)} |" for name, size in sizes.items())
    text = _CARD.format(files=rows) + (_BOXES.format(folder=BOX_FOLDER) if boxes else "")
    write_text_atomic(folder / "README.md", text)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_text_atomic(path, json.dumps(content, indent=2, sort_keys=True) + "\n")
