from __future__ import annotations

import struct
import tomllib
from pathlib import Path

import pytest
from tiny import tiny_lm

from rlprompt.config.yaml_file import load_config
from rlprompt.prompt import TokenPrompt
from rlprompt.tasks import writing
from rlprompt.tasks.metrics import metric
from rlprompt.tasks.writing import WRITINGS
from rlprompt.tasks.writing_data import _catalogue

ROOT = Path(__file__).parents[2]
FACTORIES = {
    "translation": writing.translation,
    "code-summary": writing.code_summary,
    "word-problems": writing.word_problems,
}
EXPERIMENTS = {
    "translation": "translation",
    "summarisation": "code-summary",
    "reasoning": "word-problems",
}


def test_all_of_them_are_entry_points() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    points = pyproject["project"]["entry-points"]["rlprompt.tasks"]
    for name, make in FACTORIES.items():
        assert points[name] == f"rlprompt.tasks.writing:{make.__name__}"


@pytest.mark.parametrize("name", WRITINGS)
def test_facts_are_texts_that_differ(name: str) -> None:
    facts = WRITINGS[name].facts()
    assert len(facts) >= 80
    assert len({asked for asked, _ in facts}) == len(facts)
    for asked, answer in facts:
        assert asked.strip() == asked
        assert answer.strip() == answer
        assert "\n" not in answer  # which ends an answer
        assert min(len(asked), len(answer)) > 3


def test_facts_by_heart() -> None:
    messages, functions = (dict(WRITINGS[n].facts()) for n in ("translation", "code-summary"))
    assert messages["Enter a valid date."] == "Saisissez une date valide."
    code = next(code for code in functions if code.startswith("def nth_or_last("))
    assert code.splitlines()[1:] == ["    return last(islice(iterable, n + 1), default=default)"]
    assert functions[code] == (
        "Return the nth or the last item of iterable, or default if iterable is empty"
    )


def test_every_step_of_a_word_problem_is_right() -> None:
    for asked, worked in WRITINGS["word-problems"].facts():
        *steps, answer = worked.split(". ")
        for step in steps:
            left, _, right = step.partition(" = ")
            first, sign, second = left.split()
            a, b = int(first), int(second)
            assert {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[sign] == int(right) > 0
        assert answer == f"#### {steps[-1].partition(' = ')[2]}"
        assert asked.endswith("?")


@pytest.mark.parametrize("name", WRITINGS)
def test_a_reference_is_worth_most(name: str) -> None:
    task = FACTORIES[name](shots=4, test=4)
    assert (task.reward, task.metric) == ("log_likelihood", WRITINGS[name].metric)
    labels = [example.label for example in task.splits.test]
    assert metric(task.metric)(labels, labels) == pytest.approx([1.0] * 4)
    lm = tiny_lm(max_position_embeddings=2048)
    assert (task.rewards(lm, [TokenPrompt((20, 30))], task.splits.train) < 0).all()


@pytest.mark.parametrize(("file", "name"), EXPERIMENTS.items())
def test_there_is_an_experiment_of_each(file: str, name: str) -> None:
    config = load_config(ROOT / "experiments" / f"{file}.yaml")
    assert config.name == file
    assert config.task is not None
    assert config.task.name == name


def test_another_kind_of_catalogue_is_refused() -> None:
    with pytest.raises(ValueError, match="not a little-endian gettext catalogue"):
        list(_catalogue(struct.pack(">5I", 0x950412DE, 0, 0, 0, 0)))
