"""Algorithms by name: what each is given, what is refused, and whether they search."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stored_search import Counted, goes_on
from synthetic import N_EXAMPLES, Batches, HiddenVectors, HiddenWords, Noted, Synthetic
from tiny import tiny_lm

from rlprompt.agents.play import Environment
from rlprompt.agents.policies.algorithms import KNOWN, find_algorithm
from rlprompt.agents.policies.arguments import arguments
from rlprompt.agents.policies.features import Edited, Written
from rlprompt.agents.policies.training import Gains, Standardised
from rlprompt.agents.random_search import RandomSearch
from rlprompt.agents.random_soft import RandomSoft
from rlprompt.agents.rl import RL, SoftRL
from rlprompt.config.registry import make_optimiser
from rlprompt.envs.edit_prompt import EditEpisodes
from rlprompt.envs.token_prompt import TokenEpisodes
from rlprompt.envs.vec_env import PromptVecEnv
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Length, TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.objective import Objective
from rlprompt.search.optimiser import Optimiser
from rlprompt.search.result import Result
from rlprompt.search.run import search
from rlprompt.search.space import TokenSpace
from rlprompt.types import Floats

EVERY = [(kind, name) for kind, known in KNOWN.items() for name in known]
PACKAGES = {**KNOWN["tokens"], **KNOWN["soft"]}
DQN = {"algorithm": "DQN"}
# Networks and numbers of steps that tests need not wait for.
SMALL = {"net_arch": [8]}
RECURRENT = SMALL | {"lstm_hidden_size": 8}
FAST = {"learning_rate": 0.003}
REPLAYS: dict[str, Any] = {"gradient_steps": 2, "batch_size": 16}


def quick_settings(name: str) -> dict[str, Any]:
    replays = name in ("DQN", "QRDQN", "DDPG", "SAC", "TD3", "CrossQ", "TQC")
    policy = RECURRENT if name == "RecurrentPPO" else SMALL
    return {**(REPLAYS if replays else {}), "policy_kwargs": policy}


def quick(kind: str, name: str) -> Optimiser[Any]:
    settings = quick_settings(name)
    if kind == "tokens":
        return RL(name, prompts=8, settings=settings)
    return SoftRL(name, prompts=8, dimension=4, settings=settings)


def editing(name: str) -> RL:
    settings = quick_settings(name)
    return RL(name, prompts=4, words=20, settings=settings, environment="edits")


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_every_algorithm_spends_its_budget_a_rollout_at_a_time(kind: str, name: str) -> None:
    inner = HiddenWords() if kind == "tokens" else HiddenVectors()
    for lengths in (3, Length(3, 2)) if kind == "tokens" else (3,):
        task = Batches(inner=inner)
        found = search(task, tiny_lm(), quick(kind, name), 28 * N_EXAMPLES, length=lengths)
        assert found.n_prompts == 28
        assert task.calls[:4] == [8, 8, 8, 4]


@pytest.mark.parametrize(
    ("kind", "name"),
    [("tokens", "DQN"), ("tokens", "RecurrentPPO"), ("soft", "A2C"), ("soft", "TD3")],
)
def test_the_seed_decides_all(kind: str, name: str) -> None:
    inner = HiddenWords() if kind == "tokens" else HiddenVectors()

    def points(seed: int) -> Sequence[tuple[int, float]]:
        rows = 20 * N_EXAMPLES
        return search(inner, tiny_lm(), quick(kind, name), rows, seed=seed, length=3).points

    assert points(0) == points(0) != points(1)


def searched(optimiser: Optimiser[Any]) -> Result:
    """The result of 300 prompts."""
    task = HiddenWords() if optimiser.searches == "tokens" else HiddenVectors()
    return search(task, tiny_lm(), optimiser, 300 * N_EXAMPLES)


def gained(result: Result) -> float:
    """How far the last quarter of the prompts is above the first 16, in standard errors.

    Of prompts that are drawn alike: their rewards spread by 0.24 at most over words, and by 0.16
    over vectors (measured, see the tests of PPO), and 5 standard errors come by chance in less than
    one run of a million.
    """
    rewards = np.array([reward for _, reward in result.points])
    spread = 0.24 if isinstance(result.best.prompt, TokenPrompt) else 0.16
    error = spread * np.sqrt(1 / 16 + 1 / 75)
    return float((rewards[-75:].mean() - rewards[:16].mean()) / error)


@pytest.mark.parametrize(
    "optimiser",
    [
        RL("A2C", settings=FAST),
        RL("DQN", settings={"batch_size": 16}),
        SoftRL("A2C", settings=FAST),
        SoftRL("PPO", settings=FAST),
    ],
    ids=["A2C", "DQN", "soft A2C", "soft PPO"],
)
def test_learns(optimiser: Optimiser[Any]) -> None:
    assert gained(searched(optimiser)) > 5


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("optimiser", "control"),
    [
        (RL("A2C", settings=FAST), RandomSearch()),
        (RL("DQN", settings={"batch_size": 16}), RandomSearch()),
        (SoftRL("A2C", settings=FAST), RandomSoft()),
    ],
    ids=["A2C", "DQN", "soft A2C"],
)
def test_it_finds_better_prompts_than_random_search_at_the_same_cost(
    optimiser: Optimiser[Any], control: Optimiser[Any], seed: int
) -> None:
    """Both of the same tokens, 300 prompts: the random ones' mean is known to 0.02."""
    rows, words = 300 * N_EXAMPLES, {"words": 200}
    task = HiddenWords() if optimiser.searches == "tokens" else HiddenVectors()
    learnt, drawn = (
        search(task, tiny_lm(), one, rows, seed=seed, tokens=words) for one in (optimiser, control)
    )
    assert learnt.rows == drawn.rows == rows
    assert learnt.mean_reward > drawn.mean_reward + 0.15
    assert learnt.trace[-1][1] > drawn.trace[-1][1] + 0.05


def test_a_search_that_is_cut_goes_on(tmp_path: Path) -> None:
    optimiser = quick("tokens", "DQN")
    lives = Counted(last=15), Counted()
    goes_on(tmp_path / "study.sqlite", optimiser, Counted(), lives, 28 * N_EXAMPLES)


def episodes(
    length: int = 3,
    n: int = 4,
    rows: int = 1000,
    shortest: int = 0,
    task: Synthetic = HiddenWords(),  # noqa: B008  # frozen
) -> TokenEpisodes:
    words = np.array(tiny_lm().encode(" good bad great film"))
    space = TokenSpace(length, words, shortest)
    return TokenEpisodes(Objective(task, tiny_lm(), Budget(rows)), space, n)


def test_starts_are_scored_first() -> None:
    task = Batches()
    search(task, tiny_lm(), quick("tokens", "A2C"), 20 * N_EXAMPLES, length=2, start=" good bad")
    assert task.calls[:2] == [1, 8]


def differing(one: TokenPrompt, other: TokenPrompt) -> int:
    return sum(a != b for a, b in zip(one.ids, other.ids, strict=True))


@pytest.mark.parametrize("name", list(KNOWN["tokens"]))
def test_every_algorithm_of_tokens_edits(name: str) -> None:
    optimiser = editing(name)
    for length in (Length(3, 2), 3):
        task = Noted()
        found = search(task, tiny_lm(), optimiser, 28 * N_EXAMPLES, length=length)
        assert (found.status, found.n_prompts, found.n_distinct) == ("finished", 28, 28)
    # Of one length a token is replaced or two are swapped; the first are four starts and theirs.
    for i in range(8, 28):
        assert min(differing(task.asked[i], before) for before in task.asked[:i]) <= 2


def test_edits_are_of_the_starts_which_are_scored_first() -> None:
    task, optimiser = Noted(), editing("A2C")
    starts = [" good bad film", " it was great"]
    search(task, tiny_lm(), optimiser, 20 * N_EXAMPLES, length=3, start=starts)
    first = [TokenPrompt(tiny_lm().encode(start)) for start in starts]
    assert task.asked[:2] == first
    for prompt in task.asked[2:6]:
        assert min(differing(prompt, start) for start in first) <= 2


def test_what_is_learnt_of_edits() -> None:
    """A hidden third of 30 words: the last quarter of 1,000 prompts is above the first."""
    optimiser = RL("A2C", prompts=8, words=30, settings=FAST, environment="edits")
    rows, words = 1000 * N_EXAMPLES, {"words": 30}
    found = search(HiddenWords(), tiny_lm(), optimiser, rows, seed=1, tokens=words)
    rewards = np.array([reward for _, reward in found.points])
    # Edited prompts are alike in most of their tokens: of 250, a fifth or so are independent.
    assert rewards[-250:].mean() > rewards[:250].mean() + 0.2


def test_a_search_by_edits_that_is_cut_goes_on(tmp_path: Path) -> None:
    lives = Counted(last=9), Counted()
    goes_on(tmp_path / "study.sqlite", editing("DQN"), Counted(), lives, 28 * N_EXAMPLES)


def test_edits_that_bring_nothing_new_end_the_search() -> None:
    rows, words = 28 * N_EXAMPLES, {"words": 2}
    found = search(HiddenWords(), tiny_lm(), editing("A2C"), rows, length=2, tokens=words)
    assert (found.status, found.n_prompts) == ("finished", 4)


def test_only_the_most_promising_words_are_chosen() -> None:
    seen: set[int] = set()

    @dataclass(frozen=True)
    class Seen(HiddenWords):
        def rewards(self, lm: FrozenLM, prompts: Any, examples: Any) -> Floats:
            seen.update(token for prompt in prompts for token in prompt.ids)
            return super().rewards(lm, prompts, examples)

    search(Seen(), tiny_lm(), RL(words=5), 48 * N_EXAMPLES, tokens={"words": 50})
    assert len(seen) == 5
    assert all(tiny_lm().decode([token]).startswith(" ") for token in seen)


def test_what_hangs_on_the_process_is_set() -> None:
    there = episodes(length=3, n=4, rows=10 * N_EXAMPLES)
    given = arguments(find_algorithm("PPO", "tokens"), there, {"learning_rate": 0.1})
    assert {name: given[name] for name in ("gamma", "gae_lambda", "n_steps", "batch_size")} == {
        "gamma": 1.0,
        "gae_lambda": 1.0,
        "n_steps": 3,
        "batch_size": 12,
    }
    assert given["learning_rate"] == 0.1
    assert arguments(find_algorithm("PPO", "tokens"), there, {"n_steps": 6})["batch_size"] == 24
    dqn = arguments(find_algorithm("DQN", "tokens"), there, {})
    # Ten prompts are three rollouts of twelve actions.
    assert (dqn["buffer_size"], dqn["train_freq"], dqn["gradient_steps"]) == (36, 3, 3)
    assert (dqn["target_update_interval"], dqn["exploration_final_eps"]) == (12, 0.25)
    assert "gae_lambda" not in dqn


def test_a_policy_sees_the_tokens_so_far_and_how_many_there_are() -> None:
    box = spaces.Box(-9, 9, (4,), dtype=np.int64)
    extractor = Written(
        box, torch.tensor([5, 7, 9]), torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    )
    seen = extractor(
        torch.tensor([[0.0, 0, 0, 0], [9, 5, 0, 2], [7, 0, 0, -1], [5, 5, 9, 3]])  # a stop, the end
    )
    torch.testing.assert_close(
        seen,
        torch.tensor(
            [
                [0, 0, 0, 0, 0, 0, 1, 0, 0],
                [0.5, 0.6, 0.1, 0.2, 0, 0, 0, 0, 1],
                [0.3, 0.4, 0, 0, 0, 0, 0, 0, 0],
                [0.1, 0.2, 0.1, 0.2, 0.5, 0.6, 0, 0, 0],
            ]
        ),
    )
    assert extractor.features_dim == 9


def test_a_policy_of_edits_sees_how_many_are_left_too() -> None:
    box = spaces.Box(np.zeros(5), np.array([9, 9, 9, 3, 8]), dtype=np.int64)
    tokens, components = torch.tensor([5, 9]), torch.tensor([[0.1], [0.5]])
    extractor = Edited(box, tokens, components)
    seen = extractor(torch.tensor([[9.0, 5, 0, 2, 8], [5, 5, 9, 3, 2]]))
    torch.testing.assert_close(
        seen, torch.tensor([[0.5, 0.1, 0, 0, 0, 1, 1.0], [0.1, 0.1, 0.5, 0, 0, 0, 0.25]])
    )
    assert extractor.features_dim == 7


def test_gains_of_edits_are_in_standard_deviations_of_rewards() -> None:
    space = TokenSpace(2, np.array(tiny_lm().encode(" good bad great film")))
    objective = Objective(HiddenWords(), tiny_lm(), Budget(1000))
    there = EditEpisodes(objective, space, 4, 3, 4, np.random.default_rng(0))
    envs = Gains(PromptVecEnv(there), objective.ledger)
    envs.reset()
    before = there.prompts()
    _, rewards, _, _ = envs.step(np.arange(4))
    gains = [
        there.known[now] - there.known[was]
        for was, now in zip(before, there.prompts(), strict=True)
    ]
    spread = np.std([reward for _, reward in objective.ledger.points])
    assert any(gains)
    np.testing.assert_allclose(rewards, np.array(gains) / spread, rtol=1e-5)


def test_rewards_are_above_the_mean_of_all_so_far() -> None:
    there = episodes(length=1)
    envs = Standardised(PromptVecEnv(there), there.objective.ledger)
    envs.reset()
    for n in (1, 2):
        _, rewards, _, _ = envs.step(np.arange(4))
        earned = np.array([reward for _, reward in there.objective.ledger.points])
        assert len(earned) == 4 * n
        expected = (earned[-4:] - earned.mean()) / (earned.std() or 1)
        np.testing.assert_allclose(rewards, expected, rtol=1e-5, atol=1e-6)


def test_a_rollout_that_earns_nothing_is_below_one_that_did() -> None:
    @dataclass(frozen=True)
    class Right(Synthetic):
        """1 for a prompt of the first four that are scored, and 0 from then on."""

        calls: list[int] = field(default_factory=list)

        def rewards(self, lm: FrozenLM, prompts: Any, examples: Any) -> Floats:
            self.calls.append(len(prompts))
            return np.full((len(prompts), len(examples)), float(len(self.calls) == 1))

    there = episodes(length=1, task=Right())
    envs = Standardised(PromptVecEnv(there), there.objective.ledger)
    envs.reset()
    first, second = (envs.step(np.arange(4))[1] for _ in range(2))
    assert first.tolist() == [0.0] * 4  # nothing is known of the spread
    assert second.tolist() == [-1.0] * 4  # four of 1 and four of 0: mean and spread are a half


OWN = """
from gymnasium.spaces import Box
from stable_baselines3 import A2C, SAC
from stable_baselines3.common.base_class import BaseAlgorithm

class Eager(A2C):
    def __init__(self, *args, eagerness=1, **kwargs):
        super().__init__(*args, **kwargs, ent_coef=eagerness)

class Idle(A2C):
    def learn(self, *args, **kwargs):
        return self

class Actor(SAC):
    pass

class Numbers(BaseAlgorithm):
    def __init__(self, policy, env, learning_rate=0.1, policy_kwargs=None):
        policy = SAC.policy_aliases["MlpPolicy"]
        super().__init__(policy, env, learning_rate, supported_action_spaces=(Box,))

    def _setup_model(self):
        pass

    def learn(self, *args, **kwargs):
        return self

number = 3
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    """A file with algorithms of a person's own."""
    (tmp_path / "own.py").write_text(OWN)
    return str(tmp_path / "own.py")


def test_an_algorithm_of_ones_own_is_named_by_its_place(own: str) -> None:
    optimiser = RL(f"{own}:Eager", prompts=4, settings={"eagerness": 0.5})
    found = search(HiddenWords(), tiny_lm(), optimiser, 12 * N_EXAMPLES, length=2)
    assert found.n_prompts == 12


def test_one_that_scores_nothing_ends(own: str) -> None:
    found = search(HiddenWords(), tiny_lm(), RL(f"{own}:Idle"), 12 * N_EXAMPLES, length=2)
    assert (found.status, found.n_prompts) == ("finished", 0)


def test_one_that_is_made_from_an_algorithm_for_numbers_chooses_no_tokens(own: str) -> None:
    with pytest.raises(ValueError, match=r"own\.py:Actor is SAC, which chooses numbers and no tok"):
        RL(f"{own}:Actor")
    with pytest.raises(ValueError, match="is DQN, which chooses one of a list and no numbers"):
        SoftRL("stable_baselines3.dqn:DQN")


@pytest.mark.parametrize("environment", ["tokens", "edits"])
def test_one_of_another_package_that_chooses_numbers_is_refused_unpaid(
    own: str, environment: Environment
) -> None:
    task, wrong = Batches(), RL(f"{own}:Numbers", environment=environment)
    with pytest.raises(ValueError, match=r"Numbers refuses .* only supports .*Box"):
        search(task, tiny_lm(), wrong, 12 * N_EXAMPLES, length=1, start=" good")
    assert task.calls == []


@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")
@pytest.mark.parametrize(
    ("optimiser", "refused"),
    [
        (RL("MaskablePPO", prompts=1), True),
        (RL("RecurrentPPO", prompts=1), True),
        (SoftRL("RecurrentPPO", prompts=1), True),
        (RL("A2C", prompts=1, settings={"normalize_advantage": True}), True),
        (RL("MaskablePPO", prompts=3, settings={"batch_size": 2}), True),  # and 1 is left
        (RL("TRPO", prompts=3, settings={"sub_sampling_factor": 3}), True),
        (RL("TRPO", prompts=3, settings={"batch_size": 2}), False),  # only its critic's
        (RL("MaskablePPO", prompts=1, settings={"normalize_advantage": False}), False),
        (RL("A2C", prompts=1), False),
        (RL("MaskablePPO", prompts=2), False),
    ],
)
def test_a_step_of_one_action_is_refused_unpaid_where_it_would_break_the_policy(
    optimiser: RL | SoftRL, refused: bool
) -> None:
    """The deviation of one advantage is NaN, and so were all weights after the first step."""
    task = Batches(inner=HiddenWords() if optimiser.searches == "tokens" else HiddenVectors())
    rows = 4 * N_EXAMPLES
    if not refused:
        assert search(task, tiny_lm(), optimiser, rows, length=1).n_prompts == 4
        return
    with pytest.raises(ValueError, match=r"normalises advantages, .* 1, which has no deviation"):
        search(task, tiny_lm(), optimiser, rows, length=1)
    assert task.calls == []


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (RL, {"algorithm": "SAC"}, "SAC chooses numbers and no tokens; the optimiser rl-soft has"),
        (RL, {"algorithm": "A2"}, "no algorithm is called 'A2'; did you mean 'A2C'?"),
        (RL, {"algorithm": "ARS"}, "no algorithm is called 'ARS'; known: A2C, DQN, PPO, Mask"),
        (RL, {"settings": {"learning_rat": 1}}, "A2C has no setting 'learning_rat'; did you mean"),
        (RL, {"settings": {"seed": 1}}, "seed is no setting of a search: leave it out"),
        (RL, {"prompts": 0}, "prompts is 1 or more, got 0"),
        (RL, {"words": 1}, "words is 2 or more, got 1"),
        (RL, {"environment": "words"}, "environment is 'words'; give tokens or edits"),
        (
            RL,
            {"algorithm": "SAC", "environment": "edits"},
            "SAC chooses numbers and no tokens; the optimiser rl-soft has",
        ),
        (RL, {"algorithm": "no.such:A2C"}, "there is no module 'no.such'"),
        (RL, {"algorithm": "numpy:ndarray"}, "numpy:ndarray is no Stable-Baselines3 algorithm"),
        (
            SoftRL,
            {"algorithm": "DQN"},
            "DQN chooses one of a list and no numbers; the optimiser rl",
        ),
        (SoftRL, {"algorithm": "MaskablePPO"}, "MaskablePPO chooses one of a list and no numbers"),
        (SoftRL, {"algorithm": "TD4"}, "no algorithm is called 'TD4'; did you mean 'TD3'?"),
        (SoftRL, {"dimension": 0}, "dimension is 1 or more, got 0"),
        (SoftRL, {"alpha": float("inf")}, "alpha is above 0, got inf"),
        (RL, {"settings": {"n_steps": 0}}, "A2C: n_steps is 1 or more, got 0"),
        (RL, {"settings": {"n_steps": np.int64(0)}}, "A2C: n_steps is 1 or more, got 0"),
        (RL, {"settings": {"n_steps": 3.5}}, "A2C: n_steps must be a whole number, got 3.5"),
        (RL, {"settings": {"learning_rate": 0}}, "A2C: learning_rate is above 0, got 0"),
        (RL, {"settings": {"learning_rate": "1e-3"}}, "A2C: learning_rate must be a number, got"),
        (RL, {"settings": {"gamma": 2}}, "A2C: gamma is a share from 0 up to 1, got 2"),
        (RL, {"settings": {"policy_kwargs": 3}}, "A2C: policy_kwargs must be keys with values"),
        (RL, DQN | {"settings": {"train_freq": 0}}, "DQN: train_freq is 1 or more, got 0"),
        (
            RL,
            DQN | {"settings": {"train_freq": (0, "step")}},
            "DQN: train_freq is 1 or more, got 0",
        ),
        (RL, DQN | {"settings": {"batch_size": 0}}, "DQN: batch_size is 1 or more, got 0"),
        (RL, DQN | {"settings": {"buffer_size": 0}}, "DQN: buffer_size is 1 or more, got 0"),
        (RL, DQN | {"settings": {"gradient_steps": "x"}}, "DQN: gradient_steps must be a whole"),
        (RL, DQN | {"settings": {"gradient_steps": 0}}, "DQN: gradient_steps is 1 or more, or -1"),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    make: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        make(**settings)


def test_what_an_algorithm_takes_is_not_refused() -> None:
    """A rate that falls, a frequency with its unit, a step for every action, nothing discounted."""
    RL("A2C", settings={"learning_rate": lambda left: 0.01 * left, "gamma": 1, "ent_coef": 0})
    RL("A2C", settings={"n_steps": np.int64(16)})
    RL("DQN", settings={"train_freq": (4, "step"), "gradient_steps": -1, "learning_starts": 0})
    SoftRL("SAC", settings={"ent_coef": "auto", "learning_rate": 1})


def test_a_value_that_the_algorithm_does_not_take_is_refused_unpaid() -> None:
    task, wrong = Batches(), RL(settings={"policy_kwargs": {"net_arc": [8]}})
    with pytest.raises(ValueError, match=r"^A2C refuses its settings: .*net_arc"):
        search(task, tiny_lm(), wrong, 12 * N_EXAMPLES, length=1, start=" good")
    assert task.calls == []


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_without_sb3_contrib_the_others_go_on(
    kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if n == "sb3_contrib" else find(n)
    )
    if PACKAGES[name] == "stable_baselines3":
        quick(kind, name)
        return
    with pytest.raises(ValueError, match=r"sb3-contrib: pip install 'rlprompt\[rl\]'"):
        quick(kind, name)


def test_an_experiment_names_it_in_a_line() -> None:
    made: Any = make_optimiser("rl", {"algorithm": "PPO", "settings": {"n_epochs": 3}})
    assert made == RL("PPO", settings={"n_epochs": 3})
    assert make_optimiser("rl", {"environment": "edits"}) == RL(environment="edits")
    with pytest.raises(ValueError, match="optimiser rl: SAC chooses numbers"):
        make_optimiser("rl", {"algorithm": "SAC"})


def test_its_settings_are_in_the_result() -> None:
    optimiser = RL("A2C", prompts=4, settings={"learning_rate": 0.01})
    found = search(HiddenWords(), tiny_lm(), optimiser, 8 * N_EXAMPLES, length=2)
    assert found.settings["algorithm"] == "A2C"
    assert found.settings["settings"] == {"learning_rate": 0.01}
    assert isinstance(found.best.prompt, TokenPrompt)
