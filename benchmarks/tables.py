"""Write the tables of README and docs from the committed results, so that no figure is typed by hand.

python benchmarks/tables.py            # rewrite the pages
python benchmarks/tables.py --check    # exit with 1 if a page differs from the results
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import tables_of_condense as condense
import tables_of_parallel as parallel
import tables_of_slim as slim

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", *(f"docs/{name}.md" for name in ("condense", "condense-labels", "parallel", "slim")))

TABLES = {
    "condense-fashion-mnist": condense.tabulate_students,
    "condense-cifar10": condense.tabulate_students,
    "condense-throughput": condense.tabulate_throughput,
    "condense-storage": condense.tabulate_storage,
    "condense-codecs": condense.tabulate_codecs,
    "condense-rate-distortion": condense.tabulate_rate_distortion,
    "parallel-plan": parallel.tabulate_plan,
    "parallel-exact": parallel.tabulate_exact,
    "parallel-speed": parallel.tabulate_speed,
    "parallel-fidelity": parallel.tabulate_fidelity,
    "slim-shapes": slim.tabulate_shapes,
    "slim-latency": slim.tabulate_latency,
    "slim-attention": slim.tabulate_attention,
    "slim-zoo": slim.tabulate_segmenters,
    "slim-criteria": slim.tabulate_criteria,
    "slim-retention": slim.tabulate_retention,
    "export-parity": slim.tabulate_export,
}


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
