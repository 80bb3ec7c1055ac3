"""What loading data costs: seconds and peak memory of `load_splits`, by format and rows.

`python experiments/bench_data.py` writes a file of each format to a temporary folder and loads each
in a process of its own. Two classes, about a hundred characters of text a row.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rlprompt.data.load import load_splits

LABELS = ("negative", "positive")
FORMATS = ("csv", "tsv", "jsonl", "parquet")
WORDS = (
    "a",
    "an",
    "the",
    "film",
    "plot",
    "cast",
    "dull",
    "fresh",
    "warm",
    "cold",
    "slow",
    "bright",
)
LIMIT = 1.5  # GiB that a million rows may take
GIB = 1 << 30


def rows(count: int) -> Iterator[tuple[str, str]]:
    """Texts that all differ, with their labels."""
    rng = np.random.default_rng(0)
    for i in range(count):
        words = " ".join(WORDS[j] for j in rng.integers(len(WORDS), size=20))
        yield f"{i} {words}", LABELS[i % 2]


def write(path: Path, count: int) -> None:
    """A file of that many rows, in the format that its name ends in."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        texts, labels = zip(*rows(count), strict=True)
        pq.write_table(pa.table({"text": texts, "label": labels}), path)
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".jsonl":
            file.writelines(
                json.dumps({"text": text, "label": label}) + "\n" for text, label in rows(count)
            )
            return
        table = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        table.writerow(("text", "label"))
        table.writerows(rows(count))


def load(path: Path) -> dict[str, Any]:
    """Rows, seconds (wall and CPU) and peak memory in GiB of loading a file in this process."""
    began, cpu_began = time.perf_counter(), time.process_time()
    splits = load_splits(str(path), LABELS)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    # In KiB on Linux, in bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB
    count = sum(map(len, splits.parts().values()))
    return {
        "format": path.suffix[1:],
        "rows": count,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_gib": peak,
    }


def main() -> None:
    """Print a table, and its figures as JSON where they are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)  # what a subprocess is told
    options = parser.parse_args()
    if options.load:
        print(json.dumps(load(options.load)))
        return
    figures = []
    print(f"{'format':8} {'rows':>9} {'file MB':>8} {'seconds':>8} {'CPU s':>6} {'peak GiB':>9}")
    for name in options.formats:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"data.{name}"
            write(path, options.rows)
            command = [sys.executable, __file__, "--load", str(path)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            size = path.stat().st_size / 1e6
        figure = {**json.loads(done.stdout), "file_mb": size}
        figures.append(figure)
        print(
            f"{name:8} {figure['rows']:>9,} {size:>8.0f} {figure['seconds']:>8.1f} "
            f"{figure['cpu_seconds']:>6.1f} {figure['peak_gib']:>9.2f}"
            f"{'  over the limit' * (figure['peak_gib'] > LIMIT)}",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
