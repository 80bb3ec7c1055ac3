"""Soft Q-learning: its losses and its steps against sums done by hand, and whether it searches."""

from __future__ import annotations

import copy
import json
import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from synthetic import N_EXAMPLES, HiddenWords, Noted, searched
from tiny import TinyKind, randomised, tiny_lm, tiny_tokenizer

from rlprompt.agents.policies.choices import cut
from rlprompt.agents.policies.path_consistency import (
    Learner,
    consistency_loss,
    multi_step,
    single_step,
)
from rlprompt.agents.policies.soft_q_policy import Path, SoftQPolicy
from rlprompt.agents.policies.stopping import STOP
from rlprompt.agents.random_search import RandomSearch
from rlprompt.agents.soft_q import SoftQ, standardised
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.objective import BudgetExhausted, Objective
from rlprompt.search.run import search
from rlprompt.search.space import TokenSpace
from rlprompt.studies.experiment import Experiment
from rlprompt.studies.planned_search import PlannedSearch

RNG = np.random.default_rng
Array = NDArray[np.float64]


def objective(task: HiddenWords | None = None, prompts: int = 1000) -> Objective:
    return Objective(task or HiddenWords(), tiny_lm(), Budget(prompts * N_EXAMPLES))


def space(length: int = 3, shortest: int = 0, **settings: Any) -> TokenSpace:
    return TokenSpace(length, np.arange(20, 60), shortest, **settings)


def policy(where: TokenSpace, width: int = 8) -> SoftQPolicy:
    return SoftQPolicy(objective(), where, width, RNG(0))


def drawn(made: SoftQPolicy, count: int, top_k: int = 99, temperature: float = 1.0) -> list[Path]:
    return made.drawn(count, top_k, temperature, RNG(1))


def likeliest(made: SoftQPolicy) -> TokenPrompt:
    return made.drawn(0, 1, 1.0, RNG(1), looks=True)[0].prompt


def shaken(made: SoftQPolicy, size: float = 0.3) -> SoftQPolicy:
    """With weights that are not next to nothing."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.network.parameters():
            parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
    return made


def test_the_losses_are_those_of_the_equations() -> None:
    """Two paths, of two steps and of one, whose second step is padding.

    First: log pi -1 and -2, values 3 and 1, reward 4. One step at a time: -1 - (1 - 3) = 1 and
    -2 - (4 - 1) = -5, together 1 + 25 = 26. All that is left: -3 - (4 - 3) = -4 and -5, 16 + 25 =
    41. Second: log pi -0.5, value 2, reward 1, so -0.5 - (1 - 2) = 0.5 in either way, 0.25.
    """
    advantages = torch.tensor([[-1.0, -2.0], [-0.5, -math.inf]], requires_grad=True)
    values = torch.tensor([[3.0, 1.0], [2.0, 77.0]])
    given = advantages, values, torch.tensor([4.0, 1.0]), torch.tensor([2, 1])
    assert float(single_step(*given).detach()) == (26 + 0.25) / 2
    assert float(multi_step(*given).detach()) == (41 + 0.25) / 2
    loss = consistency_loss(*given)
    assert float(loss.detach()) == (13.125 + 20.625) / 2
    torch.autograd.backward(loss)
    assert advantages.grad is not None
    # Twice what is missing, by the two ways and the two paths over four: the second action of the
    # first path is in both of what is left, -4 and -5.
    expected = [[2 * (1 - 4) / 4, 2 * (-5 - 4 - 5) / 4], [2 * (0.5 + 0.5) / 4, 0]]
    assert advantages.grad.tolist() == expected


def test_a_consistent_policy_has_nothing_to_learn() -> None:
    """The best policy of two steps over two actions, worked out from the rewards."""
    rewards = np.array([[0.3, -1.0], [2.0, 0.5]])
    after = np.log(np.exp(rewards).sum(1))  # V once the first action is known
    first = np.log(np.exp(after).sum())
    paths = [(a, b) for a in range(2) for b in range(2)]
    advantages = [[after[a] - first, rewards[a, b] - after[a]] for a, b in paths]
    values = [[first, after[a]] for a, _ in paths]
    earned = [rewards[a, b] for a, b in paths]
    given = [torch.tensor(one) for one in (advantages, values, earned, [2] * 4)]
    assert float(consistency_loss(*given)) == pytest.approx(0, abs=1e-12)


def forward(weights: list[Array], hidden: Array, rows: Array) -> tuple[Array, Array, float]:
    """Units, Q and the logarithm of the sum of exp Q of one state."""
    w1, b1, w2, b2 = weights
    units = np.maximum(w1 @ hidden + b1, 0)
    q = rows @ (w2 @ units + b2)
    return units, q, float(q.max() + np.log(np.exp(q - q.max()).sum()))


def gradients(
    weights: list[Array], target: list[Array], paths: list[Any], rows: Array, per_action: float
) -> list[Array]:
    """Of the two losses, by the chain rule, path by path and step by step.

    `per_action` is taken off V, and so added to Q - V: the logarithm of the number of actions where
    these are relative to a policy to which they are alike.
    """
    found = [np.zeros_like(one) for one in weights]
    for states, actions, reward in paths:
        seen = [forward(weights, state, rows) for state in states]
        bars = [forward(target, state, rows)[2] - per_action for state in states]
        gains = [q[a] - (v - per_action) for (_, q, v), a in zip(seen, actions, strict=True)]
        ends = [*bars[1:], reward]
        for t, (state, action) in enumerate(zip(states, actions, strict=True)):
            slope = 2 * (gains[t] - (ends[t] - bars[t]))
            for u in range(t + 1):  # what is left from u on has this action in it
                slope += 2 * (sum(gains[u:]) - (reward - bars[u]))
            slope /= 2 * len(paths)
            units, q, v = seen[t]
            towards = -np.exp(q - v)
            towards[action] += 1
            moved = slope * (rows.T @ towards)
            back = (weights[2].T @ moved) * (units > 0)
            for one, more in zip(
                found, (np.outer(back, state), back, np.outer(moved, units), moved), strict=True
            ):
                one += more
    return found


@pytest.mark.parametrize("relative", [False, True])
def test_steps_are_those_worked_out_in_numpy(relative: bool) -> None:
    """Three steps: the target follows, gradients are cut to a norm of 5, Adam moves the weights."""
    where = space()
    made = shaken(policy(where))
    settings = replace(
        SoftQ().hyperparameters, learning_rate=0.01, target_rate=0.25, relative=relative
    )
    learner = Learner(made, settings)
    paths = drawn(made, 4)
    rewards = np.array([5.0, -3.0, 0.5, -2.5])

    weights = [one.detach().double().numpy().copy() for one in made.network.parameters()]
    target = [one.copy() for one in weights]
    rows = tiny_lm().embeddings()[where.allowed].astype(float)  # tied to the output rows
    cases = [
        (path.hidden.double().numpy(), path.actions.numpy(), reward)
        for path, reward in zip(paths, rewards, strict=True)
    ]
    first = [np.zeros_like(one) for one in weights]
    second = [np.zeros_like(one) for one in weights]
    norms = []
    for step in range(1, 4):
        target = [0.75 * slow + 0.25 * quick for slow, quick in zip(target, weights, strict=True)]
        slopes = gradients(weights, target, cases, rows, math.log(40) if relative else 0)
        norms.append(math.sqrt(sum(float((one**2).sum()) for one in slopes)))
        for i, slope in enumerate(slopes):
            slope = slope * min(1, 5 / norms[-1])
            first[i] = 0.9 * first[i] + 0.1 * slope
            second[i] = 0.999 * second[i] + 0.001 * slope**2
            mean, square = first[i] / (1 - 0.9**step), second[i] / (1 - 0.999**step)
            weights[i] = weights[i] - 0.01 * mean / (np.sqrt(square) + 1e-8)

        learner.step(paths, rewards)
        for ours, theirs in zip(made.network.parameters(), weights, strict=True):
            np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=1e-3, atol=1e-4)
    assert min(norms) > 5, "nothing was cut"
    for slow, expected in zip(learner.target.parameters(), target, strict=True):
        np.testing.assert_allclose(slow.numpy(), expected, rtol=1e-3, atol=1e-4)
    assert not any(one.requires_grad for one in learner.target.parameters())


@pytest.mark.parametrize("shortest", [0, 1])
def test_where_nothing_is_earned_the_first_policy_has_nothing_to_learn(shortest: int) -> None:
    """Not so in the paper: to log pi of three tokens of 40 the value of one, log 40, is added."""
    made = policy(space(3, shortest))
    paths = drawn(made, 6)
    (longest,) = made.followed([TokenPrompt((30, 40, 50))])
    nothing = np.zeros(6)
    small, paper = (Learner(made, SoftQ(preset=one).hyperparameters) for one in ("small", "paper"))
    assert float(small.loss(paths, nothing).detach()) == pytest.approx(0, abs=1e-4)
    if not shortest:
        # -3 log 40 + log 40, -2 log 40 + log 40, and 0; one step at a time -log 40 twice, and 0.
        expected = (4 + 1 + 1 + 1) / 2 * math.log(40) ** 2
        found = float(paper.loss([longest], nothing[:1]).detach())
        assert found == pytest.approx(expected, rel=1e-3)


def test_at_first_all_tokens_are_alike_and_stops_as_in_ppo() -> None:
    made = policy(space(3, shortest=2))
    (path,) = made.followed([TokenPrompt((30, 40))])
    assert path.actions.tolist() == [10, 20, 40]
    chances = made.logits(made.network, path.hidden[None]).softmax(-1)[0].detach()
    torch.testing.assert_close(chances[0, :40], torch.full((40,), 1 / 40), rtol=0.01, atol=0)
    torch.testing.assert_close(chances[:, 40], torch.tensor([0, 0, STOP]), rtol=0.01, atol=0)
    assert chances.shape == (3, 41)


def test_a_bias_of_the_models_head_is_no_value() -> None:
    """Phi's head has one: what the model itself would write is not what the first policy does."""
    size: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    config = transformers.PhiConfig(vocab_size=300, num_attention_heads=4, **size)
    model = randomised(transformers.PhiForCausalLM(config), 0)
    with torch.no_grad():
        model.get_parameter("lm_head.bias").mul_(20)
    lm = FrozenLM(model, tiny_tokenizer(), "tiny-phi")
    target = Objective(HiddenWords(), lm, Budget(1000 * N_EXAMPLES))
    made = SoftQPolicy(target, space(3, shortest=2), 8, RNG(0))
    (path,) = made.followed([TokenPrompt((30, 40))])
    chances = made.logits(made.network, path.hidden[None]).softmax(-1)[0].detach()
    torch.testing.assert_close(chances[0, :40], torch.full((40,), 1 / 40), rtol=0.01, atol=0)
    torch.testing.assert_close(chances[:, 40], torch.tensor([0, 0, STOP]), rtol=0.01, atol=0)


def test_values_are_the_models_own_head_on_what_the_network_gives() -> None:
    made = shaken(policy(space()))
    (path,) = made.followed([TokenPrompt((30, 40, 50))])
    model: Any = tiny_lm().model  # transformers leaves what it calls untyped
    for i, begun in enumerate(([1], [1, 30], [1, 30, 40])):
        read = model.base_model(torch.tensor([begun])).last_hidden_state[0, -1]
        torch.testing.assert_close(path.hidden[i], read, rtol=1e-4, atol=1e-4)
        expected = model.lm_head(made.network(path.hidden[i])).detach()
        found = made.logits(made.network, path.hidden[None])[0, i].detach()
        # Each of 40 tokens has that share before anything is learnt.
        torch.testing.assert_close(found, expected[20:60] - math.log(40))


def test_draws_follow_the_values_of_the_likeliest_tokens() -> None:
    chances = torch.tensor([[0.1, 0.4, 0.2, 0.3]])
    for top_k, expected in (
        (4, [0.1, 0.4, 0.2, 0.3]),
        (2, [0, 4 / 7, 0, 3 / 7]),
        (1, [0, 1, 0, 0]),
    ):
        left = cut(chances.log(), top_k, 4).exp()[0]
        assert left.tolist() == pytest.approx(expected)
    made = shaken(policy(space(1)))
    paths = drawn(made, 4000, top_k=3)
    logits = made.logits(made.network, paths[0].hidden[None])[0, 0].detach()
    top = logits.topk(3)
    found = Counter(path.prompt.ids[0] for path in paths)
    best = (20 + top.indices).tolist()
    assert set(found) == set(best)
    shares = [found[token] / 4000 for token in best]
    assert shares == pytest.approx(top.values.softmax(0).tolist(), abs=0.03)
    assert likeliest(made).ids == (best[0],)
    # At twice the temperature, from twice as many.
    hot = Counter(path.prompt.ids[0] for path in drawn(made, 4000, top_k=3, temperature=2.0))
    assert len(hot) == 6
    chances = (logits.topk(6).values / 2).softmax(0)
    assert hot.most_common(1)[0][1] / 4000 == pytest.approx(float(chances[0]), abs=0.03)


@pytest.mark.parametrize(("stop", "length"), [(0.2, 3), (0.6, 1)])
def test_the_likeliest_prompt_ends_where_a_stop_is_likelier_than_all_tokens(
    stop: float, length: int
) -> None:
    """And not where it is likelier than each: 40 tokens have 0.8 together, 0.02 alone."""
    made = policy(space(3, shortest=1))
    with torch.no_grad():
        bias = made.network.get_parameter("2.bias")
        bias[-1] = math.log(stop / (1 - stop)) - math.log(STOP / (1 - STOP))
    (path,) = made.followed([TokenPrompt((30, 40))])
    chances = made.logits(made.network, path.hidden[None]).softmax(-1)[0].detach()
    assert chances[1:, 40].tolist() == pytest.approx([stop] * 2, rel=0.01)
    assert float(chances[1:, :40].max()) < stop
    assert len(likeliest(made)) == length


def test_tokens_that_are_not_allowed_have_no_part() -> None:
    spoilt = copy.deepcopy(tiny_lm())
    with torch.no_grad():
        spoilt.head.weight[60:] = math.nan
    found = []
    for lm in (tiny_lm(), spoilt):
        where = Objective(HiddenWords(), lm, Budget(N_EXAMPLES))
        made = shaken(SoftQPolicy(where, space(3, shortest=1), 8, RNG(0)))
        paths = made.drawn(8, 99, 1.0, RNG(1), looks=True)
        assert paths[0].prompt == likeliest(made)
        Learner(made, SoftQ().hyperparameters).step(paths, np.arange(9.0))
        weights = [one.detach() for one in made.network.parameters()]
        found.append(([path.prompt for path in paths], weights))
    assert found[0][0] == found[1][0]
    torch.testing.assert_close(found[0][1], found[1][1], rtol=0, atol=0)


def test_prompts_are_written_as_they_would_be_followed() -> None:
    made = shaken(policy(space(4, shortest=1)), 0.1)
    paths = drawn(made, 30)
    assert {len(path.prompt) for path in paths} == {1, 2, 3, 4}
    for path in paths:
        (again,) = made.followed([path.prompt])
        assert again.actions.tolist() == path.actions.tolist()
        torch.testing.assert_close(again.hidden, path.hidden, rtol=1e-4, atol=1e-4)
        stopped = len(path.prompt) < 4
        assert len(path.actions) == len(path.hidden) == len(path.prompt) + stopped


def test_rewards_are_standardised_and_equal_ones_are_nothing() -> None:
    assert standardised(np.array([1.0, 2.0, 6.0])) == pytest.approx(
        [-2 / math.sqrt(14 / 3), -1 / math.sqrt(14 / 3), 3 / math.sqrt(14 / 3)], rel=1e-3
    )
    assert standardised(np.full(3, 0.1)) == pytest.approx([0] * 3, abs=1e-9)


def test_a_preset_decides_what_is_not_given() -> None:
    small, paper = SoftQ().resolved(), SoftQ(preset="paper").resolved()
    assert (small.scale, small.learning_rate, small.target_rate, small.steps) == (20, 3e-4, 0.05, 8)
    assert (small.replay, small.relative, small.greedy_every) == (True, True, 1)
    assert small.top_k == 10**6
    assert (paper.learning_rate, paper.target_rate, paper.steps) == (5e-5, 0.001, 1)
    assert (paper.replay, paper.relative, paper.greedy_every) == (False, False, 10)
    assert (paper.prompts, paper.width, paper.scale, paper.top_k) == (16, 2048, 5, 256)
    own = SoftQ(preset="paper", replay=True, steps=3)
    assert own.resolved() == replace(paper, replay=True, steps=3)
    assert own.resolved().hyperparameters == own.hyperparameters


def test_a_preset_that_is_put_in_the_place_of_another_decides() -> None:
    changed = replace(SoftQ(steps=3), preset="paper")
    assert changed == SoftQ(preset="paper", steps=3)
    assert changed.hyperparameters.learning_rate == 5e-5
    assert changed.hyperparameters.steps == 3


def test_results_and_studies_record_what_was_run() -> None:
    method = SoftQ(preset="paper", prompts=4, width=8, steps=2)
    settings = {
        "preset": "paper",
        "prompts": 4,
        "width": 8,
        "top_k": 256,
        "scale": 5,
        "learning_rate": 5e-5,
        "target_rate": 0.001,
        "steps": 2,
        "replay": False,
        "relative": False,
        "greedy_every": 10,
    }
    found = search(HiddenWords(), tiny_lm(), method, 8 * N_EXAMPLES, length=2)
    planned = PlannedSearch(HiddenWords(), tiny_lm(), method, Budget(8), 0, 2, ())
    for recorded in (found.settings, planned.spec["settings"]):
        assert json.dumps(recorded) == json.dumps(settings)


def test_each_prompt_is_paid_once_and_a_small_space_is_scored_out() -> None:
    task = Noted()
    small = TokenSpace(2, np.array([20, 21, 22]), shortest=1)
    SoftQ(prompts=4, top_k=1, width=16, steps=1).run(objective(task), small, RNG(0))
    assert len(task.asked) == len(set(task.asked)) == 3 + 3**2


def noting(monkeypatch: pytest.MonkeyPatch) -> list[TokenPrompt]:
    """The likeliest prompts that are looked at."""
    found: list[TokenPrompt] = []
    own = SoftQPolicy.drawn

    def noted(self: SoftQPolicy, *given: Any, looks: bool) -> list[Path]:
        paths = own(self, *given, looks=looks)
        if looks:
            found.append(paths[0].prompt)
        return paths

    monkeypatch.setattr(SoftQPolicy, "drawn", noted)
    return found


def test_the_last_draw_has_the_likeliest_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = noting(monkeypatch)
    task = Noted()
    # Fewer draws than from one look to the next.
    with pytest.raises(BudgetExhausted):
        SoftQ(preset="paper", prompts=4, width=16).run(objective(task, 17), space(4), RNG(0))
    assert looks
    assert looks[0] in task.asked[-5:]


def test_starts_are_scored_first_and_learnt_from() -> None:
    start = TokenPrompt((30, 40, 50))
    task = Noted(flat=True)
    with pytest.raises(BudgetExhausted):
        SoftQ().run(objective(task, 30), space(starts=(start,)), RNG(0))
    assert task.asked[0] == start
    assert len(task.asked) == len(set(task.asked)) == 30


@pytest.mark.parametrize(("every", "place"), [(1, 4), (2, 8)])
def test_the_likeliest_prompt_is_scored_in_between(
    every: int, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = noting(monkeypatch)
    task = Noted()
    method = SoftQ(prompts=4, greedy_every=every)
    with pytest.raises(BudgetExhausted):
        method.run(objective(task, 12), space(5), RNG(0))
    assert task.asked[place] == looks[0]
    assert set(looks[:-1]) <= set(task.asked)


def test_it_learns_what_random_draws_find_by_luck() -> None:
    """One token in ten is hidden, all on one side of a plane that the model's head can draw."""
    learnt, uniform = (searched(one, 0, length=5) for one in (SoftQ(), RandomSearch()))
    assert learnt.rows == uniform.rows
    assert learnt.trace[-1][1] >= uniform.trace[-1][1]
    rewards, luck = ([reward for _, reward in one.points] for one in (learnt, uniform))
    # Of 50 prompts of five tokens, one in ten of which is hidden, the mean varies by 0.02.
    assert np.mean(rewards[-50:]) > max(np.mean(rewards[:50]), np.mean(luck)) + 0.5


@pytest.mark.parametrize("kind", ["bert", "t5"])
def test_a_model_that_does_not_write_is_refused_before_anything_is_paid(kind: TinyKind) -> None:
    task = Noted()
    message = f"SoftQ writes with the model, and tiny-{kind}, which is .*take a causal model"
    with pytest.raises(ValueError, match=message):
        search(task, tiny_lm(kind), SoftQ(), 400, length=2, start="auto")
    with pytest.raises(ValueError, match=message):
        Experiment("x", task, tiny_lm(kind), {"soft-q": SoftQ()}, Budget(400))
    with pytest.raises(ValueError, match="does not tell the next token"):
        SoftQ().run(Objective(task, tiny_lm(kind), Budget(400)), space(), RNG(0))
    assert not task.asked


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "large"}, "preset is 'large'; give small or paper"),
        ({"prompts": 1}, "prompts is 2 or more, got 1"),
        ({"width": 0}, "width is 1 or more, got 0"),
        ({"top_k": 0}, "top_k is 1 or more, got 0"),
        ({"scale": 0.0}, r"scale is above 0, got 0\.0"),
        ({"learning_rate": 0.0}, r"learning_rate is above 0, got 0\.0"),
        ({"learning_rate": math.nan}, "learning_rate is above 0, got nan"),
        ({"target_rate": 1.5}, r"target_rate is a share above 0 and up to 1, got 1\.5"),
        ({"steps": 0}, "steps is 1 or more, got 0"),
        ({"greedy_every": 0}, "greedy_every is 1 or more, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SoftQ(**settings)
