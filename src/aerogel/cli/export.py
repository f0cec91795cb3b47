"""`aerogel export`: a segmenter as ONNX, for onnxruntime and the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from aerogel.cli.failures import OK
from aerogel.cli.invocation import read_command
from aerogel.cli.screen import Screen
from aerogel.cli.settings import Flag

EXAMPLES = """Examples:
  aerogel export slim-run/model --out slim-onnx
  aerogel export facebook/sam-vit-base --out sam-onnx --fp16 --quantise
"""


def export_command(
    model: Annotated[str, Parameter(help="A SAM, a slimmed one or a MobileSAM: a folder or hub name.")],
    /,
    *,
    out: Annotated[Path, Parameter(help="Folder to write.")],
    fp16: Annotated[bool, Flag, Parameter(help="Add graphs in half precision.")] = False,
    quantise: Annotated[bool, Flag, Parameter(help="Add graphs with 8-bit weights.")] = False,
    no_boxes: Annotated[bool, Flag, Parameter(help="Leave out the decoder for boxes.")] = False,
    overwrite: Annotated[bool, Flag, Parameter(help="Replace an earlier export at --out.")] = False,
    json: Annotated[bool, Flag, Parameter(help="End with one line of JSON on stdout.")] = False,
) -> int:
    """Write a segmenter as ONNX in two parts, as transformers.js loads it.

    Every graph is run beside the torch model; a float32 graph that answers otherwise
    is refused. The table shows how far the others are.
    """
    from aerogel.export import export_onnx
    from aerogel.measure import format_bytes

    done = export_onnx(
        model,
        out,
        dtype="float16" if fp16 else "float32",
        quantise=quantise,
        boxes=not no_boxes,
        overwrite=overwrite,
        command=read_command(),
    )
    screen = Screen(json_wanted=json)
    sizes = [(name, format_bytes(size)) for name, size in done.files.items()]
    screen.show_table(str(out), ("graph", "size"), sizes, right=("size",))
    screen.say(str(done.parity.table()))
    screen.say(f"export  {done.folder}")
    screen.end(done.to_dict())
    return OK
