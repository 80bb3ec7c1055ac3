"""Swaps by the gradient: the shortlist, what is paid for it, and whether it searches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from class_tasks import task as class_task
from numpy.typing import NDArray
from synthetic import N_EXAMPLES, SlopedWords
from tiny import TinyKind, tiny_lm

from rlprompt.agents.gcg import GCG
from rlprompt.agents.greedy import Greedy
from rlprompt.agents.random_search import RandomSearch
from rlprompt.agents.shared.shortlist import shortlist
from rlprompt.data.examples import Example
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Length, Prompt, SoftPrompt, TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.objective import BudgetExhausted, Objective
from rlprompt.search.optimiser import Optimiser
from rlprompt.search.result import Result
from rlprompt.search.run import search
from rlprompt.search.space import TokenSpace
from rlprompt.types import Floats

RNG = np.random.default_rng
Call = tuple[str, tuple[TokenPrompt, ...], int]


@dataclass(frozen=True)
class Noted(SlopedWords):
    """Remembers what it was asked.

    Args:
        asked: Kind of each call, its prompts, and on how many examples.
        strange: Tokens that no one can type.
    """

    asked: list[Call] = field(default_factory=list)
    strange: frozenset[int] = frozenset()
    fingerprint: str = "noted"

    def rewards(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Floats:
        self.note("rewards", prompts, examples)
        return super().rewards(lm, prompts, examples)

    def cross_entropy_with_grad(
        self, lm: FrozenLM, prompts: Sequence[SoftPrompt], examples: Sequence[Example]
    ) -> tuple[Floats, NDArray[np.float32]]:
        rewards, gradients = super().cross_entropy_with_grad(lm, prompts, examples)
        _, tokens, size = self.asked.pop()  # that it asks itself for rewards is its own affair
        self.asked.append(("gradient", tokens, size))
        return rewards, gradients

    def note(self, kind: str, prompts: Sequence[Prompt], examples: Sequence[Example]) -> None:
        if examples[0] in self.splits.train:
            tokens = tuple(prompt for prompt in prompts if isinstance(prompt, TokenPrompt))
            self.asked.append((kind, tokens, len(examples)))

    def described(self, lm: FrozenLM, prompt: TokenPrompt) -> tuple[str, bool]:
        return lm.decode(prompt.ids), not self.strange & set(prompt.ids)


def run(task: Noted, method: GCG, rows: int, length: int | Length = 4, seed: int = 0) -> Objective:
    objective = Objective(task, tiny_lm(), Budget(rows))
    with pytest.raises(BudgetExhausted):
        method.run(objective, TokenSpace.from_lm(tiny_lm(), length), RNG(seed))
    return objective


def test_the_shortlist_is_by_the_gradient_times_the_embedding() -> None:
    """Embeddings of four tokens in the plane, and the gradients at two positions.

    At the first the products are 1, -1, 4 and 0; at the second 0, 2, 2 and -3.
    """
    table = np.array([[1.0, 0.0], [-1.0, 1.0], [4.0, 1.0], [0.0, -1.5]])
    gradient = np.array([[1.0, 0.0], [0.0, 2.0]])
    never = np.zeros((2, 4))
    found = shortlist(gradient @ table.T, never, 0.3, top_k=3)
    assert found.tolist() == [[2, 0, 3], [1, 2, 0]]
    assert shortlist(gradient @ table.T, never, 0.3, top_k=9).shape == (2, 4)


def test_what_the_model_would_write_counts_in_standard_deviations() -> None:
    """Gains of 0 and 2 are one standard deviation below and above, as is any other pair."""
    gains, written = np.array([[0.0, 2.0]]), np.array([[-1.0, -9.0]])
    assert shortlist(gains, written, 0.9, top_k=1).tolist() == [[1]]
    assert shortlist(gains, written, 1.1, top_k=1).tolist() == [[0]]
    assert shortlist(1000 * gains, written, 1.1, top_k=1).tolist() == [[0]]
    assert shortlist(np.zeros((1, 2)), written, 0.1, top_k=2).tolist() == [[0, 1]]


def edits(task: Noted, rows: int) -> list[tuple[int, set[int]]]:
    """Of each prompt after a gradient: tokens more than one that a gradient was of, and new ones.

    Such a prompt differs from one of these by a token, till the rest of the rows covers no gradient
    and a prompt.
    """
    found, parents, used = [], list[TokenPrompt](), 0
    for kind, prompts, size in task.asked:
        if kind == "gradient":
            parents += prompts
        elif parents and rows - used >= 4 * N_EXAMPLES:
            known = ([edit(parent.ids, prompt.ids) for parent in parents] for prompt in prompts)
            found += [next(filter(None, of_one)) for of_one in known]
        used += len(prompts) * size * (3 if kind == "gradient" else 1)
    return found


def edit(old: tuple[int, ...], new: tuple[int, ...]) -> tuple[int, set[int]] | None:
    """How much longer a prompt is that is one token apart from another, and the token."""
    more = len(new) - len(old)
    for place in range(max(len(old), len(new))):
        behind = new[place + (more >= 0) :]
        if new[:place] == old[:place] and behind == old[place + (more <= 0) :]:
            return more, set(new[place : place + (more >= 0)])
    return None


def test_each_candidate_swaps_one_token_for_one_of_the_best_by_the_gradient() -> None:
    task, lm = Noted(), tiny_lm()
    run(task, GCG(candidates=5, top_k=8, likelihood=0), 60 * N_EXAMPLES)
    space = TokenSpace.from_lm(lm, 4)
    side = lm.embeddings() @ task.normal(lm)
    promising = set(space.allowed[np.argsort(-side[space.allowed])[:8]].tolist())
    found = edits(task, 60 * N_EXAMPLES)
    assert len(found) > 60
    assert {more for more, _ in found} == {0}
    assert set().union(*(new for _, new in found)) == promising
    first = [kind for kind, _, _ in task.asked].index("gradient")
    assert task.asked[first][2] == N_EXAMPLES, "the gradient is on all examples"
    _, children, size = task.asked[first + 1]
    assert (len(children), size) == (5, 1), "and candidates on a quarter first"


def test_where_lengths_differ_tokens_are_put_in_and_left_out() -> None:
    found, rows = set(), 60 * N_EXAMPLES
    for seed in range(5):  # where all prompts earn the same, one of any length is gone on from
        task = Noted(flat=True)
        run(task, GCG(), rows, Length(4, 2), seed)
        found |= {more for more, _ in edits(task, rows)}
        assert {len(p) for _, prompts, _ in task.asked for p in prompts} == {2, 3, 4}
    assert found == {-1, 0, 1}


def test_nothing_is_scored_twice_on_an_example_but_for_a_gradient() -> None:
    task = Noted()
    objective = run(task, GCG(), 100 * N_EXAMPLES)
    rows: dict[TokenPrompt, int] = {}
    gradients: list[TokenPrompt] = []
    for kind, prompts, size in task.asked:
        if kind == "gradient":
            gradients += prompts
        else:
            for prompt in prompts:
                rows[prompt] = rows.get(prompt, 0) + size
    assert max(rows.values()) == N_EXAMPLES
    assert len(gradients) == len(set(gradients))
    assert sum(rows.values()) + 3 * N_EXAMPLES * len(gradients) == objective.ledger.used
    assert objective.ledger.n_prompts == objective.ledger.n_distinct + len(gradients)


def test_what_cannot_be_typed_is_passed_over() -> None:
    lm = tiny_lm()
    allowed = TokenSpace.from_lm(lm, 4).allowed
    strange = frozenset(RNG(1).choice(allowed, len(allowed) // 8, replace=False).tolist())
    task = Noted(strange=strange)
    run(task, GCG(candidates=6), 60 * N_EXAMPLES)
    scored = [prompt for _, prompts, _ in task.asked for prompt in prompts]
    assert len(scored) > 60
    assert not any(strange & set(prompt.ids) for prompt in scored)
    # Where nothing can be typed, all goes.
    task = Noted(strange=frozenset(allowed.tolist()))
    assert run(task, GCG(candidates=6), 60 * N_EXAMPLES).remaining == 0


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "gemma", "t5"])
def test_with_a_gradient_a_token_prompt_earns_what_it_earns_without(kind: TinyKind) -> None:
    """Also where the model scales its embeddings, as Gemma does."""
    objective = Objective(class_task(), tiny_lm(kind), Budget(1000))
    prompts = [TokenPrompt((20, 30, 40)), TokenPrompt((41, 31, 21))]
    plain = objective.evaluate(prompts).per_example
    for loss in ("reward", "cross_entropy"):
        found = objective.evaluate_with_grad(prompts, loss=loss)
        np.testing.assert_allclose(found.per_example, plain, atol=1e-2)  # of -180 to 200
        assert np.abs(found.gradients).max() > 0


def test_a_small_space_is_scored_out() -> None:
    task = Noted()
    space = TokenSpace(3, np.array([10, 11, 12]), shortest=1)
    GCG(top_k=2).run(Objective(task, tiny_lm(), Budget(1000)), space, RNG(0))
    scored = {p for kind, prompts, _ in task.asked for p in prompts if kind == "rewards"}
    assert len(scored) == 3 + 3**2 + 3**3


def searched(method: Optimiser[Any], seed: int) -> Result:
    task = SlopedWords(seed=seed)
    return search(task, tiny_lm(), method, 60 * N_EXAMPLES, seed=seed, length=6)


def test_a_gradient_finds_what_uniform_swaps_meet_by_chance() -> None:
    """One token in ten is hidden on the far side of a plane that the gradient points across."""
    for seed in range(2):
        led, drawn, swapped = (searched(m, seed) for m in (GCG(), RandomSearch(), Greedy()))
        assert led.rows <= drawn.rows
        assert led.trace[-1][1] > 0.8 > drawn.trace[-1][1] + 0.2
        assert led.trace[-1][1] >= swapped.trace[-1][1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"candidates": 0}, "candidates is 1 or more, got 0"),
        ({"top_k": 0}, "top_k is 1 or more, got 0"),
        ({"likelihood": -0.1}, "likelihood is a weight of 0 or more, got -0.1"),
        ({"likelihood": float("nan")}, "likelihood is a weight of 0 or more, got nan"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GCG(**settings)
