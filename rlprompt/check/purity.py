"""Is a reward a function of model, prompt and example, and of nothing else?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from rlprompt._utils.seeding import seeded
from rlprompt.check.calls import CheckedTask, as_rewards, where
from rlprompt.check.report import Finding, verdict
from rlprompt.data.examples import Example
from rlprompt.prompt import Prompt
from rlprompt.types import Floats

# Share of rows that near ties, decided by the model's rounding, may turn over: a reward that jumps,
# such as an accuracy, then differs by a whole step.
JUMPS = 0.1


def purity_rows(
    ask: CheckedTask,
    n_prompts: int,
    examples: Sequence[Example],
    other_examples: Sequence[Example],
) -> int:
    """Rows that `check_purity` asks for, of so many prompts."""
    held = other_examples if ask.task.scored_together else examples
    alone = n_prompts * len(held) * ask.cost(held[:1])
    return 9 * n_prompts * ask.cost(examples) + n_prompts * ask.cost(other_examples) + alone


def check_purity(
    ask: CheckedTask,
    prompts: Sequence[Prompt],
    examples: Sequence[Example],
    other_prompts: Sequence[Prompt],
    other_examples: Sequence[Example],
) -> Iterator[Finding]:
    """Ask the same in ways that must not matter.

    Args:
        ask: Asks the task.
        prompts: (P,) of one kind, all different.
        examples: (E,), another number than P.
        other_prompts: Asked about in between.
        other_examples: Asked about in between; of another split.

    Raises:
        Stop: The task raised an error or gave no rewards.
    """
    with seeded(1):
        answer = ask.raw(prompts, examples)
        rewards = as_rewards(answer, prompts, examples)
    plain = isinstance(answer, np.ndarray) and answer.dtype == np.float64
    kind = f"{type(answer).__name__} of {getattr(answer, 'dtype', 'no dtype')}"
    advice = f"rewards are a {kind}; the ledger keeps them as float64, so return a float64 array"
    yield verdict("dtype", "" if plain else advice, "float64", "warn")
    yield Finding("shape", "pass", f"{rewards.shape} for that many prompts and examples")
    yield Finding("finite", "pass", "all rewards are finite numbers")
    rows = _Rows(rewards, ask.tolerance(rewards), prompts, examples)
    with seeded(2):
        again = ask(prompts, examples)
    found = rows.compare("deterministic", again, "the same call gave", exact=True)
    yield found
    if found.status == "fail":
        return  # whatever is asked next would differ as well
    yield rows.compare(
        "prompt-order", ask(prompts[::-1], examples)[::-1], "with the prompts reversed it gave"
    )
    yield rows.compare(
        "example-order",
        ask(prompts, examples[::-1])[:, ::-1],
        "with the examples reversed it gave",
    )
    held = rows
    if ask.task.scored_together:  # then a part of train is another question, and of dev is not
        together = np.vstack([ask([prompt], examples) for prompt in prompts])
        yield rows.compare("batch-size", together, "asked for under one prompt it gave")
        others = ask(prompts, other_examples)
        held = _Rows(others, ask.tolerance(others), prompts, other_examples)
    alone = [[ask([prompt], [one])[0, 0] for one in held.examples] for prompt in prompts]
    yield held.compare("batch-size", np.array(alone), "asked for alone it gave")
    twice = ask([*prompts, *prompts], examples)
    yield rows.compare("repeats", twice[len(prompts) :], "asked for twice in a call it gave")
    ask(other_prompts, other_examples)
    yield rows.compare(
        "stateless", ask(prompts, examples), "after a call about other prompts it gave"
    )


class _Rows:
    """Rewards that others are held against.

    Args:
        rewards: (P, E).
        tolerance: What rounding may make of them.
        prompts: (P,).
        examples: (E,).
    """

    def __init__(
        self,
        rewards: Floats,
        tolerance: float,
        prompts: Sequence[Prompt],
        examples: Sequence[Example],
    ) -> None:
        self.rewards, self.tolerance = rewards, tolerance
        self.prompts, self.examples = prompts, examples

    def compare(self, name: str, other: Floats, what: str, *, exact: bool = False) -> Finding:
        """A finding about rewards (P, E) that should be the same."""
        differences = np.abs(other - self.rewards)
        largest = float(differences.max())
        if largest == 0:
            return Finding(name, "pass", "the same to the last digit")
        if largest <= self.tolerance:
            text = f"up to {largest:.2g} apart, as rounding makes it (up to {self.tolerance:.2g})"
            return Finding(name, "warn" if exact else "pass", text)
        p, e = divmod(int(differences.argmax()), len(self.examples))
        text = (
            f"{what} {other[p, e]:.6g} and not {self.rewards[p, e]:.6g} for "
            f"{where(self.prompts[p], self.examples[e])}"
        )
        if not exact and self.tolerance > 0 and (differences > self.tolerance).mean() < JUMPS:
            text += "; one row alone may be a near tie that rounding decides, more are a mistake"
            return Finding(name, "warn", text)
        text += ": a reward depends on model, prompt and example alone"
        return Finding(name, "fail", text)
