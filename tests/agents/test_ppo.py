from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from synthetic import N_EXAMPLES, HiddenVectors, HiddenWords
from tiny import tiny_lm

from rlprompt.agents.cma_es import CMAES
from rlprompt.agents.differential_evolution import DifferentialEvolution
from rlprompt.agents.policies.features import Position
from rlprompt.agents.policies.stopping import STOP
from rlprompt.agents.policies.token_policy import TokenPolicy
from rlprompt.agents.policies.token_proposal import Proposal, truncated
from rlprompt.agents.policies.token_tilt import StoppingTilt, Tilt, principal_components
from rlprompt.agents.policies.training import Relative
from rlprompt.agents.ppo import PPO, SoftPPO
from rlprompt.agents.random_search import RandomSearch
from rlprompt.agents.random_soft import RandomSoft
from rlprompt.agents.soft_prompt import SoftPromptTuning
from rlprompt.envs.token_prompt import TokenEpisodes
from rlprompt.envs.vec_env import PromptVecEnv
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Length, Prompt, TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.objective import BudgetExhausted, Evaluation, Objective
from rlprompt.search.result import Result
from rlprompt.search.run import search
from rlprompt.search.space import TokenSpace
from rlprompt.store.record import Record
from rlprompt.store.store import FILE, Store

LENGTH = 3
N_PROMPTS = 300
# Of a prompt's reward under a policy that does not learn: measured, 0.24 at most for words (five
# tokens, one in ten hidden) and 0.16 for vectors.
SPREAD = {"tokens": 0.24, "soft": 0.16}


@lru_cache
def sampled(optimiser: Any, seed: int) -> np.ndarray:
    """Rewards of all prompts in order; searched once for several tests."""
    tokens = optimiser.searches == "tokens"
    task = HiddenWords(seed=seed) if tokens else HiddenVectors(seed=seed)
    result = search(task, tiny_lm(), optimiser, N_PROMPTS * N_EXAMPLES, seed=seed)
    return np.array([reward for _, reward in result.points])


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("optimiser", [PPO(), SoftPPO()], ids=["tokens", "soft"])
def test_learns(optimiser: PPO | SoftPPO, seed: int) -> None:
    # A policy that learns nothing draws every prompt alike. The last 75 are then above the first
    # 16 by five standard errors with a probability below 1e-6.
    rewards = sampled(optimiser, seed)
    first, last = rewards[:16].mean(), rewards[-75:].mean()
    assert last - first > 5 * SPREAD[optimiser.searches] * np.sqrt(1 / 16 + 1 / 75)


@pytest.mark.parametrize("seed", range(2))
def test_what_it_samples_is_better_than_what_random_search_samples(seed: int) -> None:
    # Random search's mean is the hidden share, 0.1, to 0.01.
    assert sampled(PPO(), seed).mean() > sampled(RandomSearch(), seed).mean() + 0.1


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "optimiser",
    [SoftPPO(), CMAES(), DifferentialEvolution(), SoftPromptTuning()],
    ids=lambda one: type(one).__name__,
)
def test_over_vectors_it_finds_better_ones_than_random_search(optimiser: Any, seed: int) -> None:
    assert sampled(optimiser, seed).max() > sampled(RandomSoft(), seed).max() + 0.1


def space(lm: FrozenLM) -> TokenSpace:
    return TokenSpace.from_lm(lm, LENGTH)


def policy(lm: FrozenLM, where: TokenSpace | None = None, **settings: Any) -> TokenPolicy:
    where = where or space(lm)
    objective = Objective(HiddenWords(), lm, Budget(1000))
    episodes = TokenEpisodes(objective, where, 1)
    actions = episodes.action_space
    assert isinstance(actions, spaces.Discrete)
    return TokenPolicy(
        episodes.observation_space,
        actions,
        lambda _: 0.1,
        objective=objective,
        space=where,
        components=4,
        **settings,
    )


def probabilities(lm: FrozenLM, seen: torch.Tensor) -> torch.Tensor:
    distribution = policy(lm).get_distribution(seen).distribution
    assert isinstance(distribution, torch.distributions.Categorical)
    return distribution.probs


def observations(where: TokenSpace) -> torch.Tensor:
    """One at each position, as Stable-Baselines3 hands them over."""
    a, b = where.allowed[3], where.allowed[7]
    return torch.tensor([[a, b, 0, 2], [0, 0, 0, 0], [a, 0, 0, 1]]).float()


def test_the_policy_starts_from_what_the_model_would_write() -> None:
    lm = tiny_lm()
    where = space(lm)
    seen = observations(where)
    for row, proposed in zip(seen.long(), probabilities(lm, seen), strict=True):
        written = torch.tensor([[lm.tokenizer.bos_token_id, *row[: row[-1]].tolist()]])
        expected = lm.model(input_ids=written).logits[0, -1, torch.from_numpy(where.allowed)]
        torch.testing.assert_close(proposed, expected.softmax(-1))


def test_log_probabilities_are_those_of_the_distribution_that_is_sampled() -> None:
    made = policy(tiny_lm())
    assert isinstance(made.action_net, Tilt)
    torch.nn.init.normal_(made.action_net.tilt)
    seen = observations(space(tiny_lm()))
    actions, values, expected = made(seen)
    again, log_prob, _ = made.evaluate_actions(seen, actions)
    torch.testing.assert_close(log_prob, expected)
    torch.testing.assert_close(again, values)


def test_a_stop_has_a_small_probability_where_it_is_allowed() -> None:
    lm = tiny_lm()
    where = TokenSpace.from_lm(lm, Length(LENGTH, at_least=2))
    made = policy(lm, where)
    assert isinstance(made.action_net, StoppingTilt)
    a, b = where.allowed[3], where.allowed[7]
    # New, with one token, with two, stopped after two, and complete by itself.
    seen = torch.tensor([[0, 0, 0, 0], [a, 0, 0, 1], [a, b, 0, 2], [a, b, 0, -2], [a, b, a, 3]])
    seen = seen.float()
    distribution = made.get_distribution(seen).distribution
    assert isinstance(distribution, torch.distributions.Categorical)
    stops = distribution.probs[:, -1]
    torch.testing.assert_close(stops, torch.tensor([0, 0, STOP, 1, 1]))
    # Tokens share what is left as without a stop.
    expected = probabilities(lm, observations(where))[0]
    torch.testing.assert_close(distribution.probs[2, :-1], (1 - STOP) * expected)
    torch.nn.init.normal_(made.action_net.tilt)
    torch.nn.init.normal_(made.action_net.stop)
    stop = len(where.allowed)
    for chosen in (torch.tensor([1, 2, 3, stop, stop]), torch.tensor([1, 2, stop, stop, stop])):
        log_prob = made.evaluate_actions(seen, chosen)[1]
        sampled_from = made.get_distribution(seen)
        torch.testing.assert_close(log_prob, sampled_from.log_prob(chosen))
        made.zero_grad()
        torch.autograd.backward(log_prob.sum())
        assert all(torch.isfinite(p.grad).all() for p in made.parameters() if p.grad is not None)


def test_the_entropy_is_that_of_the_distribution_that_is_sampled() -> None:
    lm = tiny_lm()
    for lengths in (LENGTH, Length(LENGTH, at_least=2)):
        where = TokenSpace.from_lm(lm, lengths)
        made = policy(lm, where, with_entropy=True, top_k=9)
        assert isinstance(made.action_net, Tilt)
        for parameter in made.action_net.parameters():
            torch.nn.init.normal_(parameter)
        a, b = where.allowed[3], where.allowed[7]
        seen = torch.tensor([[0, 0, 0, 0], [a, 0, 0, 1], [a, b, 0, 2]]).float()
        if where.varies:
            seen = torch.cat([seen, torch.tensor([[a, b, 0, -2]])])
        actions = made(seen)[0]
        entropy = made.evaluate_actions(seen, actions)[2]
        assert entropy is not None
        # Not `Categorical.entropy`, which takes the logarithm of an action that is cut as a number.
        distribution = made.get_distribution(seen).distribution
        assert isinstance(distribution, torch.distributions.Categorical)
        torch.testing.assert_close(entropy, torch.special.entr(distribution.probs).sum(1))
        torch.autograd.backward(entropy.sum())
        assert all(torch.isfinite(p.grad).all() for p in made.parameters() if p.grad is not None)


def test_proposals_are_cut_to_the_likeliest_tokens() -> None:
    shares = torch.tensor([[0.1, 0.5, 0.15, 0.25]])
    for top_k, top_p, expected in (
        (4, 1.0, [0.1, 0.5, 0.15, 0.25]),
        (2, 1.0, [0, 2 / 3, 0, 1 / 3]),
        (4, 0.5, [0, 1, 0, 0]),
        (4, 0.51, [0, 2 / 3, 0, 1 / 3]),
        (1, 0.9, [0, 1, 0, 0]),
        (4, 1e-9, [0, 1, 0, 0]),
    ):
        cut = truncated(shares, top_k, top_p)
        torch.testing.assert_close(cut, torch.tensor([expected], dtype=torch.float32))


def test_what_is_cut_is_never_drawn() -> None:
    lm = tiny_lm()
    where = space(lm)
    seen = observations(where)
    distribution = policy(lm, where, top_k=3).get_distribution(seen).distribution
    assert isinstance(distribution, torch.distributions.Categorical)
    assert (distribution.probs > 0).sum(1).tolist() == [3, 3, 3]


def test_a_model_that_writes_nothing_has_nothing_to_cut() -> None:
    with pytest.raises(ValueError, match="is masked and writes nothing that top_k or top_p"):
        search(HiddenWords(), tiny_lm("bert"), PPO(top_k=5), 100, length=LENGTH)


def started(lm: FrozenLM, lengths: int | Length, *starts: tuple[int, ...]) -> TokenSpace:
    where = TokenSpace.from_lm(lm, lengths)
    prompts = tuple(TokenPrompt(where.allowed[list(start)].tolist()) for start in starts)
    return replace(where, starts=prompts)


def test_half_of_the_proposal_are_the_tokens_of_the_starts_in_their_places() -> None:
    lm = tiny_lm()
    where = started(lm, Length(LENGTH, at_least=2), (3, 7), (3, 8, 9))
    made = policy(lm, where)
    a, b = where.allowed[3], where.allowed[7]
    seen = torch.tensor([[0, 0, 0, 0], [a, 0, 0, 1], [a, b, 0, 2]]).float()
    distribution = made.get_distribution(seen).distribution
    assert isinstance(distribution, torch.distributions.Categorical)
    written = policy(lm, space(lm)).get_distribution(seen).distribution
    assert isinstance(written, torch.distributions.Categorical)
    first, second, third = distribution.probs.detach()
    alone = written.probs.detach()
    assert float(first[3]) == pytest.approx(0.5 + 0.5 * float(alone[0, 3]))
    assert float(second[7]) == pytest.approx(0.25 + 0.5 * float(alone[1, 7]))
    assert float(second[8]) == pytest.approx(0.25 + 0.5 * float(alone[1, 8]))
    # One of the two starts has ended here.
    assert float(third[-1]) == pytest.approx(0.5 * STOP + 0.5 * 0.5)
    assert float(third[9]) > 0.5 * float(1 - third[-1])


def asked_by(optimiser: PPO, where: TokenSpace, seed: int = 0, prompts: int = 60) -> list[Any]:
    """All prompts of a search in order, with their rewards."""
    found: list[Any] = []

    class Noting(Objective):
        def evaluate(
            self, prompts: Sequence[Prompt], examples: Sequence[int] | None = None, **options: Any
        ) -> Evaluation:
            evaluation = super().evaluate(prompts, examples, **options)
            found.extend(zip(evaluation.prompts, evaluation.rewards, strict=True))
            return evaluation

    budget = Budget(prompts * N_EXAMPLES)
    with contextlib.suppress(BudgetExhausted):
        objective = Noting(HiddenWords(seed=seed), tiny_lm(), budget)
        optimiser.run(objective, where, np.random.default_rng(seed))
    return found


@pytest.mark.parametrize("lengths", [LENGTH, Length(LENGTH, at_least=1)])
def test_starts_are_scored_first_and_their_neighbours_next(lengths: int | Length) -> None:
    where = started(tiny_lm(), lengths, (3, 7, 9))
    (first, _), *others = asked_by(PPO(), where, prompts=33)
    assert first == where.starts[0]
    kept = [
        sum(a == b for a, b in zip(prompt.ids, first.ids, strict=False))
        for prompt, _ in others[:16]
    ]
    assert np.mean(kept) > 0.8  # half of each of three tokens, less where a prompt ends early
    assert all(where.contains(prompt) for prompt, _ in others)


@pytest.mark.parametrize("lengths", [LENGTH, Length(LENGTH, at_least=1)])
def test_it_learns_in_a_pool_of_words(lengths: int | Length) -> None:
    every = TokenSpace.from_lm(tiny_lm(), lengths)
    pool = TokenSpace(every.length, every.allowed[::4], every.shortest)
    rewards = np.array([reward for _, reward in asked_by(PPO(), pool, prompts=128)])
    assert rewards[-32:].mean() > rewards[:16].mean() + 0.2


def test_a_policy_that_settles_goes_on_to_new_prompts() -> None:
    where = space(tiny_lm())
    alone, fresh = (
        {prompt for prompt, _ in asked_by(optimiser, where, prompts=240)}
        for optimiser in (PPO(fresh=None), PPO())
    )
    assert len(alone) < 100  # it collapsed
    assert len(fresh) > 120


def test_going_back_halves_what_was_learnt() -> None:
    lm = tiny_lm()
    tilt = policy(lm, TokenSpace.from_lm(lm, Length(LENGTH, at_least=1))).action_net
    assert isinstance(tilt, StoppingTilt)
    torch.nn.init.constant_(tilt.tilt, 4)
    torch.nn.init.constant_(tilt.stop, 3)
    tilt.shrink()
    torch.testing.assert_close(tilt.tilt.detach(), torch.full_like(tilt.tilt, 2))
    torch.testing.assert_close(tilt.stop.detach(), (3 + tilt.prior) / 2)


def test_only_tilts_and_values_are_trained() -> None:
    assert {name: tuple(p.shape) for name, p in policy(tiny_lm()).named_parameters()} == {
        "action_net.tilt": (LENGTH, 4),
        "value_net.values": (LENGTH, 1),
    }


def test_all_components_together_hold_the_models_own_similarities() -> None:
    lm = tiny_lm()
    where = space(lm)
    components = principal_components(lm, where, lm.hidden_size)
    rows = torch.from_numpy(lm.embeddings()[where.allowed])  # tied to the output rows
    rows = rows - rows.mean(0)
    expected = rows @ rows.T / rows.square().sum(1).mean()
    torch.testing.assert_close(components @ components.T, expected, atol=1e-5, rtol=1e-4)
    leading = principal_components(lm, where, 2)
    assert leading.square().sum(1).mean() == pytest.approx(1)
    assert leading.var(0)[1] > leading.var(0)[0]  # ascending, the largest last


def test_a_model_that_cannot_continue_a_text_proposes_all_tokens_alike() -> None:
    lm = tiny_lm("bert")
    where = space(lm)
    proposed = probabilities(lm, observations(where))
    torch.testing.assert_close(proposed, torch.full_like(proposed, 1 / len(where.allowed)))


def test_proposals_are_remembered_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlprompt.agents.policies.token_proposal.REMEMBERED", 3)
    lm = tiny_lm()
    where = space(lm)
    objective = Objective(HiddenWords(), lm, Budget(1000))
    box = TokenEpisodes(objective, where, 1).observation_space
    proposal = Proposal(box, objective, where)
    seen = observations(where)
    first = proposal(seen)
    torch.testing.assert_close(proposal(seen), first, rtol=0, atol=0)
    other = seen.clone()
    other[0, 0] = int(where.allowed[9])
    proposal(other)
    torch.testing.assert_close(proposal(seen), first)


def test_a_complete_prompt_has_the_position_of_a_new_one() -> None:
    box = spaces.Box(0, 9, (LENGTH + 1,), dtype=np.int64)
    assert Position(box, LENGTH)(torch.tensor([[1.0, 1, 1, 3]])).tolist() == [[1, 0, 0]]


def test_rewards_are_relative_to_the_rollout_and_scaled_by_all_so_far() -> None:
    lm = tiny_lm()
    objective = Objective(HiddenWords(share=0.5), lm, Budget(1000))
    envs = Relative(PromptVecEnv(TokenEpisodes(objective, space(lm), 4)), objective.ledger)
    envs.reset()
    rng = np.random.default_rng(0)
    for _ in range(2):
        for _ in range(LENGTH):
            _, rewards, _, _ = envs.step(rng.integers(0, len(space(lm).allowed), 4))
        earned = np.array([reward for _, reward in objective.ledger.points])
        expected = (earned[-4:] - earned[-4:].mean()) / earned.std()
        np.testing.assert_allclose(rewards, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (PPO, {"prompts": 1}, "prompts is 2 or more"),
        (PPO, {"epochs": 0}, "epochs is 1 or more"),
        (PPO, {"components": 0}, "components is 1 or more"),
        (PPO, {"learning_rate": 0}, "learning_rate is above 0"),
        (PPO, {"clip": -1}, "clip is above 0"),
        (PPO, {"entropy": 0}, "entropy is above 0"),
        (PPO, {"top_k": 0}, "top_k is 1 or more"),
        (PPO, {"top_p": 1.1}, "top_p is a share above 0 and up to 1"),
        (PPO, {"fresh": 1}, "fresh is a share above 0 and below 1"),
        (RandomSoft, {"alpha": 0}, "alpha is above 0"),
        (RandomSoft, {"batch": 0}, "batch is 1 or more"),
        (SoftPPO, {"prompts": 1}, "prompts is 2 or more"),
        (SoftPPO, {"dimension": 0}, "dimension is 1 or more"),
        (SoftPPO, {"alpha": float("inf")}, "alpha is above 0"),
    ],
)
def test_settings_out_of_range_are_refused(
    make: type, settings: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(**settings)


class Cut(Exception):  # noqa: N818
    """A process that ends."""


def test_a_search_cut_inside_a_rollout_asks_the_model_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, task, asked = tiny_lm(), HiddenWords(), list[object]()
    last_hidden = FrozenLM.last_hidden

    def cut_at(last: int) -> None:
        def count(
            lm: FrozenLM,
            texts: Sequence[tuple[int, ...]],
            after: Sequence[Sequence[tuple[int, ...]]],
        ) -> NDArray[np.float32]:
            if len(asked) == last:
                raise Cut
            asked.append(texts)
            return last_hidden(lm, texts, after)

        monkeypatch.setattr(FrozenLM, "last_hidden", count)

    def go(memo: Record | None = None) -> Result:
        budget = 24 * N_EXAMPLES
        return search(task, lm, PPO(prompts=8), budget, length=LENGTH, memo=memo)

    cut_at(1000)
    alone = go()
    undisturbed, asked = asked, []
    assert len(undisturbed) > 5  # two or three in each of three rollouts
    with Store(tmp_path / FILE) as store:
        store.plan({}, {"ppo": {}})
        store.claim("me", dead=lambda *_: False)
        for last in range(len(undisturbed)):
            cut_at(last)
            with pytest.raises(Cut):
                go(store.record("ppo", lm, task, "me"))
        cut_at(1000)
        resumed = go(store.record("ppo", lm, task, "me"))
        assert store.run("ppo").strayed is None
    assert asked == undisturbed
    assert resumed.points == alone.points
    assert resumed.best == alone.best
