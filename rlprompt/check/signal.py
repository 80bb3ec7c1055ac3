"""Is a task worth a search? What random prompts tell about its reward.

Rewards of P prompts on E examples are taken apart as in generalisability theory, a two-way layout
with one observation a cell (Brennan 2001, Generalizability Theory, chapter 2; Scheffe 1959, The
Analysis of Variance, chapter 7):

    reward[p, e] = mean + prompt[p] + example[e] + rest[p, e]

What tells prompts apart is the variance of `prompt`; what blurs it is that of `rest`, divided by
the number of examples. That examples differ among themselves does no harm: all prompts face the
same ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import f as f_distribution
from scipy.stats import norm

from rlprompt.check.report import Finding, verdict
from rlprompt.types import Floats

LEVEL, POWER = 0.05, 0.8
# Share of rewards at the highest value from which a search has next to nothing left to gain.
SATURATED = 0.9
# Share of prompts that tie for the best from which chance decides which one is kept.
TIED = 0.25
# Below this more than half of what ranks prompts is the choice of examples.
RELIABLE = 0.5
# Rewards beyond it cannot be read in a table; and what rounding in float32 takes of a number.
LARGE, FLOAT32 = 1e9, 1e-7
# Where the search for a number of prompts ends.
MOST_PROMPTS = 10_000


@dataclass(frozen=True)
class Components:
    """Variances of a reward.

    Attributes:
        prompts: Between prompts, over all examples.
        examples: Between examples, over all prompts.
        rest: What neither explains.
    """

    prompts: float
    examples: float
    rest: float

    def reliability(self, n_examples: int) -> float:
        """Share of the variance of prompts' means that is theirs and not the examples'.

        The generalisability coefficient (Brennan 2001, chapter 2), in [0, 1]; 0 if all is flat.
        """
        total = self.prompts + self.rest / n_examples
        return self.prompts / total if total > 0 else 0.0

    def examples_needed(self) -> float:
        """Examples that tell two prompts apart that differ by one standard deviation.

        Two-sided paired comparison at `LEVEL` with `POWER`: n = 2 rest (z_level + z_power)^2 /
        prompts (Cohen 1988, Statistical Power Analysis, chapter 2; normal approximation).
        Infinite where prompts do not differ.
        """
        z = norm.ppf(1 - LEVEL / 2) + norm.ppf(POWER)
        return float(2 * self.rest * z**2 / self.prompts) if self.prompts > 0 else float("inf")

    def prompts_needed(self, n_examples: int) -> float:
        """Random prompts that show, on so many examples, that prompts differ at all.

        Power of the random-effects F test (Scheffe 1959, chapter 7): MS_prompts / MS_rest is
        (1 + E prompts / rest) times an F variable. Infinite beyond `MOST_PROMPTS`.
        """
        if self.prompts <= 0 or n_examples < 2:
            return float("inf")
        if self.rest <= 0:
            return 2.0
        counts = np.arange(2, MOST_PROMPTS)
        freedom = counts - 1, (counts - 1) * (n_examples - 1)
        critical = f_distribution.isf(LEVEL, *freedom)
        power = f_distribution.sf(critical / (1 + n_examples * self.prompts / self.rest), *freedom)
        enough = counts[power >= POWER]
        return float(enough[0]) if len(enough) else float("inf")


def decompose(rewards: Floats) -> Components:
    """Variance components of rewards (P, E), both 2 or more; estimates below 0 are 0."""
    n_prompts, n_examples = rewards.shape
    by_prompt, by_example, mean = rewards.mean(1), rewards.mean(0), rewards.mean()
    rest = rewards - by_prompt[:, None] - by_example + mean
    ms_prompts = n_examples * by_prompt.var(ddof=1)
    ms_examples = n_prompts * by_example.var(ddof=1)
    ms_rest = np.square(rest).sum() / ((n_prompts - 1) * (n_examples - 1))
    return Components(
        prompts=max(0.0, float(ms_prompts - ms_rest) / n_examples),
        examples=max(0.0, float(ms_examples - ms_rest) / n_prompts),
        rest=float(ms_rest),
    )


def check_signal(rewards: Floats, n_train: int, seen: str = "") -> Iterator[Finding]:
    """Whether a search could find something, by the rewards (P, E) of random prompts.

    Args:
        rewards: Of random prompts, 2 or more, on some train examples.
        n_train: Examples that a search will use.
        seen: What the rewards were made of, in words, for where they are all the same.
    """
    n_prompts = len(rewards)
    # Where sums are rounded, equal means may differ in the last digits.
    means = rewards.mean(1).round(12)
    if np.ptp(rewards, axis=0).max() == 0:
        text = (
            f"Every prompt earns the same: {n_prompts} random prompts do, and a search has nothing "
        )
        text += "to go by. Look at what the reward depends on"
        yield Finding("constant", "fail", text + (f"; {seen}." if seen else "."))
        return
    yield Finding("constant", "pass", f"{n_prompts} random prompts earn different rewards")
    largest, apart = float(np.abs(rewards).max()), float(np.ptp(means))
    if largest > LARGE or largest * FLOAT32 > apart > 0:
        text = f"rewards are as large as {largest:.3g}, and random prompts differ by {apart:.3g}: "
        text += f"what is computed in float32 loses differences below {largest * FLOAT32:.2g}. "
        text += "Take off what all rewards share, or divide them"
        yield Finding("scale", "warn", text)
    at_top = float((rewards == rewards.max()).mean())
    saturated = (
        f"{at_top:.0%} of all rewards are at the highest value seen, {rewards.max():.4g}: random "
        "prompts leave next to nothing to gain. Take harder examples or a finer reward."
    )
    yield verdict(
        "saturated",
        saturated if at_top >= SATURATED else "",
        f"{at_top:.0%} of all rewards are at the highest value seen",
        "warn",
    )
    n_best = int((means == means.max()).sum())
    tied = (
        f"{n_best} of {n_prompts} random prompts share the best mean reward: chance decides which "
        "is kept. Take more examples or a finer reward."
    )
    fine = f"{n_best} of {n_prompts} random prompts earn the best mean reward"
    yield verdict("ties", tied if n_best > max(1, TIED * n_prompts) else "", fine, "warn")
    if rewards.shape[1] < 2:
        text = "one train example says nothing about others: every prompt will fit it; give more"
        yield Finding("signal", "warn", text)
        return
    yield _signal(decompose(rewards), n_train)


def _signal(found: Components, n_train: int) -> Finding:
    """Whether train is enough to tell prompts apart."""
    reliability = found.reliability(n_train)
    spread, error = np.sqrt(found.prompts), np.sqrt(found.rest / n_train)
    text = (
        f"prompts differ by {spread:.3g} (standard deviation), examples by "
        f"{np.sqrt(found.examples):.3g}; a mean over the {n_train} train examples "
        f"has a standard error of {error:.3g}"
    )
    if found.prompts == 0:
        text += "; prompts differ no more than the choice of examples makes them: give more "
        text += "examples or a finer reward"
        return Finding("signal", "warn", text)
    text += (
        f", so {reliability:.0%} of what ranks prompts is their own. Two that differ by "
        f"{spread:.3g} are told apart by {_count(found.examples_needed())} examples; that prompts "
        f"differ at all shows on {n_train} with {_count(found.prompts_needed(n_train))} prompts"
    )
    if reliability >= RELIABLE:
        return Finding("signal", "pass", text)
    text += ". More than half is the choice of examples: give more, or a finer reward"
    return Finding("signal", "warn", text)


def _count(number: float) -> str:
    if number > MOST_PROMPTS:
        return f"more than {MOST_PROMPTS:,}"
    return f"about {max(2, int(np.ceil(number))):,}"
