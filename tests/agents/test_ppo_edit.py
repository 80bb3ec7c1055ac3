"""PPO over edits: what its policy says, and whether it searches."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from synthetic import N_EXAMPLES, HiddenWords, Noted
from tiny import tiny_lm

from rlprompt.agents.policies.edit_policy import SHARES, EditPolicy, Worth
from rlprompt.agents.ppo_edit import EditPPO
from rlprompt.agents.random_search import RandomSearch
from rlprompt.envs.edit_prompt import EditEpisodes
from rlprompt.envs.edits import KINDS, EditKind, Edits
from rlprompt.prompt import Length, TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.objective import BudgetExhausted, Objective
from rlprompt.search.optimiser import Optimiser
from rlprompt.search.run import search
from rlprompt.search.space import TokenSpace

RNG = np.random.default_rng
# Worths: token 7 has 1 + the place's number, 9 has minus a half anywhere.
COMPONENTS = torch.tensor([[1.0, 1.0], [-0.5, 0.0]])
EDITS = Edits(TokenSpace(3, np.array([7, 9]), shortest=1), np.array([7, 9]))


def actor(edits: Edits = EDITS) -> Worth:
    """One that has learnt these worths."""
    made = Worth(edits, COMPONENTS)
    with torch.no_grad():
        made.anywhere.copy_(torch.tensor([1.0, 0.0]))
        made.there[:, 1] = torch.arange(edits.space.length)
    return made


def seen(*prompts: tuple[int, ...], length: int = 3) -> torch.Tensor:
    """Observations of prompts that have four edits left."""
    rows = [[*p, *[0] * (length - len(p)), len(p), 4] for p in prompts]
    return torch.tensor(rows).float()


def chances(made: Worth, *prompts: tuple[int, ...]) -> list[dict[EditKind, float]]:
    """Of each kind of edit."""
    found = []
    for row in made(seen(*prompts)).softmax(1).tolist():
        sums = dict.fromkeys(KINDS, 0.0)
        for edit, chance in zip(EDITS.every, row, strict=True):
            sums[edit.kind] += chance
        found.append(sums)
    return found


def test_what_an_edit_gains_is_worked_out_by_hand() -> None:
    """At the places 0, 1 and 2 token 7 is worth 1, 2 and 3, and 9 a half less than nothing."""
    (gains,) = actor().gains(np.array([[9, 7, 7]])).tolist()
    found = dict(zip(EDITS.every, gains, strict=True))
    expected = {
        ("replace", 0, 7): 1 + 0.5,
        ("replace", 1, 9): -0.5 - 2,
        ("insert", 0, 7): 1,
        ("insert", 2, 9): -0.5,
        ("delete", 0, 0): 0.5,
        ("delete", 2, 0): -3,
        ("swap", 0, 2): (1 - 0.5) - (-0.5 + 3),
        ("swap", 1, 2): 0,
        ("stop", 0, 0): 0,
    }
    assert {edit: found[edit] for edit in found if edit in expected} == pytest.approx(expected)


def test_at_first_edits_are_drawn_kind_by_kind_of_those_that_are_possible() -> None:
    made = Worth(EDITS, COMPONENTS)
    short, middle, full = chances(made, (7,), (7, 9), (7, 9, 9))
    assert sum(SHARES.values()) == pytest.approx(1)
    assert middle == pytest.approx(SHARES)
    # One token cannot be deleted nor swapped, and nothing can be inserted in a full prompt.
    assert short == pytest.approx(dict.fromkeys(KINDS, 0) | {"replace": 0.75, "insert": 0.25})
    assert full["insert"] == 0
    assert full["replace"] == pytest.approx(0.6 / 0.8)
    each = made(seen((7, 9))).softmax(1)[0]
    inserted = [edit.kind == "insert" and edit.place < 3 for edit in EDITS.every]
    assert each[torch.tensor(inserted)].tolist() == pytest.approx([0.2 / 6] * 6)


def test_what_is_worth_more_is_likelier_by_the_exponential() -> None:
    logits = actor()(seen((9, 7)))[0].detach()
    number = {tuple(edit): i for i, edit in enumerate(EDITS.every)}
    # Replacing the first gains 1.5 and the second loses 2.5.
    better, worse = number["replace", 0, 7], number["replace", 1, 9]
    assert float(logits[better] - logits[worse]) == pytest.approx(1.5 + 2.5)


@pytest.mark.parametrize("lengths", [3, Length(3)])
def test_only_what_is_possible_is_done_and_it_never_stops(lengths: int | Length) -> None:
    lm = tiny_lm()
    space = TokenSpace.from_lm(lm, lengths)
    episodes = EditEpisodes(Objective(HiddenWords(), lm, Budget(100)), space, 64, 4, 9, RNG(0))
    actions = episodes.action_space
    assert isinstance(actions, spaces.Discrete)
    made = EditPolicy(
        episodes.observation_space,
        actions,
        lambda _: 0.1,
        edits=episodes.edits,
        components=torch.randn(len(episodes.edits.tokens), 5),
    )
    assert {name: len(p) for name, p in made.named_parameters()} == {
        "action_net.anywhere": 5,
        "action_net.there": 3,
        "action_net.kind": len(KINDS),
    }
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    observations = torch.from_numpy(episodes.observations()).float()
    drawn, values, log_prob = made(observations)
    masks = episodes.masks()
    assert all(masks[i, action] for i, action in enumerate(drawn.tolist()))
    assert (drawn != len(episodes.edits.every) - 1).all()
    assert not values.any()
    _, again, entropy = made.evaluate_actions(observations, drawn)
    torch.testing.assert_close(again, log_prob)
    assert entropy is not None
    torch.autograd.backward((again + entropy).sum())
    assert all(torch.isfinite(p.grad).all() for p in made.parameters() if p.grad is not None)


def test_going_back_halves_what_was_learnt() -> None:
    made = actor()
    before = [p.detach().clone() for p in made.parameters()]
    made.shrink()
    for now, was in zip(made.parameters(), before, strict=True):
        torch.testing.assert_close(now.detach(), was / 2)


def asked(optimiser: EditPPO, space: TokenSpace, n_prompts: int = 60) -> list[TokenPrompt]:
    """All prompts of a search in order."""
    task = Noted()
    with contextlib.suppress(BudgetExhausted):
        objective = Objective(task, tiny_lm(), Budget(n_prompts * N_EXAMPLES))
        optimiser.run(objective, space, RNG(0))
    return task.asked


def distance(first: TokenPrompt, second: TokenPrompt) -> int:
    """Places in which prompts of one length differ."""
    return sum(a != b for a, b in zip(first.ids, second.ids, strict=True))


def test_rollouts_begin_with_the_best_prompt_so_far() -> None:
    """In prompts of one length an edit changes two places at most."""
    space = TokenSpace.from_lm(tiny_lm(), 8)
    starts = (space.sample(RNG(0)), space.sample(RNG(1)))
    settings = EditPPO(prompts=5, edits=2, words=200)
    found = asked(settings, replace(space, starts=starts), n_prompts=2 + 30)
    assert found[:2] == list(starts)
    rewards = Objective(HiddenWords(), tiny_lm(), Budget(10**6)).evaluate(found).rewards
    for begun in (2, 12, 22):
        best = found[int(rewards[:begun].argmax())]
        first = found[begun : begun + 5]
        assert all(1 <= distance(prompt, best) <= 2 for prompt in first)


def test_without_a_start_a_few_random_prompts_come_first() -> None:
    space = TokenSpace.from_lm(tiny_lm(), Length(8, 2))
    first = asked(EditPPO(prompts=6), space)[:6]
    assert len(set(first)) == 6
    assert all(space.contains(prompt) for prompt in first)


def test_a_prompt_is_paid_once_and_a_small_space_is_scored_out() -> None:
    found = asked(
        EditPPO(prompts=2, epochs=1), TokenSpace(2, np.array([10, 11, 12]), shortest=1), 1000
    )
    assert len(found) == len(set(found)) == 3 + 3**2


def best(optimiser: Optimiser[Any], seed: int, length: int | Length = 8) -> float:
    """The best reward of 100 distinct prompts for hidden words of the seed's."""
    rows, task = 100 * N_EXAMPLES, HiddenWords(seed=seed)
    found = search(task, tiny_lm(), optimiser, rows, seed=seed, length=length)
    assert (found.rows, found.n_distinct) == (rows, 100)
    return found.trace[-1][1]


@pytest.mark.parametrize("length", [8, Length(8, 6)])
def test_it_finds_more_of_what_is_hidden_than_random_draws_for_the_same_rows(
    length: int | Length,
) -> None:
    assert best(EditPPO(), 1, length) > best(RandomSearch(), 1, length) + 0.2


def test_what_it_learns_helps_and_not_the_edits_alone() -> None:
    """The same walk from best to best, with a policy that stays as it is."""
    learns, fixed = EditPPO(edits=2), EditPPO(edits=2, learning_rate=1e-9)
    gained = [best(learns, seed) - best(fixed, seed) for seed in (3, 4)]
    assert np.mean(gained) > 0.2


def test_a_good_start_is_made_better() -> None:
    """Half of a start's tokens are hidden ones, more than random draws find at all."""
    lm, task = tiny_lm(), HiddenWords()
    space = TokenSpace.from_lm(lm, 8)
    side = lm.embeddings()[space.allowed] @ task.normal(lm)
    ranked = space.allowed[np.argsort(side)].tolist()
    start = TokenPrompt([*ranked[-4:], *ranked[:4]])
    rows = 100 * N_EXAMPLES
    found = search(task, lm, EditPPO(), rows, seed=0, length=8, start=start)
    drawn = search(task, lm, RandomSearch(), rows, seed=0, length=8, start=start)
    assert found.points[0][1] == drawn.points[0][1] == drawn.trace[-1][1]
    assert found.trace[-1][1] > drawn.trace[-1][1] + 0.1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompts": 1}, "prompts is 2 or more, got 1"),
        ({"edits": 0}, "edits is 1 or more, got 0"),
        ({"words": 0}, "words is 1 or more, got 0"),
        ({"epochs": 0}, "epochs is 1 or more, got 0"),
        ({"components": 0}, "components is 1 or more, got 0"),
        ({"learning_rate": 0.0}, "learning_rate is above 0, got 0.0"),
        ({"clip": float("nan")}, "clip is above 0, got nan"),
        ({"gae_lambda": 0.0}, "gae_lambda is a share above 0 and up to 1, got 0.0"),
        ({"gae_lambda": 1.5}, "gae_lambda is a share above 0 and up to 1, got 1.5"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EditPPO(**settings)
