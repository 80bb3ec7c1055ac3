"""Studies that are killed, shared and taken over, and end as if nothing had happened."""

from __future__ import annotations

import secrets
from pathlib import Path

import fault_study
import pytest
from forks import done
from study_results import ledgers, results

N_PROMPTS, N_KILLS = 80, 40
# New moments each time; a failure shows them.
SEED = secrets.randbelow(1 << 30)


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that was undisturbed, one that was killed, and one that was shared."""
    folder: Path = tmp_path_factory.mktemp("studies")
    done(fault_study.main, folder, N_PROMPTS, N_KILLS, SEED)
    return folder


def test_killed_at_random_moments_it_ends_as_if_undisturbed(studies: Path) -> None:
    assert results(studies / "killed") == results(studies / "undisturbed")
    assert ledgers(studies / "killed") == ledgers(studies / "undisturbed")


def test_two_workers_share_a_study_and_one_takes_over_from_the_other(studies: Path) -> None:
    assert results(studies / "shared") == results(studies / "undisturbed")
    assert ledgers(studies / "shared") == ledgers(studies / "undisturbed")
