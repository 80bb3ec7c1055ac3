"""Is a task's gradient that of its reward? Finite differences say so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from rlprompt.check.calls import CheckedTask, as_rewards
from rlprompt.check.report import Finding
from rlprompt.data.examples import Example
from rlprompt.models.memory import RowTooLargeError
from rlprompt.prompt import SoftPrompt
from rlprompt.tasks.base import Task

# Steps of each coordinate in standard deviations of the model's embeddings: the larger ones are
# bent by curvature, the smaller ones drown in rounding. The best of them counts.
STEPS = (0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
# Random directions: a gradient that is right along one and wrong along others is wrong.
N_DIRECTIONS = 3
# Share of the largest slope that gradient and finite differences may be apart by. A mean taken for
# a sum, a sign or a vector left out make it far more.
TOLERANCE = 0.1


def gradient_calls(n_prompts: int) -> int:
    """How often `check_gradient` has a prompt scored, a gradient counted as three times."""
    return n_prompts * (2 * (3 + 1) + len(STEPS) * 2 * N_DIRECTIONS)


def check_gradient(
    task: Task,
    ask: CheckedTask,
    prompts: Sequence[SoftPrompt],
    examples: Sequence[Example],
    rng: np.random.Generator,
) -> Iterator[Finding]:
    """Hold gradients against central differences (Nocedal & Wright 2006, section 8.1).

    Raises:
        Stop: The task raised an error or gave no rewards.
    """
    try:
        answer = task.rewards_with_grad(ask.lm, list(prompts), list(examples))
    except RowTooLargeError:
        raise
    except ValueError as error:  # how a task says that this reward of its has none
        yield Finding("gradient", "warn", f"it gives none: {error}")
        return
    rewards, gradients = as_rewards(answer[0], prompts, examples), np.asarray(answer[1])
    shape = (len(prompts), *prompts[0].vectors.shape)
    problem = ""
    plain = ask(prompts, examples)
    if gradients.shape != shape or not np.isfinite(gradients).all():
        problem = f"gradients of shape {gradients.shape}; expected finite numbers of shape {shape}"
    elif not np.allclose(rewards, plain, rtol=0, atol=ask.tolerance(plain)):
        problem = "`rewards_with_grad` gives other rewards than `rewards`"
    if not problem and task.has("cross_entropy_with_grad"):
        other = task.cross_entropy_with_grad(ask.lm, list(prompts), list(examples))
        if np.shape(other[1]) != shape or not np.isfinite(other[1]).all():
            problem = f"`cross_entropy_with_grad` gives gradients of shape {np.shape(other[1])}; "
            problem += f"expected finite numbers of shape {shape}"
        elif not np.allclose(other[0], plain, rtol=0, atol=ask.tolerance(plain)):
            problem = "`cross_entropy_with_grad` gives other rewards than `rewards`"
    if not problem:
        gaps = [_gaps(ask, prompts, examples, gradients, step, rng) for step in STEPS]
        # Of each prompt by itself, for one may stand at a bend where another does not.
        best = [[gap for gap in own if gap is not None] for own in zip(*gaps, strict=True)]
        yield _told(max((min(own) for own in best if own), default=None), ask)
        return
    yield Finding("gradient", "fail", problem)


def _told(gap: float | None, ask: CheckedTask) -> Finding:
    """A finding about the gap between gradient and finite differences."""
    if gap is None:
        text = "the model's rounding hides the slope of the reward; check it in float32"
        return Finding("gradient", "warn", text)
    if gap <= TOLERANCE:
        return Finding("gradient", "pass", "it agrees with finite differences")
    text = f"it differs from finite differences by {gap:.0%} of the slope; it must be that of each "
    text += "prompt's mean reward over the examples"
    if method := ask.lm.fingerprint.quantisation:
        text += f". The weights are quantised ({method}), and layers of that kind may carry a "
        return Finding(
            "gradient", "warn", f"{text}rounded gradient or none: take methods that need none"
        )
    if ask.lm.model.dtype.itemsize < 4:
        # Vectors are rounded to three digits on their way in: good gradients came out at 15 to
        # 109 % in tiny models of bfloat16.
        return Finding("gradient", "warn", f"{text}. 16 bits cannot tell; check it in float32")
    return Finding("gradient", "fail", text)


def _gaps(
    ask: CheckedTask,
    prompts: Sequence[SoftPrompt],
    examples: Sequence[Example],
    gradients: NDArray[np.floating],
    step: float,
    rng: np.random.Generator,
) -> list[float | None]:
    """Of each prompt the largest difference between slopes along random directions.

    As a share of the largest slope; None where rounding alone could make that difference.
    """
    found: list[float | None] = []
    scale = step * float(ask.lm.embeddings().std())
    for prompt, gradient in zip(prompts, gradients, strict=True):
        directions = rng.standard_normal((N_DIRECTIONS, *prompt.vectors.shape))
        ends = [
            SoftPrompt(prompt.vectors + sign * scale * direction)
            for direction in directions
            for sign in (1, -1)
        ]
        rewards = ask(ends, examples)
        means = rewards.mean(1).reshape(-1, 2)
        measured = (means[:, 0] - means[:, 1]) / (2 * scale)
        told = (directions * gradient).sum((1, 2))
        largest = max(np.abs(measured).max(), np.abs(told).max())
        if ask.rounding(rewards) / scale > TOLERANCE * largest > 0:
            found.append(None)
        else:
            gap = float(np.abs(measured - told).max())
            found.append(gap / float(largest) if largest > 0 else 0.0)
    return found
