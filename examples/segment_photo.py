"""Segment a photo by a point and by a box, and draw both masks over it.

    python examples/segment_photo.py [MODEL]

MODEL is the segmenter that ships if not given; the folder "model" of a run of `aerogel slim` will do, or
"slim-sam" of slim_photos.py, and so will any SAM of transformers. Writes segmented.png: on the left the mask
of the point.
"""

from __future__ import annotations

import sys

import numpy as np
from PIL import Image

from aerogel.slim import Canvas, Segmenter, open_model
from aerogel.zoo import open_photos

COFFEE = np.array([[232.0, 120.0]])  # x and y of a point on the coffee
CUP = np.array([[136.0, 13.0, 328.0, 246.0]])  # left, top, right and bottom of the cup

model = open_model(sys.argv[1] if len(sys.argv) > 1 else "aerogel/sam-nano")
photo = next(each for each in open_photos("aerogel/samples") if each.identifier == "coffee.jpg")

encoded = Segmenter(model, Canvas.of(model)).encode(photo.image)  # once for all prompts
masks = {
    "point": encoded.segment("point", COFFEE)[0].numpy(),
    "box": encoded.segment("box", CUP)[0].numpy(),
}
blue = np.array([40, 90, 255])
pictures = []
for prompt, mask in masks.items():
    print(f"{prompt}: {100 * mask.mean():.1f} % of the photo")
    pictures.append(np.where(mask[..., None], 0.45 * photo.image + 0.55 * blue, photo.image))
Image.fromarray(np.concatenate(pictures, axis=1).round().astype(np.uint8)).save("segmented.png")
print("segmented.png")
