"""Size of a finished run's page, and the time that its tables, figures and page take anew, in one process.

    python benchmarks/page.py [results/demo] [--most 3]

Nothing of the run is changed. Seconds of the clock, and of the processor alone, which other work does not lengthen.
Ends with an error where the page has more megabytes than `--most`.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from diffusionblocks.page.figures import figures
from diffusionblocks.page.page import page
from diffusionblocks.page.table import table
from diffusionblocks.plan.configuration import ROOT


def timed(name, step):
    clock, processor = time.monotonic(), time.process_time()
    step()
    print(f"{name:8}{time.monotonic() - clock:7.1f} s, {time.process_time() - processor:6.1f} s of the processor")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="?", type=Path, default=Path("results/demo"))
    parser.add_argument("--most", type=float, default=3, help="megabytes that the page may have (default: 3)")
    chosen = parser.parse_args()
    plans = sorted(file.with_suffix(".json") for file in chosen.results.glob("tables/*.csv"))
    if not plans:
        sys.exit(f"{chosen.results}: has no tables/*.csv. Give the folder of a finished run, such as results/demo.")
    with tempfile.TemporaryDirectory() as folder:
        tables, drawn = ([Path(folder, f"{plan.stem}{end}") for plan in plans] for end in (".csv", "-figures.json"))
        report, template = Path(folder, "report.html"), ROOT / "report/page.html.jinja"
        estimate = [file for file in [chosen.results / "estimate.json"] if file.exists()]
        timed("tables", lambda: [table(*paths) for paths in zip(plans, tables, strict=True)])
        timed("figures", lambda: [figures(*paths) for paths in zip(plans, drawn, strict=True)])
        timed("page", lambda: page(plans, tables, drawn, template, report, estimate))
        size = report.stat().st_size / 1e6
    print(f"{len(plans)} tables, {size:.2f} MB")
    if size > chosen.most:
        sys.exit(f"the page has {size:.2f} MB, more than {chosen.most:g}")


if __name__ == "__main__":
    main()
