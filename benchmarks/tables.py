"""Write the tables of README and docs from the committed results, so that no figure is typed by hand.

python benchmarks/tables.py            # rewrite the pages
python benchmarks/tables.py --check    # exit with 1 if a page differs from the results
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/condense.md")
NAMES = {
    "hard": "hard labels",
    "one_per_image": "one soft label per image",
    "full_labels": "full soft labels, fp16",
    "generator": "**label generator**",
    "teacher": "teacher online, fp16",
    "random_real_full_labels": "random images, full soft labels",
}


def tabulate_fashion(found: dict[str, Any]) -> str:
    """Return the Fashion-MNIST table: accuracy and bytes of every kind of labels, per number of images."""
    figures = found["figures"]
    settings = sorted(figures, key=lambda name: int(name.removeprefix("ipc")))
    heads = [f"{name.removeprefix('ipc')} per class | bytes" for name in settings]
    lines = [f"| labels | {' | '.join(heads)} |", "|---|" + "---:|" * (2 * len(settings))]
    for key, label in NAMES.items():
        if not any(key in figures[name] for name in settings):
            continue
        cells = []
        for name in settings:
            row = figures[name].get(key)
            cells.append(f"{row['mean']:.1f} ± {row['std']:.1f}" if row else "not run")
            cells.append(f"{figures[name]['bytes'][key]:,}" if row else "")
        lines.append(f"| {label} | {' | '.join(cells)} |")
    both = [f" | {figures[name]['bytes']['generator_and_backbone']:,}" for name in settings]
    lines.append("| label generator and backbone |" + " |".join(both) + " |")
    pictures = [f" | {figures[name]['bytes']['images']:,}" for name in settings]
    lines.append("| the images |" + " |".join(pictures) + " |")
    return "\n".join(lines)


TABLES = {"condense-fashion-mnist": tabulate_fashion}


def fill_page(text: str) -> str:
    """Return the page with every marked table replaced by that of the committed results."""
    for name, tabulate in TABLES.items():
        results = ROOT / "benchmarks" / name / "results.json"
        begin, end = f"<!-- {name}: table -->", f"<!-- {name}: end -->"
        if begin in text and results.exists():
            before, _, rest = text.partition(begin)
            _, _, after = rest.partition(end)
            table = tabulate(json.loads(results.read_text(encoding="utf-8")))
            text = f"{before}{begin}\n\n{table}\n\n{end}{after}"
    return text


def main() -> int:
    """Rewrite the pages, or compare them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for name in PAGES:
        page = ROOT / name
        text = page.read_text(encoding="utf-8")
        filled = fill_page(text)
        if filled != text:
            stale.append(name)
            if not check:
                page.write_text(filled, encoding="utf-8")
    for name in stale:
        print(f"{name}: {'differs from the results' if check else 'written'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
