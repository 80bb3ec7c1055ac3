"""Rewards that tell nothing or are huge go through every optimiser and a study's whole report."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import rlprompt, save, write_config
from numpy.typing import NDArray
from tiny import tiny_lm
from writers import Typewriter

from rlprompt.check import ToyTask, check_task
from rlprompt.config.registry import entries, make_optimiser
from rlprompt.data.examples import Example
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt
from rlprompt.reports.html import write_page
from rlprompt.search.budget import Budget
from rlprompt.search.run import search
from rlprompt.studies.experiment import Experiment
from rlprompt.studies.run import compare
from rlprompt.types import Floats

# What becomes of a reward that is mostly between -1 and 2, and of its slope.
KINDS: dict[str, tuple[Callable[[Floats], Floats], float]] = {
    "constant": (lambda x: np.full_like(x, 0.7), 0.0),
    "zero": (lambda x: np.zeros_like(x), 0.0),
    "huge": (lambda x: 1e30 * x, 1e30),
    "huge-and-constant": (lambda x: np.full_like(x, -1e30), 0.0),
    "tiny": (lambda x: 1e-300 * x, 1e-300),
    "far-from-zero": (lambda x: 1e15 + x, 1.0),
    "largest": (lambda x: 0.3e35 * np.clip(x, -3, 3), 1e35),  # the largest that is allowed
    "tied": (lambda x: (x > 0.5).astype(np.float64), 0.0),
}


@dataclass(frozen=True)
class Odd(ToyTask):
    """The toy task with another scale."""

    kind: str = "constant"
    fingerprint: str = "odd"

    def rewards(
        self, lm: FrozenLM | None, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Floats:
        return KINDS[self.kind][0](super().rewards(lm, prompts, examples))

    def rewards_with_grad(
        self, lm: FrozenLM | None, prompts: Sequence[SoftPrompt], examples: Sequence[Example]
    ) -> tuple[Floats, NDArray[np.float32]]:
        rewards, gradients = super().rewards_with_grad(lm, prompts, examples)
        scale, slope = KINDS[self.kind]
        return scale(rewards), (slope * gradients.astype(np.float64)).astype(np.float32)


def numbers(state: Any) -> list[float]:
    """All numbers of a JSON value."""
    if isinstance(state, dict):
        return numbers(list(state.values()))
    if isinstance(state, list):
        return [number for one in state for number in numbers(one)]
    return [float(state)] if isinstance(state, int | float) else []


METHODS = tuple(entries("optimiser"))
# What arithmetic may break on: nothing to divide by, and numbers that a square, a sum or float32
# cannot hold. The others are no harder on a method, and go with some of them to the page.
HARDEST = ("zero", "huge-and-constant", "tiny", "far-from-zero", "largest")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", HARDEST)
def test_every_optimiser_goes_on_to_the_end(kind: str, method: str) -> None:
    # The tiny model has no room for requests.
    settings = {"proposer": Typewriter()} if method == "instructions" else {}
    result = search(Odd(kind=kind), tiny_lm(), make_optimiser(method, settings), 160, length=2)
    assert result.status == "finished"
    assert result.n_prompts + result.n_partial > 5
    assert np.isfinite(numbers(json.loads(result.to_json()))).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_study_and_its_page(kind: str, tmp_path: Path) -> None:
    """Of draws, of a method that learns, and of one that climbs."""
    methods = {name: make_optimiser(name, {}) for name in ("random", "ppo", "soft-prompt")}
    experiment = Experiment(
        "odd", Odd(kind=kind), tiny_lm(), methods, Budget(160), seeds=(0, 1), length=2
    )
    comparison = compare(experiment, tmp_path / "out")
    assert len(comparison.runs) == 2 * len(methods)
    for run in comparison.runs:
        assert run.error == ""
    page, path = write_page(tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    found = numbers(summary)
    assert np.isfinite(found).all()
    html = path.read_text()
    assert not re.search(r"\b(nan|inf|infinity)\b", re.sub(r"<style.*?</style>", "", html), re.I)
    assert list(page.tables())


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("constant", ("constant", "fail")),
        ("huge-and-constant", ("constant", "fail")),
        ("huge", ("scale", "warn")),
        ("far-from-zero", ("scale", "warn")),
        ("tied", ("ties", "warn")),
    ],
)
def test_the_check_says_so(kind: str, found: tuple[str, str]) -> None:
    problems = check_task(Odd(kind=kind), tiny_lm(), every_example=False).problems
    assert found in [(one.name, one.status) for one in problems]


FUNCTION = """
def own(prompt_text, examples):
    return [{value}] * len(examples)
"""


def own_task(desk: Path, value: str) -> None:
    """An experiment whose reward is a person's function of the prompt's text."""
    (desk / "mine.py").write_text(FUNCTION.format(value=value))
    task: dict[str, Any] = {"name": "function", "data": "films.csv", "text": ["text"]}
    task |= {"reward": "mine.py:own", "shots": 2, "test": 6}
    write_config(desk, optimisers=["random", "greedy"], budget=48)
    save(desk / "m")
    state = json.loads((desk / "small.yaml").read_text()) | {"model": "m"}
    (desk / "small.yaml").write_text(json.dumps(state | {"task": task}))


@pytest.mark.parametrize("value", ["0.5", "1e30", "float(len(prompt_text) > 12)"])
def test_a_persons_function_goes_as_far_as_the_page(desk: Path, value: str) -> None:
    own_task(desk, value)
    result = rlprompt("compare", "small.yaml")
    assert result.exit_code == 0, result.output
    assert rlprompt("report", "runs/small").exit_code == 0
    checked = rlprompt("check", "small.yaml")
    if "len" not in value:
        assert "FAIL  constant              Every prompt earns the same" in checked.output
        assert checked.exit_code == 1


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("float('nan')", "float nan"),
        ("float('inf')", "float inf"),
        ("1e300", "float 1e+300"),
        ("10 ** 400", "int 1"),
    ],
)
def test_what_is_no_reward_is_one_sentence_with_prompt_and_example(
    desk: Path, value: str, said: str
) -> None:
    own_task(desk, f"0.0 if len(prompt_text) < 8 else {value}")
    for command in ("compare", "check"):
        result = rlprompt(command, "small.yaml")
        assert result.exit_code == 1, result.output
        text = re.sub(r"\s+", " ", result.output)
        assert f"reward own gave {said}" in text
        assert "on the example films.csv:" in text
        assert "under the prompt '" in text
        assert "a reward is a finite number of 1e+35 at most" in text
