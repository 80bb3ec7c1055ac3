"""Edits of a prompt: what each does, what may be done, what it earns, and what is paid."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3 import A2C
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn
from stored_search import Counted
from synthetic import N_EXAMPLES, Noted
from tiny import tiny_lm

from rlprompt.envs import EditEpisodes, EditPromptEnv, EditPromptVectorEnv, PromptVecEnv
from rlprompt.envs.edits import KINDS, Edit, Edits
from rlprompt.prompt import TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.objective import BudgetExhausted, Objective
from rlprompt.search.space import TokenSpace
from rlprompt.tasks.base import Task
from rlprompt.types import Ids

RNG = np.random.default_rng
ENV = "rlprompt/EditPrompt-v0"
START = TokenPrompt((41, 48))
# Two or three tokens out of ten.
SPACE = TokenSpace(3, np.arange(40, 50), shortest=2, starts=(START,))
FIXED = TokenSpace(2, np.arange(40, 50), starts=(START,))


def objective(rows: int = 10_000, task: Task | None = None) -> Objective:
    return Objective(task or Noted(share=0.5), tiny_lm(), Budget(rows))


def number(env: Any, *edit: Any) -> int:
    """Of an edit."""
    place: int = env.edits.index(Edit(*edit))
    return place


def worth(*ids: int) -> float:
    """A prompt's mean train reward."""
    return float(objective().evaluate([TokenPrompt(ids)]).rewards[0])


@pytest.mark.parametrize(
    ("edit", "after"),
    [
        (Edit("replace", 1, 9), (5, 9, 7, 8)),
        (Edit("insert", 0, 9), (9, 5, 6, 7, 8)),
        (Edit("insert", 4, 9), (5, 6, 7, 8, 9)),
        (Edit("delete", 3), (5, 6, 7)),
        (Edit("swap", 0, 2), (7, 6, 5, 8)),
        (Edit("swap", 2, 3), (5, 6, 8, 7)),
        (Edit("stop"), (5, 6, 7, 8)),
    ],
)
def test_what_an_edit_does(edit: Edit, after: Ids) -> None:
    assert edit.applied(TokenPrompt((5, 6, 7, 8))).ids == after


def test_edits_have_an_order_that_one_can_count_on() -> None:
    edits = Edits(TokenSpace(2, np.array([5, 9]), shortest=1), np.array([5, 9]))
    assert edits.every == (
        *(Edit("replace", 0, 5), Edit("replace", 0, 9), Edit("replace", 1, 5)),
        *(Edit("replace", 1, 9), Edit("insert", 0, 5), Edit("insert", 0, 9)),
        *(Edit("insert", 1, 5), Edit("insert", 1, 9), Edit("delete", 0), Edit("delete", 1)),
        *(Edit("swap", 0, 1), Edit("stop")),
    )
    fixed = Edits(TokenSpace(2, np.array([5, 9])), np.array([5, 9]))
    assert {edit.kind for edit in fixed.every} == set(KINDS) - {"insert", "delete"}
    assert [edit.kind for edit in Edits(TokenSpace(1, np.array([5])), np.array([5])).every] == [
        "replace",
        "stop",
    ]


@pytest.mark.parametrize("shortest", [1, 2, 3])
def test_possible_is_what_makes_another_prompt_of_the_space(shortest: int) -> None:
    """Against every edit of every prompt, tried out."""
    space = TokenSpace(3, np.array([0, 7, 9]), shortest=shortest)
    edits = Edits(space, np.array([0, 7]))

    def changes(edit: Edit, prompt: TokenPrompt) -> bool:
        last = {"insert": len(prompt), "stop": -1}.get(edit.kind, len(prompt) - 1)
        if max(edit.place, edit.other if edit.kind == "swap" else 0) > last:
            return False
        after = edit.applied(prompt)
        return after != prompt and space.contains(after)

    for prompt in space.everything():
        padded = np.array([[*prompt.ids, 0, 0, 0][:3]])
        found = edits.possible(padded, np.array([len(prompt)]))[0]
        assert found[:-1].tolist() == [changes(edit, prompt) for edit in edits.every[:-1]]
        assert found[-1], "one can always stop"


@pytest.mark.parametrize("space", [SPACE, FIXED, replace(SPACE, starts=())], ids=str)
def test_checkers_approve(space: TokenSpace) -> None:
    env = gymnasium.make(ENV, objective=objective(), space=space, render_mode="ansi")
    gymnasium_check_env(env.unwrapped)
    sb3_check_env(EditPromptEnv(objective(), space, render_mode="ansi"), skip_render_check=False)


def test_gymnasium_makes_both_forms_with_their_settings() -> None:
    env = gymnasium.make(ENV, objective=objective(), space=SPACE, horizon=3, tokens=4)
    envs = gymnasium.make_vec(
        ENV, num_envs=2, objective=objective(), space=SPACE, horizon=3, tokens=4
    )
    assert isinstance(env.unwrapped, EditPromptEnv)
    assert isinstance(envs, EditPromptVectorEnv)
    assert env.unwrapped.edits == envs.edits
    put_in = {edit.other for edit in envs.edits if edit.kind == "replace"}
    assert put_in >= set(START.ids)
    assert len(put_in) <= 4 + 2
    assert env.reset()[0].tolist() == [41, 48, 0, 2, 3]
    env.action_space.seed(0)
    steps = [env.step(env.action_space.sample()) for _ in range(3)]
    assert [step[2] for step in steps] == [False, False, True]


def test_an_edit_earns_what_it_adds_and_an_episode_its_last_prompt_less_its_first() -> None:
    env = EditPromptEnv(objective(), SPACE, horizon=4)
    env.reset()
    edits = [("insert", 2, 46), ("replace", 0, 49), ("swap", 1, 2), ("delete", 0)]
    steps = [env.step(number(env, *edit)) for edit in edits]
    assert [step[0].tolist() for step in steps] == [
        [41, 48, 46, 3, 3],
        [49, 48, 46, 3, 2],
        [49, 46, 48, 3, 1],
        [46, 48, 0, 2, 0],
    ]
    prompts = [(41, 48), (41, 48, 46), (49, 48, 46), (49, 46, 48), (46, 48)]
    worths = np.array([worth(*ids) for ids in prompts])
    assert np.ptp(worths) > 0
    np.testing.assert_allclose([step[1] for step in steps], np.diff(worths), atol=1e-12)
    assert sum(step[1] for step in steps) == pytest.approx(worths[-1] - worths[0])
    # The end is part of the process and no cut: how many edits are left can be seen.
    assert [step[2:4] for step in steps] == [(False, False)] * 3 + [(True, False)]
    assert all(env.observation_space.contains(step[0]) for step in steps)
    with pytest.raises(ResetNeeded):
        env.step(0)
    assert env.reset()[0].tolist() == [41, 48, 0, 2, 4]


def test_a_prompt_is_paid_when_it_first_comes_up_and_the_start_with_the_first_edit() -> None:
    task = Noted(share=0.5)
    env = EditPromptEnv(objective(task=task), SPACE)
    env.reset()
    there, back = number(env, "replace", 0, 45), number(env, "replace", 0, 41)
    env.step(there)
    assert task.asked == [START, TokenPrompt((45, 48))]
    gains = [env.step(action)[1] for action in (back, there, back)]
    env.reset()
    env.step(there)
    assert len(task.asked) == 2
    assert gains == [-gains[1], gains[1], -gains[1]]
    env.step(number(env, "delete", 0))  # too short
    env.step(number(env, "replace", 2, 45))  # nothing is there
    env.step(there)  # is there already
    assert len(task.asked) == 2


def test_what_changes_nothing_is_an_edit_lost_and_costs_no_row() -> None:
    env = EditPromptEnv(objective(), SPACE, horizon=5)
    _, info = env.reset()
    lost = [("replace", 0, 41), ("replace", 2, 41), ("delete", 1), ("swap", 1, 2)]
    for left, edit in zip((4, 3, 2, 1), lost, strict=True):
        assert info["action_mask"][number(env, *edit)] == 0
        observation, reward, terminated, _, info = env.step(number(env, *edit))
        assert (observation.tolist(), reward, terminated) == ([41, 48, 0, 2, left], 0.0, False)
    assert env.step(number(env, "stop"))[:3][1:] == (0.0, True)
    assert env._episodes.objective.ledger.used == 0


def test_masks_say_what_is_possible_and_sampling_takes_them() -> None:
    env = EditPromptEnv(objective(), SPACE, horizon=50)
    _, info = env.reset()
    env.action_space.seed(0)
    seen = {START}
    for _ in range(30):
        action = env.action_space.sample(info["action_mask"])
        if env.edits[action].kind == "stop":
            continue
        before = env._episodes.observations()[0, :-1].tolist()
        observation, *_, info = env.step(action)
        assert observation[:-1].tolist() != before
        prompt = TokenPrompt(observation[: observation[3]])
        assert SPACE.contains(prompt)
        seen.add(prompt)
    assert len(seen) > 20


def test_a_stop_ends_the_episode() -> None:
    env = EditPromptEnv(objective(), SPACE)
    env.reset()
    env.step(0)
    observation, reward, terminated, truncated, info = env.step(number(env, "stop"))
    assert (observation[-1], reward, terminated, truncated) == (0, 0.0, True, False)
    assert info["action_mask"].nonzero()[0].tolist() == [number(env, "stop")]


@pytest.mark.parametrize("form", ["gymnasium", "sb3"])
def test_a_step_is_one_call_and_who_stops_waits(form: str) -> None:
    task = Counted(share=0.5)
    scored = objective(task=task)
    envs: PromptVecEnv | EditPromptVectorEnv = (
        PromptVecEnv(EditEpisodes(scored, SPACE, 3, 3, 10, RNG(0)))
        if form == "sb3"
        else EditPromptVectorEnv(scored, SPACE, 3, 3, 10)
    )
    envs.reset()
    edits = EditPromptEnv(scored, SPACE, 3, 10)
    one, other, stop = (
        number(edits, *edit) for edit in (("replace", 0, 44), ("replace", 1, 43), ("stop",))
    )
    steps = [
        envs.step(np.array(actions))
        for actions in ([one, one, other], [stop, other, one], [one, stop, stop])
    ]
    # The start and two prompts; what the last two come to, one prompt; and nothing.
    assert task.counts == [3, 1]
    gains = np.array([step[1] for step in steps])
    both = worth(44, 43) - worth(*START.ids)
    np.testing.assert_allclose(gains.sum(0), [worth(44, 48) - worth(41, 48), both, both], atol=1e-6)
    assert gains[1, 0] == gains[2, 0] == 0
    assert [step[2].tolist() for step in steps] == [[False] * 3, [False] * 3, [True] * 3]
    infos: Any = steps[1][-1]
    masks = [info["action_mask"] for info in infos] if form == "sb3" else infos["action_mask"]
    assert np.sum(masks[0]) == 1, "it can do nothing but stop"
    assert np.sum(masks[1]) > 1


def test_forms_agree_to_the_last_digit() -> None:
    envs = EditPromptVectorEnv(objective(), SPACE, 4, 5)
    sb3 = PromptVecEnv(EditEpisodes(objective(), SPACE, 4, 5, 64, RNG(0)))
    alone = [EditPromptEnv(objective(), SPACE, 5) for _ in range(4)]
    envs.reset()
    sb3.reset()
    for env in alone:
        env.reset()
    rng = RNG(1)
    for _ in range(5):
        actions = rng.integers(len(envs.edits) - 1, size=4)
        observations, rewards, terminated, _, infos = envs.step(actions)
        seen, sb3_rewards, done, sb3_infos = sb3.step(actions)
        for i, env in enumerate(alone):
            one = env.step(actions[i])
            np.testing.assert_array_equal(one[0], observations[i])
            assert one[1:3] == (rewards[i], terminated[i])
            assert np.float32(one[1]) == sb3_rewards[i]
            assert done[i] == terminated[i]
            last = sb3_infos[i]["terminal_observation"] if done[i] else np.asarray(seen)[i]
            np.testing.assert_array_equal(last, observations[i])
            np.testing.assert_array_equal(one[4]["action_mask"], infos["action_mask"][i])
    assert terminated.all()
    assert np.asarray(seen).tolist() == [[41, 48, 0, 2, 5]] * 4, "the next episode's first"
    np.testing.assert_array_equal(
        np.stack(sb3.env_method("action_masks")), envs.reset()[1]["action_mask"]
    )


def test_episodes_begin_with_the_starts_in_turns() -> None:
    starts = (TokenPrompt((40, 41)), TokenPrompt((42, 43, 44)))
    envs = EditPromptVectorEnv(objective(), replace(SPACE, starts=starts), 3)
    begun = [[40, 41, 0, 2, 8], [42, 43, 44, 3, 8], [40, 41, 0, 2, 8]]
    for _ in range(2):
        assert envs.reset()[0].tolist() == begun
        envs.step(np.array([3, 3, 3]))


def test_without_starts_they_begin_with_prompts_of_the_space_that_no_seed_changes() -> None:
    space = TokenSpace(3, np.arange(30, 90), shortest=2)
    envs = EditPromptVectorEnv(objective(), space, 4, tokens=20)
    first = envs.reset(seed=1)[0]
    np.testing.assert_array_equal(envs.reset(seed=2)[0], first)
    again = EditPromptVectorEnv(objective(), space, 4, tokens=20)
    np.testing.assert_array_equal(again.reset()[0], first)
    assert again.edits == envs.edits
    prompts = [TokenPrompt(row[: row[3]]) for row in first]
    put_in = {edit.other for edit in envs.edits if edit.kind == "insert"}
    assert len(put_in) == 20
    assert all(space.contains(prompt) and set(prompt.ids) <= put_in for prompt in prompts)
    assert len(set(prompts)) > 1


def test_what_is_drawn_hangs_on_the_generator_that_is_given() -> None:
    space = TokenSpace(3, np.arange(30, 90))

    def begun(seed: int | None) -> list[list[int]]:
        def rng() -> np.random.Generator | None:
            return None if seed is None else np.random.default_rng(seed)

        alone = gymnasium.make(ENV, objective=objective(), space=space, rng=rng())
        envs = EditPromptVectorEnv(objective(), space, 3, rng=rng())
        return [alone.reset()[0].tolist(), *envs.reset()[0].tolist()]

    assert begun(None) == begun(None) == begun(0)
    assert begun(1) == begun(1)
    assert all(a != b for a, b in zip(begun(0), begun(1), strict=True))


def test_the_first_of_the_spaces_own_order_are_put_in() -> None:
    ranked = (49, 40, *range(41, 49))
    env = EditPromptEnv(objective(), replace(SPACE, ranked=ranked), tokens=2)
    put_in = {edit.other for edit in env.edits if edit.kind == "replace"}
    assert put_in == {49, 40, *START.ids}


def test_what_the_budget_still_covers_is_recorded() -> None:
    scored = objective(rows=3 * N_EXAMPLES)
    envs = EditPromptVectorEnv(scored, SPACE, 3)
    envs.reset()
    with pytest.raises(BudgetExhausted):
        envs.step(np.array([3, 4, 5]))
    assert (scored.ledger.n_prompts, scored.remaining) == (3, 0)
    envs.reset()
    with pytest.raises(BudgetExhausted):
        envs.step(np.array([6, 7, 8]))
    assert scored.ledger.used == 3 * N_EXAMPLES


def test_render_shows_the_text() -> None:
    start = TokenPrompt(tiny_lm().encode(" good bad"))
    space = TokenSpace(2, np.array(start.ids), starts=(start,))
    env = EditPromptEnv(objective(), space, render_mode="ansi")
    env.reset()
    assert env.render() == " good bad"
    env.step(number(env, "swap", 0, 1))
    assert env.render() == " bad good"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"horizon": 0}, "1 edit or more, of 1 token or more; got horizon 0 and tokens 64"),
        ({"tokens": 0}, "got horizon 8 and tokens 0"),
        ({"render_mode": "human"}, "give 'ansi' or None"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EditPromptEnv(objective(), SPACE, **settings)


def test_an_action_that_is_no_edit_is_refused_and_changes_nothing() -> None:
    env = EditPromptEnv(objective(), SPACE)
    env.reset()
    stop = number(env, "stop")
    for wrong in (stop + 1, -1):
        with pytest.raises(ValueError, match=f"0 to {stop - 1}, or {stop} to stop"):
            env.step(wrong)
    assert env.step(0)[0][-1] == 7


def test_another_algorithm_learns_on_it() -> None:
    gains = list[float]()

    class Noting(PromptVecEnv):
        def step_wait(self) -> VecEnvStepReturn:
            found = super().step_wait()
            gains.append(float(np.mean(found[1])))
            return found

    envs = Noting(EditEpisodes(objective(), SPACE, 4, 5, 10, RNG(0)))
    A2C("MlpPolicy", envs, seed=0, device="cpu").learn(2000)
    # An episode of five edits can gain 1; with three other seeds it went up by 0.4 at least.
    assert 5 * np.mean(gains[-100:]) > 5 * np.mean(gains[:100]) + 0.3
