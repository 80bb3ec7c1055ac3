"""What every optimiser promises, whatever its method. A new one joins by a line in `OPTIMISERS`."""

from __future__ import annotations

import re
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import FrozenInstanceError, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from stored_search import Counting, goes_on
from synthetic import (
    N_EXAMPLES,
    HiddenTexts,
    HiddenVectors,
    HiddenWords,
    SlopedWords,
    Synthetic,
)
from tiny import TinyKind, tiny_lm
from writers import Typewriter

from rlprompt.agents import instructions
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
from rlprompt.agents.shared.ascent import Ascent
from rlprompt.agents.soft_prompt import SoftPromptTuning
from rlprompt.agents.soft_q import SoftQ
from rlprompt.check.optimiser import check_optimiser
from rlprompt.data.examples import Example
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Length, Prompt
from rlprompt.search.budget import Budget, Ledger
from rlprompt.search.objective import BudgetExhausted, Objective
from rlprompt.search.optimiser import Optimiser
from rlprompt.search.result import Result
from rlprompt.search.run import search
from rlprompt.search.space import TokenSpace
from rlprompt.studies.experiment import Experiment
from rlprompt.tasks.base import GRADIENT_ROWS, Measured, Task
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.template import Template

LENGTH = 3
# Prompts in a budget: no multiple of any batch, and more than two of the largest.
N_PROMPTS = 37

# Settings beside the usual ones spare time: batches of 16 at most, and narrower networks.
OPTIMISERS: tuple[Optimiser[Any], ...] = (
    RandomSearch(batch=16),
    RandomSearch(batch=16, halving=0.25),
    RandomSoft(batch=16),
    Greedy(),
    Greedy(halving=0.25),
    Grow(words=60),
    Genetic(),
    Genetic(entropy=0.1),
    BDPL(),
    SoftQ(width=64),
    SoftQ("paper", width=64),
    GCG(),
    Demonstrations(),
    CMAES(dimension=8, population=8),
    CMAES(dimension=8, population=8, basis="tokens"),
    DifferentialEvolution(),
    SoftPromptTuning(),
    PrefixTuning(),
    BBTv2(),
    PPO(),
    SoftPPO(dimension=4),
    EditPPO(),
    RL(),
    RL(environment="edits"),
    SoftRL(dimension=4),
    Instructions(),
)

# With settings that need more of a model or of a task than the usual ones.
DEMANDING: tuple[Optimiser[Any], ...] = (
    PPO(top_k=5),
    PPO(top_p=0.5),
    SoftPromptTuning(loss="reward"),
    SoftPromptTuning(loss=None),
    PrefixTuning(loss="reward"),
)

# Methods that score on parts of the examples, whatever their settings.
ON_BLOCKS = (Grow, GCG, Demonstrations, Instructions)


def name(optimiser: Optimiser[Any]) -> str:
    return type(optimiser).__name__


every = pytest.mark.parametrize("optimiser", OPTIMISERS, ids=name)
# To whose prompts of vectors a range of lengths is its longest.
over_tokens = pytest.mark.parametrize(
    "optimiser", [one for one in OPTIMISERS if one.searches == "tokens"], ids=name
)


class Told(Synthetic):
    """Tells an answer: whether the prompt is worth more than the example's number in ten."""

    def measure(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Measured:
        rewards = self.rewards(lm, prompts, examples)
        own = [int(example.fields["text"].split()[-1]) / 10 for example in examples]
        worths = [self.worth(lm, prompt) for prompt in prompts]
        answers = tuple(tuple("yes" if worth > one else "no" for one in own) for worth in worths)
        return Measured(rewards, rewards, answers)


class Words(Told, SlopedWords):
    pass


class LevelWords(Told, HiddenWords):
    pass


def task(optimiser: Optimiser[Any]) -> Synthetic:
    made: dict[str, Synthetic] = {"tokens": Words(), "text": HiddenTexts()}
    return made.get(optimiser.searches, HiddenVectors())


@pytest.fixture(autouse=True, scope="module")
def _writes_in_no_time() -> Iterator[None]:
    """A tiny model is slow to write, and what it writes is noise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(instructions, "writer_of", lambda setting, lm: Typewriter())
        yield


def price(optimiser: Optimiser[Any]) -> int:
    return N_EXAMPLES * (GRADIENT_ROWS if isinstance(optimiser, Ascent) else 1)


def run(optimiser: Optimiser[Any], rows: int) -> Result:
    return search(task(optimiser), tiny_lm(), optimiser, rows, length=LENGTH)


@dataclass(frozen=True)
class Ran:
    """A search that is looked at from several sides."""

    optimiser: Optimiser[Any]
    rows: int
    result: Result
    files: list[Path]


@pytest.fixture(scope="module", params=OPTIMISERS, ids=name)
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A search with rows to spare at its end, in an empty folder."""
    folder, rows = tmp_path_factory.mktemp("empty"), (N_PROMPTS + 1) * N_EXAMPLES - 1
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        monkeypatch.chdir(folder)
        result = run(request.param, rows)
    return Ran(request.param, rows, result, list(folder.iterdir()))


def test_every_registered_optimiser_is_here() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    registered = project["project"]["entry-points"]["rlprompt.optimisers"].values()
    assert {f"{type(o).__module__}:{type(o).__name__}" for o in OPTIMISERS} == set(registered)


def test_every_method_is_a_file_that_can_be_read_in_one_go() -> None:
    files = list((Path(__file__).parents[2] / "agents").rglob("*.py"))
    assert files
    assert not [file.name for file in files if len(file.read_text("utf-8").splitlines()) > 200]


@every
def test_is_a_frozen_dataclass_that_explains_itself(optimiser: Optimiser[Any]) -> None:
    assert isinstance(optimiser, Optimiser)
    assert is_dataclass(optimiser)
    doc = type(optimiser).__doc__ or ""
    for setting in fields(optimiser):
        assert f"{setting.name}:" in doc
        with pytest.raises(FrozenInstanceError):
            setattr(optimiser, setting.name, 1)


def test_spends_all_that_the_budget_covers_and_no_more(ran: Ran) -> None:
    optimiser, result = ran.optimiser, ran.result
    assert ran.rows - price(optimiser) < result.rows <= ran.rows
    assert result.status == "finished"
    spent = [rows for rows, _ in result.points]
    if isinstance(optimiser, ON_BLOCKS) or getattr(optimiser, "halving", None):
        # What drops out on a part of the examples is paid for, too.
        assert spent == sorted(set(spent))
        assert price(optimiser) * len(spent) < result.rows
    else:
        # Between the steps of a soft prompt points of its path are scored.
        costs = {N_EXAMPLES, price(optimiser)}
        assert set(np.diff([0, *spent])) == costs


@every
def test_spends_a_budget_that_is_a_number_of_prompts_to_the_last_row(
    optimiser: Optimiser[Any],
) -> None:
    rows = 7 * GRADIENT_ROWS * N_EXAMPLES
    result = run(optimiser, rows)
    assert rows - price(optimiser) < result.rows <= rows
    assert result.status == "finished"


@every
def test_a_budget_of_one_prompt_is_spent(optimiser: Optimiser[Any]) -> None:
    result = run(optimiser, rows=price(optimiser))
    # Not for a gradient where the rows do not cover what comes of it, too.
    assert (result.rows, result.n_prompts) == (N_EXAMPLES, 1)


@every
def test_passes_the_check_that_others_can_run(optimiser: Optimiser[Any]) -> None:
    """Seeds, global random state, train alone, equal rewards, and more."""
    assert not check_optimiser(optimiser, tiny_lm(), n_prompts=N_PROMPTS, length=LENGTH).problems


@over_tokens
def test_passes_the_check_on_prompts_that_differ_in_length(optimiser: Optimiser[Any]) -> None:
    """Every prompt lies in the range."""
    lengths = Length(LENGTH, at_least=2)
    assert not check_optimiser(optimiser, tiny_lm(), n_prompts=N_PROMPTS, length=lengths).problems


@over_tokens
def test_who_pays_again_for_a_prompt_that_comes_up_again(optimiser: Optimiser[Any]) -> None:
    """As the page on what is equal says: nine prompts, and rows for five times as many."""
    objective = Objective(Words(), tiny_lm(), Budget(45 * N_EXAMPLES))
    space = TokenSpace(2, np.array([40, 50, 60]))
    with suppress(BudgetExhausted):
        optimiser.run(objective, space, np.random.default_rng(0))
    # The gradients of GCG are of prompts that were scored.
    again = isinstance(optimiser, RandomSearch | PPO | RL | GCG)
    if isinstance(optimiser, RL) and optimiser.environment == "edits":
        again = False
    assert (objective.ledger.n_prompts > objective.ledger.n_distinct) == again


def test_writes_no_files(ran: Ran) -> None:
    assert not ran.files


def test_best_so_far_never_falls(ran: Ran) -> None:
    rewards = [reward for _, reward in ran.result.trace]
    assert rewards == sorted(set(rewards))
    assert rewards[-1] == max(reward for _, reward in ran.result.points)


@every
def test_leaves_the_models_weights_alone(optimiser: Optimiser[Any]) -> None:
    leads = optimiser.searches in ("prefix", "text")
    place = "{prompt} {text}" if leads else "{text} {prompt}"
    real = ClassificationTask(
        "real", Synthetic().splits, Template(place), {"good": "good", "bad": "bad"}
    )
    lm = tiny_lm()
    before = lm.hash_weights()
    # Enough for every method to have learnt from something.
    result = search(real, lm, optimiser, 20 * N_EXAMPLES, length=LENGTH)
    assert result.n_prompts
    assert lm.hash_weights() == before
    assert not any(p.requires_grad or p.grad is not None for p in lm.model.parameters())


@dataclass(frozen=True)
class CountedWords(Counting, Words):
    pass


@dataclass(frozen=True)
class CountedTexts(Counting, HiddenTexts):
    pass


@dataclass(frozen=True)
class CountedVectors(Counting, HiddenVectors):
    pass


@every
def test_a_search_that_is_cut_goes_on(optimiser: Optimiser[Any], tmp_path: Path) -> None:
    """Killed before anything was scored, and twice more on the way."""
    kinds: dict[str, type[Counting]] = {"tokens": CountedWords, "text": CountedTexts}
    make = kinds.get(optimiser.searches, CountedVectors)
    whole, counts = make(), list[int]()
    third = 3 if getattr(optimiser, "needs_gradient", False) else 9
    lives = [*(make(counts=counts, last=i * third) for i in range(3)), make(counts=counts)]
    # Proposals are of a few words, each of several tokens here.
    lengths = Length(64) if isinstance(optimiser, Instructions) else Length(4, 2)
    goes_on(tmp_path / "study.sqlite", optimiser, whole, lives, 24 * N_EXAMPLES, lengths)
    assert sum(counts) == sum(whole.counts), "nothing was scored twice"


@dataclass(frozen=True)
class Flat(HiddenVectors):
    """Of whose reward there is no gradient, or none at all.

    Args:
        hooks: Gradients that it has all the same.
    """

    hooks: tuple[str, ...] = ()

    def has(self, hook: str) -> bool:
        return hook in self.hooks if hook.endswith("_with_grad") else super().has(hook)


@dataclass(frozen=True)
class Unshown(HiddenTexts):
    """None of whose examples a prompt can show."""

    def showable(self) -> Sequence[int]:
        return ()


@dataclass(frozen=True)
class Read(HiddenVectors):
    """A reward of a prompt's text."""

    tokens_only: ClassVar[bool] = True


def refused(optimiser: Optimiser[Any], on: Task, lm: FrozenLM) -> bool:
    """Whether a search is refused: then for no row, and by a study with the same words."""
    paid = list[int]()

    def note(ledger: Ledger) -> None:
        paid.append(ledger.used)

    # Starts of tokens, and several of vectors, are paid for before the method's own prompts.
    where: dict[str, Any] = {"length": LENGTH, "start": ("vocabulary", " film", " it was")}
    rows, why = 24 * N_EXAMPLES, ""
    try:
        search(on, lm, optimiser, rows, on_progress=note, **where)
    except ValueError as error:
        why = str(error)
    assert bool(paid) != bool(why), why
    with pytest.raises(ValueError, match=re.escape(why)) if why else nullcontext():
        Experiment("x", on, lm, {name(optimiser): optimiser}, Budget(rows), **where)
    return bool(why)


@pytest.mark.parametrize("optimiser", [*OPTIMISERS, *DEMANDING], ids=name)
@pytest.mark.parametrize("kind", ["llama", "bloom", "bert", "t5"])
def test_a_model_that_will_not_do_is_refused_for_no_row(
    optimiser: Optimiser[Any], kind: TinyKind
) -> None:
    """Bloom writes, and is not packed, so that no keys and values can stand before its texts."""
    writes = isinstance(optimiser, SoftQ) or (
        isinstance(optimiser, PPO) and (optimiser.top_k or optimiser.top_p) is not None
    )
    lacking = kind != "llama" and optimiser.searches == "prefix"
    lacking |= kind in ("bert", "t5") and writes
    assert refused(optimiser, task(optimiser), tiny_lm(kind)) == lacking


@every
@pytest.mark.parametrize("lacking", [("gradient",), ("gradient", "vectors")], ids=str)
def test_a_model_that_gives_no_gradient_or_takes_no_vectors_is_refused_for_no_row(
    optimiser: Optimiser[Any], lacking: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for one in lacking:
        monkeypatch.setattr(FrozenLM, f"{one}_obstacle", "it sees ids")
    wanting = isinstance(optimiser, Ascent | GCG)
    wanting |= "vectors" in lacking and optimiser.searches == "soft"
    assert refused(optimiser, task(optimiser), tiny_lm()) == wanting


@pytest.mark.parametrize("optimiser", [*OPTIMISERS, *DEMANDING], ids=name)
def test_a_task_without_a_gradient_is_refused_for_no_row(optimiser: Optimiser[Any]) -> None:
    made: dict[str, Task] = {"tokens": LevelWords(), "text": HiddenTexts()}
    climbs = isinstance(optimiser, Ascent | GCG)
    assert refused(optimiser, made.get(optimiser.searches, Flat()), tiny_lm()) == climbs


@pytest.mark.parametrize("optimiser", [*OPTIMISERS, *DEMANDING], ids=name)
def test_a_task_that_reads_texts_is_refused_for_no_row(optimiser: Optimiser[Any]) -> None:
    reads = optimiser.searches in ("tokens", "text")
    assert refused(optimiser, task(optimiser) if reads else Read(), tiny_lm()) != reads


@every
def test_a_task_that_tells_no_answers_is_refused_for_no_row(optimiser: Optimiser[Any]) -> None:
    silent: dict[str, Task] = {"tokens": SlopedWords(), "text": HiddenTexts()}
    counts = isinstance(optimiser, Genetic) and optimiser.entropy is not None
    assert refused(optimiser, silent.get(optimiser.searches, HiddenVectors()), tiny_lm()) == counts


@pytest.mark.parametrize("optimiser", [o for o in OPTIMISERS if o.searches == "text"], ids=name)
def test_a_task_that_has_nothing_to_show_is_refused_for_no_row(optimiser: Optimiser[Any]) -> None:
    shows = isinstance(optimiser, Demonstrations)
    assert refused(optimiser, Unshown(), tiny_lm()) == shows


@pytest.mark.parametrize("method", [SoftPromptTuning, PrefixTuning])
def test_a_reward_without_a_gradient_is_refused_for_no_row(
    method: type[SoftPromptTuning | PrefixTuning],
) -> None:
    smooth = Flat(hooks=("cross_entropy_with_grad",))
    for loss in ("reward", None):
        assert refused(method(loss=loss), smooth, tiny_lm())
    slope = Flat(hooks=("rewards_with_grad",))
    assert not refused(method(loss="cross_entropy"), slope, tiny_lm())
