from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from forks import done, python
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from synthetic import N_EXAMPLES, Batches, HiddenVectors, HiddenWords, Synthetic
from tiny import tiny_lm

import rlprompt.envs
from rlprompt.envs import (
    EmbeddingPromptEnv,
    PromptVecEnv,
    TokenPromptEnv,
    TokenPromptVectorEnv,
)
from rlprompt.envs.embedding_prompt import EmbeddingEpisodes
from rlprompt.envs.episodes import Array, Episodes, PromptEnv, PromptVectorEnv
from rlprompt.envs.token_prompt import TokenEpisodes
from rlprompt.prompt import Length, TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.objective import BudgetExhausted, Objective
from rlprompt.search.space import SoftSpace, TokenSpace
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.template import Template
from rlprompt.types import PromptKind

LENGTH = 3
N_ENVS = 4
KINDS: tuple[PromptKind, ...] = ("tokens", "soft")


def task(kind: PromptKind) -> Synthetic:
    return HiddenWords(share=0.5) if kind == "tokens" else HiddenVectors()


def objective(kind: PromptKind, rows: int = 10_000) -> Objective:
    return Objective(task(kind), tiny_lm(), Budget(rows))


def space(kind: PromptKind) -> TokenSpace | SoftSpace:
    if kind == "tokens":
        return TokenSpace.from_lm(tiny_lm(), LENGTH)
    rng = np.random.default_rng(0)
    return SoftSpace.from_lm(tiny_lm(), LENGTH, rng).stepwise(4, rng)


def single(kind: PromptKind, rows: int = 10_000) -> PromptEnv:
    env = gymnasium.make(env_id(kind), objective=objective(kind, rows), space=space(kind))
    assert isinstance(env.unwrapped, PromptEnv)
    return env.unwrapped


def vector(kind: PromptKind, rows: int = 10_000, n: int = N_ENVS) -> PromptVectorEnv:
    envs = gymnasium.make_vec(
        env_id(kind), num_envs=n, objective=objective(kind, rows), space=space(kind)
    )
    assert isinstance(envs, PromptVectorEnv)
    return envs


def episodes(kind: PromptKind, rows: int = 10_000, n: int = N_ENVS) -> Episodes:
    where = space(kind)
    if isinstance(where, TokenSpace):
        return TokenEpisodes(objective(kind, rows), where, n)
    return EmbeddingEpisodes(objective(kind, rows), where, n)


def env_id(kind: PromptKind) -> str:
    return "rlprompt/TokenPrompt-v0" if kind == "tokens" else "rlprompt/EmbeddingPrompt-v0"


def actions(kind: PromptKind, n_steps: int = LENGTH) -> list[Array]:
    envs = vector(kind)
    envs.action_space.seed(3)
    return [envs.action_space.sample() for _ in range(n_steps)]


WITHOUT_IMPORT = """
import sys
import gymnasium, numpy as np
for known, ours in ((sys.modules, "rlprompt.envs"), (gymnasium.registry, "rlprompt/")):
    for name in [name for name in known if name.startswith(ours)]:
        del known[name]
from rlprompt import Objective
from rlprompt.check.toy import ToyTask, toy_lm
from rlprompt.search import Budget, SoftSpace, TokenSpace
lm, rng = toy_lm(), np.random.default_rng(0)
tokens, vectors = TokenSpace.from_lm(lm, 3), SoftSpace.from_lm(lm, 3, rng)
assert "rlprompt.envs" not in sys.modules
for name, space in (("EditPrompt", tokens), ("EmbeddingPrompt", vectors), ("TokenPrompt", tokens)):
    settings = dict(objective=Objective(ToyTask(), lm, Budget(100)), space=space)
    env = gymnasium.make(f"rlprompt.envs:rlprompt/{name}-v0", **settings)
    envs = gymnasium.make_vec(f"rlprompt.envs:rlprompt/{name}-v0", num_envs=2, **settings)
    env.reset(seed=0), envs.reset(seed=0)
    print(type(env.unwrapped).__name__, type(envs.unwrapped).__name__)
"""


def test_gymnasium_makes_them_without_an_import_of_the_envs(tmp_path: Path) -> None:
    done(python, tmp_path / "said", WITHOUT_IMPORT)
    names = ("EditPrompt", "EmbeddingPrompt", "TokenPrompt")
    made = [f"{name}{ending}" for name in names for ending in ("Env", "VectorEnv")]
    assert (tmp_path / "said").read_text().split() == made


@pytest.mark.parametrize("kind", KINDS)
def test_gymnasium_approves(kind: PromptKind) -> None:
    env = gymnasium.make(
        env_id(kind), objective=objective(kind), space=space(kind), render_mode="ansi"
    )
    gymnasium_check_env(env.unwrapped)


@pytest.mark.parametrize("kind", KINDS)
def test_sb3_approves(kind: PromptKind) -> None:
    sb3_check_env(single(kind), skip_render_check=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_made_environment_runs_through_all_its_wrappers(kind: PromptKind) -> None:
    env = gymnasium.make(env_id(kind), objective=objective(kind), space=space(kind))
    env.action_space.seed(0)
    env.reset(seed=0)
    rewards = [env.step(env.action_space.sample())[1] for _ in range(LENGTH)]
    assert rewards[:-1] == [0.0] * (LENGTH - 1)
    assert rewards[-1] != 0


def test_the_reward_is_the_prompts_mean_train_reward_and_comes_at_the_last_token() -> None:
    where, scored = space("tokens"), objective("tokens")
    assert isinstance(where, TokenSpace)
    env = TokenPromptEnv(scored, where)
    env.reset()
    picked = [5, 0, len(where.allowed) - 1]
    steps = [env.step(action) for action in picked]
    expected = TokenPrompt(where.allowed[picked])
    ids = list(expected.ids)
    assert [step[0].tolist() for step in steps] == [
        [ids[0], 0, 0, 1],
        [ids[0], ids[1], 0, 2],
        [*ids, 3],
    ]
    reward = scored.evaluate([expected]).rewards[0]
    assert [step[1:] for step in steps] == [
        (0.0, False, False, {}),
        (0.0, False, False, {}),
        (reward, True, False, {}),
    ]


@pytest.mark.parametrize("full", [True, False])
def test_a_vector_is_its_coordinates_away_from_the_start(full: bool) -> None:
    rng = np.random.default_rng(0)
    where = SoftSpace.from_lm(tiny_lm(), LENGTH, rng)
    where = where if full else where.stepwise(4, rng)
    scored = objective("soft")
    env = EmbeddingPromptEnv(scored, where)
    env.reset()
    chosen = [env.action_space.sample() for _ in range(LENGTH)]
    observation, reward, terminated, _, _ = [env.step(action) for action in chosen][-1]
    np.testing.assert_array_equal(observation[:-1], np.concatenate(chosen))
    assert observation[-1] == LENGTH
    assert terminated
    best = scored.ledger.best(1)[0]
    assert best.prompt == where.prompt(np.concatenate(chosen))
    assert best.reward == reward


@pytest.mark.parametrize("kind", KINDS)
def test_single_and_vector_forms_agree_to_the_last_digit(kind: PromptKind) -> None:
    envs, sb3 = vector(kind), PromptVecEnv(episodes(kind))
    envs.reset()
    sb3.reset()
    alone = [single(kind) for _ in range(N_ENVS)]
    for env in alone:
        env.reset()
    for chosen in actions(kind):
        observations, rewards, terminated, truncated, _ = envs.step(chosen)
        seen, sb3_rewards, done, infos = sb3.step(chosen)
        for i, env in enumerate(alone):
            one = env.step(chosen[i])
            np.testing.assert_array_equal(one[0], observations[i])
            assert one[1:4] == (rewards[i], terminated[i], truncated[i])
            assert np.float32(one[1]) == sb3_rewards[i]
            assert done[i] == terminated[i]
            last = infos[i]["terminal_observation"] if done[i] else np.asarray(seen)[i]
            np.testing.assert_array_equal(last, observations[i])
    assert terminated.all()
    assert not truncated.any()
    np.testing.assert_array_equal(np.asarray(seen), 0)  # the next episode's first


@pytest.mark.parametrize("kind", KINDS)
def test_forms_agree_on_a_real_task(kind: PromptKind) -> None:
    real = ClassificationTask(
        "real", Synthetic().splits, Template("{text} {prompt}"), {"good": "good", "bad": "bad"}
    )
    where = space(kind)
    envs = gymnasium.make_vec(
        env_id(kind),
        num_envs=N_ENVS,
        objective=Objective(real, tiny_lm(), Budget(1000)),
        space=where,
    )
    env = gymnasium.make(
        env_id(kind), objective=Objective(real, tiny_lm(), Budget(1000)), space=where
    )
    envs.reset()
    env.reset()
    for chosen in actions(kind):
        rewards = envs.step(chosen)[1]
        reward = env.step(chosen[0])[1]
    # float32 log-likelihoods times rewards of up to 200, batched differently.
    assert reward == pytest.approx(rewards[0], abs=1e-2)


@pytest.mark.parametrize("form", ["gymnasium", "sb3"])
def test_a_step_scores_all_finished_prompts_in_one_call(form: str) -> None:
    counting = Batches(inner=task("tokens"))
    scored = Objective(counting, tiny_lm(), Budget(1000))
    where = space("tokens")
    assert isinstance(where, TokenSpace)
    envs: PromptVecEnv | TokenPromptVectorEnv = (
        PromptVecEnv(TokenEpisodes(scored, where, N_ENVS))
        if form == "sb3"
        else TokenPromptVectorEnv(scored, where, N_ENVS)
    )
    envs.reset()
    for chosen in actions("tokens"):
        envs.step(chosen)
    assert counting.calls == [N_ENVS]


def test_masked_resets_let_episodes_run_out_of_step() -> None:
    envs = vector("tokens", n=2)
    envs.reset()
    first = actions("tokens", 2 * LENGTH)
    envs.step(first[0][:2])
    observations, _ = envs.reset(options={"reset_mask": np.array([False, True])})
    assert observations[:, -1].tolist() == [1, 0]
    envs.step(first[1][:2])
    _, _, terminated, _, _ = envs.step(first[2][:2])
    assert terminated.tolist() == [True, False]
    with pytest.raises(ResetNeeded):
        envs.step(first[3][:2])
    envs.reset(options={"reset_mask": terminated})
    _, _, terminated, _, _ = envs.step(first[3][:2])
    assert terminated.tolist() == [False, True]
    with pytest.raises(ValueError, match="reset_mask"):
        envs.reset(options={"reset_mask": np.array([1, 0])})


def test_the_vector_form_resets_by_hand() -> None:
    assert vector("tokens").metadata["autoreset_mode"] == AutoresetMode.DISABLED


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_budget_still_covers_is_recorded(kind: PromptKind) -> None:
    covered = N_ENVS - 1
    for envs in (
        PromptVecEnv(episodes(kind, covered * N_EXAMPLES)),
        vector(kind, covered * N_EXAMPLES),
    ):
        envs.reset()
        chosen = actions(kind)
        for action in chosen[:-1]:
            envs.step(action)
        with pytest.raises(BudgetExhausted):
            envs.step(chosen[-1])
        ledger = envs._episodes.objective.ledger
        assert ledger.n_prompts == covered
        assert ledger.used == covered * N_EXAMPLES


def test_a_look_at_the_spec_copies_no_model() -> None:
    scored = objective("tokens")
    env = gymnasium.make(env_id("tokens"), objective=scored, space=space("tokens"))
    assert env.spec is not None
    assert env.spec.kwargs["objective"] is scored


def test_render_shows_the_text_so_far() -> None:
    where = space("tokens")
    assert isinstance(where, TokenSpace)
    env = TokenPromptEnv(objective("tokens"), where, render_mode="ansi")
    env.reset()
    assert env.render() == ""
    good, bad = (where.allowed.tolist().index(tiny_lm().encode(w)[0]) for w in (" good", " bad"))
    env.step(good)
    env.step(bad)
    assert env.render() == " good bad"
    assert TokenPromptEnv(objective("tokens"), where).render() is None


def test_render_shows_the_nearest_tokens_of_vectors() -> None:
    token = tiny_lm().encode(" great")[0]
    start = tiny_lm().embeddings()[[token, token]]
    where = SoftSpace(start, float(tiny_lm().embeddings().std()))
    env = EmbeddingPromptEnv(objective("soft"), where, render_mode="ansi")
    env.reset()
    env.step(np.zeros(where.step_dimension, dtype=np.float32))
    assert env.render() == " great"


def test_bad_input_is_refused_with_a_reason() -> None:
    tokens, soft = space("tokens"), space("soft")
    assert isinstance(tokens, TokenSpace)
    assert isinstance(soft, SoftSpace)
    with pytest.raises(ValueError, match="ansi"):
        TokenPromptEnv(objective("tokens"), tokens, render_mode="human")
    with pytest.raises(ValueError, match="stepwise"):
        EmbeddingPromptEnv(objective("soft"), soft.subspace(4, np.random.default_rng(0)))
    env = TokenPromptEnv(objective("tokens"), tokens)
    env.reset()
    for wrong in (len(tokens.allowed), -1):
        with pytest.raises(ValueError, match="index into the allowed ids"):
            env.step(wrong)
    other = EmbeddingPromptEnv(objective("soft"), soft)
    other.reset()
    for vector_ in ([0, 0, 0, 1.1], [0, 0, 0, np.nan], [0, 0, 0]):
        with pytest.raises(ValueError, match="from -1 to 1"):
            other.step(np.array(vector_))


def test_a_refused_action_changes_nothing() -> None:
    env = single("tokens")
    env.reset()
    with pytest.raises(ValueError, match="index"):
        env.step(-1)
    assert env.step(0)[0][-1] == 1


def test_the_sb3_form_says_that_its_environments_have_nothing_of_their_own() -> None:
    envs = PromptVecEnv(episodes("tokens"))
    assert envs.get_attr("num_envs", [0, 1]) == [N_ENVS, N_ENVS]
    assert envs.env_is_wrapped(gymnasium.Wrapper) == [False] * N_ENVS
    assert not envs.has_attr("action_masks")
    with pytest.raises(AttributeError, match="of their own"):
        envs.set_attr("x", 1)
    with pytest.raises(AttributeError, match="of their own"):
        envs.env_method("action_masks")
    envs.close()


def ranged(shortest: int = 1) -> TokenSpace:
    return TokenSpace.from_lm(tiny_lm(), Length(LENGTH, shortest))


def test_checkers_approve_of_prompts_that_differ_in_length() -> None:
    env = gymnasium.make(
        env_id("tokens"), objective=objective("tokens"), space=ranged(), render_mode="ansi"
    )
    gymnasium_check_env(env.unwrapped)
    sb3_check_env(TokenPromptEnv(objective("tokens"), ranged(), "ansi"), skip_render_check=False)


def test_an_exact_length_has_no_stop() -> None:
    env = TokenPromptEnv(objective("tokens"), ranged(LENGTH))
    assert env.action_space == single("tokens").action_space
    assert env.observation_space == single("tokens").observation_space
    assert env.reset()[1] == {}


def test_a_stop_completes_a_prompt_that_is_long_enough() -> None:
    where, scored = ranged(2), objective("tokens")
    stop = len(where.allowed)
    env = TokenPromptEnv(scored, where)
    assert env.action_space == gymnasium.spaces.Discrete(stop + 1)
    _, info = env.reset()
    assert info["action_mask"].tolist() == [1] * stop + [0]
    steps = [env.step(action) for action in (stop, 5, stop, 7, stop)]
    a, b = where.allowed[[5, 7]].tolist()
    assert [step[0].tolist() for step in steps] == [
        [0, 0, 0, 0],  # too early: nothing changes
        [a, 0, 0, 1],
        [a, 0, 0, 1],
        [a, b, 0, 2],
        [a, b, 0, -2],
    ]
    assert [int(step[4]["action_mask"][stop]) for step in steps] == [0, 0, 0, 1, 1]
    assert [step[2] for step in steps] == [False] * 4 + [True]
    assert [step[1] for step in steps[:4]] == [0.0] * 4
    assert steps[4][1] == scored.ledger.best_reward
    assert scored.ledger.best(1)[0].prompt == TokenPrompt([a, b])
    assert all(env.observation_space.contains(step[0]) for step in steps)
    with pytest.raises(ResetNeeded):
        env.step(0)
    assert env.reset()[0].tolist() == [0, 0, 0, 0]


def test_a_prompt_of_the_longest_length_needs_no_stop() -> None:
    env = TokenPromptEnv(objective("tokens"), ranged())
    env.reset()
    steps = [env.step(action) for action in range(LENGTH)]
    assert [step[2] for step in steps] == [False, False, True]
    assert steps[-1][0][-1] == LENGTH


@pytest.mark.parametrize("form", ["gymnasium", "sb3"])
def test_who_stops_waits_and_all_are_scored_in_one_call(form: str) -> None:
    counting = Batches(inner=task("tokens"))
    scored, where = Objective(counting, tiny_lm(), Budget(1000)), ranged()
    stop = len(where.allowed)
    envs: PromptVecEnv | TokenPromptVectorEnv = (
        PromptVecEnv(TokenEpisodes(scored, where, 3))
        if form == "sb3"
        else TokenPromptVectorEnv(scored, where, 3)
    )
    envs.reset()
    steps = [envs.step(np.array(a)) for a in ([4, 5, 6], [stop, 8, 9], [1, stop, 10])]
    assert [step[2].tolist() for step in steps] == [[False] * 3, [False] * 3, [True] * 3]
    assert not steps[1][1].any()
    assert counting.calls == [3]
    expected = [TokenPrompt(where.allowed[ids]) for ids in ([4], [5, 8], [6, 9, 10])]
    assert scored.ledger.used == 3 * N_EXAMPLES
    rewards = objective("tokens").evaluate(expected).rewards
    np.testing.assert_allclose(steps[2][1], rewards, rtol=1e-6)
    infos: Any = steps[1][-1]
    masks = [one["action_mask"] for one in infos] if form == "sb3" else infos["action_mask"]
    # The first has stopped and can do nothing else; the others go on or stop.
    assert np.array(masks).sum(axis=1).tolist() == [1, stop + 1, stop + 1]


def test_rollouts_of_the_longest_length_hold_whole_episodes() -> None:
    where = ranged()
    stop = len(where.allowed)
    envs = PromptVecEnv(TokenEpisodes(objective("tokens"), where, 2))
    envs.reset()
    for _ in range(2):
        done = [envs.step(np.array(a))[2].all() for a in ([4, 5], [stop, stop], [stop, stop])]
        assert done == [False, False, True]
    together = TokenPromptVectorEnv(objective("tokens"), where, 2)
    together.reset()
    done = [together.step(np.array(a))[2].all() for a in ([4, 5], [stop, stop])]
    assert done == [False, True], "in Gymnasium's form all end when the last has stopped"


def test_masks_are_there_for_algorithms_that_ask() -> None:
    envs = PromptVecEnv(TokenEpisodes(objective("tokens"), ranged(), 2))
    envs.reset()
    assert envs.has_attr("action_masks")
    masks = np.stack(envs.env_method("action_masks"))
    assert masks.shape == (2, len(ranged().allowed) + 1)
    assert masks[:, -1].tolist() == [0, 0]
    np.testing.assert_array_equal(masks[0], envs.reset_infos[0]["action_mask"])


def test_an_action_beyond_the_stop_is_refused() -> None:
    env = TokenPromptEnv(objective("tokens"), ranged())
    env.reset()
    stop = len(ranged().allowed)
    with pytest.raises(ValueError, match=f"0 to {stop - 1}, or {stop} to stop"):
        env.step(stop + 1)


def test_public_names_exist() -> None:
    assert all(hasattr(rlprompt.envs, name) for name in rlprompt.envs.__all__)
