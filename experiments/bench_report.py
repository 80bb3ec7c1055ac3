"""What the page of a large study costs: seconds, peak memory, size.

`python experiments/bench_report.py` makes folders of a million evaluations, spread over runs and in
a single one, and writes the page of each in a process of its own. `--out FILE` keeps the figures
as JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from study_folder import METHODS, Plan, make_study

from rlprompt.reports.html import write_page

SECONDS, GIB, MEGABYTES = 60.0, 4.0, 5.0


def plans(evaluations: int) -> dict[str, Plan]:
    """Folders with so many scored prompts."""
    spread, methods = 100, tuple(METHODS)
    return {
        f"{spread} runs": Plan(
            methods=methods[:5],
            tasks=("movie-reviews", "sst-2"),
            seeds=10,
            budgets=(32 * evaluations // spread,),
            points=evaluations // spread,
        ),
        "one run": Plan(
            methods=methods[:1],
            tasks=("movie-reviews",),
            seeds=1,
            budgets=(32 * evaluations,),
            points=evaluations,
        ),
    }


def measure(folder: Path) -> dict[str, float]:
    """Write a page in this process, which did nothing else."""
    began = time.perf_counter()
    _, path = write_page(folder)
    return {
        "seconds": time.perf_counter() - began,
        # Kilobytes on Linux.
        "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "megabytes": path.stat().st_size / 1e6,
    }


def measured_apart(folder: Path) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--measure", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evaluations", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return
    print("| study | evaluations | s | peak GiB | page MB |\n|---|---:|---:|---:|---:|")
    found = {}
    for name, plan in plans(arguments.evaluations).items():
        with tempfile.TemporaryDirectory() as place:
            make_study(Path(place), plan)
            one = found[name] = measured_apart(Path(place))
        print(
            f"| {name} | {arguments.evaluations:,} | {one['seconds']:.1f} | {one['gib']:.2f} | "
            f"{one['megabytes']:.2f} |",
            flush=True,
        )
    print(f"limits: {SECONDS:g} s, {GIB:g} GiB, {MEGABYTES:g} MB")
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if any(
        one["seconds"] > SECONDS or one["gib"] > GIB or one["megabytes"] > MEGABYTES
        for one in found.values()
    ):
        sys.exit("a limit is exceeded")


if __name__ == "__main__":
    main()
