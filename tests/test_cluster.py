"""Studies on a Ray cluster: a lost machine changes nothing, and what cannot work says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cluster_study
import pytest
from test_study import ledgers, results

pytest.importorskip("ray")


def run_study(folder: Path, *arguments: str) -> list[str]:
    """The notes of a study's processes, each of which took every warning for an error."""
    folder.mkdir()
    script = [sys.executable, "-W", "error", cluster_study.__file__]
    subprocess.run(
        [*script, folder, *arguments],
        check=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return (folder / "notes").read_text().splitlines()


def scored(notes: list[str]) -> int:
    return sum(int(line.split()[-1]) for line in notes if " scored " in line)


def test_a_study_that_loses_a_node_ends_as_if_undisturbed(tmp_path: Path) -> None:
    alone = run_study(tmp_path / "alone", "alone")
    notes = run_study(tmp_path / "cluster")
    assert results(tmp_path / "cluster") == results(tmp_path / "alone")
    assert ledgers(tmp_path / "cluster") == ledgers(tmp_path / "alone")
    # The node was lost while two searches were under way. What it had paid for was kept: what was
    # scored twice is no more than the batch that it was at.
    assert sum(" lost " in line for line in notes) == 1
    assert scored(alone) <= scored(notes) <= scored(alone) + 8
    # Every process loaded the model once, for all of its searches.
    workers = {line.split()[0] for line in notes if " scored " in line}
    loaded = [line.split()[0] for line in notes if " loaded" in line]
    assert sorted(loaded) == sorted(workers)
    assert len(workers) == 2
