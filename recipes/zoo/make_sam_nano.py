"""Make the segmenter that ships in the wheel: the zoo's small SAM, slimmed by this library.

    python recipes/zoo/make_sam_nano.py --small runs/sam-small/model --data FOLDER \
        --work runs/sam-nano --out src/aerogel/zoo/weights/sam-nano

--small is what train_sam_small.py wrote; FOLDER holds photos/imagenet-samples.parquet, whose labels are not
read. The settings are those of sam_nano.yaml beside this file. The work folder is that of the slimming, with
its report: a killed run goes on where it was. Writes a SamModel in fp16, config.json and model.safetensors,
as a whole folder or not at all, and ends its output with what its card states, as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch

from aerogel.core.allocation import keep_memory
from aerogel.core.config import load_config
from aerogel.core.files import sha256_file
from aerogel.core.folders import create_folder, require_replaceable
from aerogel.errors import DataError, compose
from aerogel.measure import count_parameters
from aerogel.slim import SlimConfig, Slimmed, slim
from aerogel.slim.run_folder import MODEL
from aerogel.zoo import open_photos

HERE = Path(__file__).parent
CONFIG, WEIGHTS = "config.json", "model.safetensors"
MOST_BYTES = 14_000_000


def read_settings() -> SlimConfig:
    """Return the settings of the slimming."""
    return load_config(SlimConfig, HERE / "sam_nano.yaml")


def write_segmenter(slimmed: Slimmed, out: Path) -> dict[str, int | str]:
    """Write config and weights of a slimmed model to ``out``; return what its card states.

    Raises:
        DataError: they take more than 14 MB; ``out`` is as before.
        FolderExistsError: there is something at ``out``.
    """
    with create_folder(out) as fresh:
        for name in (CONFIG, WEIGHTS):
            shutil.copyfile(slimmed.folder / MODEL / name, fresh / name)
        size = sum((fresh / name).stat().st_size for name in (CONFIG, WEIGHTS))
        if size > MOST_BYTES:
            raise DataError(
                compose(
                    f"a segmenter of at most {MOST_BYTES:,} bytes",
                    f"{size:,}",
                    "raise the ratio in sam_nano.yaml, and take another --work folder",
                )
            )
    return {
        "parameters": int(count_parameters(slimmed.model).value),
        "size_bytes": size,
        "sha256": sha256_file(out / WEIGHTS),
    }


def main() -> None:
    """Run the recipe from the command line."""
    keep_memory()
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--small", type=Path, required=True, help="folder of sam-small")
    parser.add_argument("--data", type=Path, required=True, help="folder of the photos")
    parser.add_argument("--work", type=Path, required=True, help="folder of the slimming")
    parser.add_argument("--out", type=Path, required=True, help="folder of the finished model")
    parser.add_argument("--threads", type=int, default=1, help="of this process")
    arguments = parser.parse_args()
    require_replaceable(arguments.out, overwrite=False)
    torch.set_num_threads(arguments.threads)
    source = arguments.data / "photos" / "imagenet-samples.parquet"
    photos = open_photos(source, image_column="image", check="header")
    slimmed = slim(str(arguments.small), photos, config=read_settings(), out=arguments.work)
    slimmed.report()
    print(json.dumps(write_segmenter(slimmed, arguments.out)))


if __name__ == "__main__":
    main()
