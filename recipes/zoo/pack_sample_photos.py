"""Pack the sample photos that ship in the wheel: six of scikit-image's, free of copyright, as small JPEGs.

    pip download --no-deps scikit-image==0.26.0 && unzip scikit_image-*.whl "skimage/data/*"
    python recipes/zoo/pack_sample_photos.py --source skimage/data --out src/aerogel/zoo/samples

scikit-image's documentation names the terms: astronaut (NASA, public domain), camera (Lav Varshney, CC0),
chelsea (Stefan van der Walt, CC0), coffee (Rachel Michetti, CC0), coins (Brooklyn Museum, no known copyright
restrictions), rocket (SpaceX, CC0).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

NAMES = ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "rocket.jpg")
LONGEST_PX = 480
QUALITY = 88


def main() -> None:
    """Run the recipe from the command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--source", type=Path, required=True, help="scikit-image's folder of data")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        photo = Image.open(arguments.source / name).convert("RGB")
        photo.thumbnail((LONGEST_PX, LONGEST_PX), Image.Resampling.LANCZOS)
        target = arguments.out / f"{Path(name).stem}.jpg"
        photo.save(target, "JPEG", quality=QUALITY, optimize=True)
        print(f"{target.name}: {photo.width}x{photo.height}, {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
