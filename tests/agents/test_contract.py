"""What every optimiser promises, whatever its method. A new one joins by a line in `OPTIMISERS`."""

from __future__ import annotations

import tempfile
import tomllib
from dataclasses import FrozenInstanceError, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import HiddenTexts, HiddenVectors, SlopedWords, Synthetic
from tiny import tiny_lm
from writers import Typewriter

from rlprompt.agents import instructions
from rlprompt.agents.ascent import Ascent
from rlprompt.agents.bbt_v2 import BBTv2
from rlprompt.agents.bdpl import BDPL
from rlprompt.agents.cma_es import CMAES
from rlprompt.agents.demonstrations import Demonstrations
from rlprompt.agents.differential_evolution import DifferentialEvolution
from rlprompt.agents.gcg import GCG
from rlprompt.agents.genetic import Genetic
from rlprompt.agents.greedy import Greedy
from rlprompt.agents.grow import Grow
from rlprompt.agents.instructions import Instructions
from rlprompt.agents.ppo import PPO, SoftPPO
from rlprompt.agents.ppo_edit import EditPPO
from rlprompt.agents.prefix import PrefixTuning
from rlprompt.agents.random_search import RandomSearch
from rlprompt.agents.random_soft import RandomSoft
from rlprompt.agents.rl import RL, SoftRL
from rlprompt.agents.soft_prompt import SoftPromptTuning
from rlprompt.agents.soft_q import SoftQ
from rlprompt.check.optimiser import check_optimiser
from rlprompt.prompt import Length
from rlprompt.search.optimiser import Optimiser
from rlprompt.search.result import Result
from rlprompt.search.run import search
from rlprompt.tasks.base import GRADIENT_ROWS
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.template import Template

LENGTH = 3
# Prompts in a budget: no multiple of any batch, and more than two of the largest.
N_PROMPTS = 70

OPTIMISERS: tuple[Optimiser[Any], ...] = (
    RandomSearch(),
    RandomSoft(),
    Greedy(),
    Grow(words=60),
    Genetic(),
    BDPL(),
    SoftQ(),
    GCG(),
    Demonstrations(),
    CMAES(dimension=8),
    DifferentialEvolution(),
    SoftPromptTuning(),
    PrefixTuning(),
    BBTv2(),
    PPO(),
    SoftPPO(dimension=4),
    EditPPO(),
    RL(),
    SoftRL(dimension=4),
    Instructions(),
)

# Methods that score on parts of the examples.
ON_BLOCKS = (Grow, GCG, Demonstrations, Instructions)

every = pytest.mark.parametrize("optimiser", OPTIMISERS, ids=lambda o: type(o).__name__)


def task(optimiser: Optimiser[Any]) -> Synthetic:
    made: dict[str, Synthetic] = {"tokens": SlopedWords(), "text": HiddenTexts()}
    return made.get(optimiser.searches, HiddenVectors())


@pytest.fixture(autouse=True)
def _writes_in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny model is slow to write, and what it writes is noise."""
    monkeypatch.setattr(instructions, "writer_of", lambda setting, lm: Typewriter())


def size(optimiser: Optimiser[Any]) -> int:
    """Train examples of its task."""
    return len(task(optimiser).splits.train)


def run(optimiser: Optimiser[Any], rows: int = 0) -> Result:
    rows = rows or N_PROMPTS * size(optimiser)
    return search(task(optimiser), tiny_lm(), optimiser, rows, length=LENGTH)


def price(optimiser: Optimiser[Any]) -> int:
    return size(optimiser) * (GRADIENT_ROWS if isinstance(optimiser, Ascent) else 1)


def test_every_registered_optimiser_is_here() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    registered = project["project"]["entry-points"]["rlprompt.optimisers"].values()
    assert {f"{type(o).__module__}:{type(o).__name__}" for o in OPTIMISERS} == set(registered)


@every
def test_is_a_frozen_dataclass_that_explains_itself(optimiser: Optimiser[Any]) -> None:
    assert isinstance(optimiser, Optimiser)
    assert is_dataclass(optimiser)
    doc = type(optimiser).__doc__ or ""
    for setting in fields(optimiser):
        assert f"{setting.name}:" in doc
        with pytest.raises(FrozenInstanceError):
            setattr(optimiser, setting.name, 1)


@every
@pytest.mark.parametrize("rest", [0, 3])
def test_spends_all_that_the_budget_covers_and_no_more(
    optimiser: Optimiser[Any], rest: int
) -> None:
    rows = N_PROMPTS * size(optimiser) + rest
    result = run(optimiser, rows=rows)
    assert rows - price(optimiser) < result.rows <= rows
    assert result.status == "finished"
    spent = [rows for rows, _ in result.points]
    if isinstance(
        optimiser, ON_BLOCKS
    ):  # what drops out on a part of the examples is paid for, too
        assert spent == sorted(set(spent))
        assert price(optimiser) * len(spent) < result.rows
    else:
        # Between the steps of a soft prompt points of its path are scored.
        costs = {size(optimiser), price(optimiser)}
        assert set(np.diff([0, *spent])) == costs


@every
def test_a_budget_of_one_prompt_is_spent(optimiser: Optimiser[Any]) -> None:
    result = run(optimiser, rows=price(optimiser))
    assert (result.rows, result.n_prompts) == (price(optimiser), 1)


@every
def test_passes_the_check_that_others_can_run(optimiser: Optimiser[Any]) -> None:
    """Seeds, global random state, train alone, equal rewards, and more."""
    assert not check_optimiser(optimiser, tiny_lm(), n_prompts=N_PROMPTS, length=LENGTH).problems


@every
def test_passes_the_check_on_prompts_that_differ_in_length(optimiser: Optimiser[Any]) -> None:
    """Every prompt lies in the range."""
    lengths = Length(LENGTH, at_least=2)
    assert not check_optimiser(optimiser, tiny_lm(), n_prompts=N_PROMPTS, length=lengths).problems


@every
def test_writes_no_files(
    optimiser: Optimiser[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    run(optimiser)
    assert not list(tmp_path.iterdir())


@every
def test_best_so_far_never_falls(optimiser: Optimiser[Any]) -> None:
    result = run(optimiser)
    rewards = [reward for _, reward in result.trace]
    assert rewards == sorted(set(rewards))
    assert rewards[-1] == max(reward for _, reward in result.points)


@every
def test_leaves_the_models_weights_alone(optimiser: Optimiser[Any]) -> None:
    leads = optimiser.searches in ("prefix", "text")
    place = "{prompt} {text}" if leads else "{text} {prompt}"
    real = ClassificationTask(
        "real", Synthetic().splits, Template(place), {"good": "good", "bad": "bad"}
    )
    lm = tiny_lm()
    before = lm.hash_weights()
    result = search(real, lm, optimiser, N_PROMPTS * len(real.splits.train), length=LENGTH)
    assert result.n_prompts
    assert lm.hash_weights() == before
    assert not any(p.requires_grad or p.grad is not None for p in lm.model.parameters())
