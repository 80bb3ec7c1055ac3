"""A person's reward functions: called right, checked, and blamed by name where they fail."""

from __future__ import annotations

import decimal
import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import fake_splits

from rlprompt._utils.identity import identity
from rlprompt._utils.plugins import load_object
from rlprompt.data.examples import Example
from rlprompt.tasks.reward_function import RewardError, RewardFunction, load_reward, reward

EXAMPLES = fake_splits().train
# Functions of one name each.
MANY = """\
import functools
from dataclasses import dataclass, field

def wants(letter):
    def score(prompt_text, examples):
        return [float(letter in prompt_text)] * len(examples)
    return score

class Wants:
    def __init__(self, letter):
        self.letters = {letter, "x", "y"}
    def score(self, prompt_text, examples):
        return [float(prompt_text in self.letters)] * len(examples)

@dataclass
class Hidden:
    letter: str = field(repr=False)
    def score(self, prompt_text, examples):
        return [float(self.letter in prompt_text)] * len(examples)

def inner(letter):
    class Inner:
        def score(self, prompt_text, examples):
            return [float(letter in prompt_text)] * len(examples)
    return Inner().score

def plain(prompt_text, examples):
    return [1.0] * len(examples)

def scaled(by):
    def decorated(function):
        @functools.wraps(function)
        def scale(prompt_text, examples):
            return [by * one for one in function(prompt_text, examples)]
        return scale
    return decorated

pair = [lambda prompt_text, examples: [1.0], lambda prompt_text, examples: [2.0]]
"""

OTHERS = """
from rlprompt.tasks.reward_function import RewardFunction

class Best:
    def __init__(self, least=1):
        self.least = least
        self.own = RewardFunction(self.method)
    def method(self, prompt_text, examples):
        return [float(len(prompt_text) > self.least)] * len(examples)
    @classmethod
    def score(cls, prompt_text, examples):
        return [1.0] * len(examples)

def quiet(prompt_text, examples):
    return [0.0] * len(examples)
"""

PAIRS = {
    "wants('e')": "wants('z')",
    "Wants('e').score": "Wants('z').score",
    "Hidden('e').score": "Hidden('z').score",
    "inner('e')": "inner('z')",
    "pair[0]": "pair[1]",
    "scaled(2)(plain)": "scaled(3)(plain)",
    "scaled(1)(plain)": "plain",
}


def lengths(outputs: Sequence[str], examples: Sequence[Example]) -> list[float]:
    return [len(output) / 2 for output in outputs]


def giving(answer: Any) -> RewardFunction:
    def answering(outputs: Sequence[str], examples: Sequence[Example]) -> Any:
        return answer

    return RewardFunction(answering)


def test_a_reward_reads_outputs_or_the_text_of_the_prompt() -> None:
    assert reward(lengths).reads == "outputs"
    assert reward(lengths)(["ab"], EXAMPLES[:1]) == [1.0]
    assert reward(lengths).score(["ab", "", "abc"], EXAMPLES, "p").tolist() == [1.0, 0.0, 1.5]


def test_a_reward_of_outputs_may_see_the_prompt_of_each() -> None:
    @reward
    def own_words(
        outputs: Sequence[str], examples: Sequence[Example], prompts: Sequence[str]
    ) -> list[float]:
        pairs = zip(outputs, examples, prompts, strict=True)
        return [float(output not in prompt + one.label) for output, one, prompt in pairs]

    assert (own_words.reads, own_words.takes_prompts) == ("outputs", True)
    assert not reward(lengths).takes_prompts
    # The labels are a, b and a.
    assert own_words.score(["so", "b", "no"], EXAMPLES, "It was so").tolist() == [0.0, 0.0, 1.0]
    assert own_words(["so"], EXAMPLES[:1], ["It was"]) == [1.0]


def test_an_error_of_a_reward_that_sees_the_prompt_is_told_alike() -> None:
    def fails(
        outputs: Sequence[str], examples: Sequence[Example], prompts: Sequence[str]
    ) -> list[float]:
        return [1 / (output != prompt) for output, prompt in zip(outputs, prompts, strict=True)]

    with pytest.raises(RewardError, match=r"ZeroDivisionError.* train.csv:3 where .* wrote 'so',"):
        RewardFunction(fails).score(["a", "so", "b"], EXAMPLES, "so")


@pytest.mark.parametrize(
    "function",
    [
        lambda outputs: [],
        lambda texts, examples: [],
        lambda examples, outputs: [],
        lambda outputs, examples, prompt: [],
        lambda prompt_text, examples, prompts: [],
        len,
    ],
)
def test_other_arguments_are_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(
        ValueError, match=r"write it as score\(outputs, examples\), score\(outputs, ex"
    ):
        reward(function)


@pytest.mark.parametrize("answer", [[True, False, 1], np.ones(3, np.float16), (1, 2.0, 3)])
def test_all_kinds_of_real_numbers_are_rewards(answer: Any) -> None:
    assert giving(answer).score(["", "", ""], EXAMPLES, "p").dtype == np.float64


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([1.0, 2.0], "gave 2 rewards under the prompt 'p'; it must give a list of 3 numbers"),
        ("abc", "gave str 'abc' under the prompt 'p'; it must give a list of 3 numbers"),
        (1.0, "gave float 1.0 under the prompt 'p'"),
        (None, "gave NoneType None under the prompt 'p'"),
        ({1.0, 2.0, 3.0}, "gave a set, not a list of 3 numbers"),
        ([1.0, float("nan"), 1.0], "gave float nan for 'b' on the example train.csv:3, under the"),
        ([1.0, 1.0, np.inf], "gave float inf for 'c' on the example train.csv:4"),
        ([1j, 1.0, 1.0], "gave complex 1j for 'a' on the example train.csv:2"),
        (["1", 1.0, 1.0], "gave str '1' for 'a' on the example train.csv:2"),
        ([None, 1.0, 1.0], "gave NoneType None for 'a'"),
        (np.ones((3, 1)), r"gave ndarray array\(\[1.\]\) for 'a'"),
        ([decimal.Decimal(1), 1.0, 1.0], r"gave Decimal Decimal\('1'\) for 'a'"),
    ],
)
def test_what_is_no_reward_is_named(answer: Any, message: str) -> None:
    with pytest.raises(RewardError, match=message):
        giving(answer).score(["a", "b", "c"], EXAMPLES, "p")


def test_texts_may_stand_beside_the_numbers() -> None:
    found = giving(([1, 0.5, 0], ["fine", "", "too long"]))
    assert found.score(["a", "b", "c"], EXAMPLES, "p").tolist() == [1.0, 0.5, 0.0]
    assert found.feedback(["a", "b", "c"], EXAMPLES, "p") == ("fine", "", "too long")
    assert giving([1, 2, 3]).feedback(["a", "b", "c"], EXAMPLES, "p") is None
    assert giving((1, 0)).score(["a", "b"], EXAMPLES[:2], "p").tolist() == [1.0, 0.0]


@pytest.mark.parametrize("texts", [["fine"], ["fine", "so", 3], []])
def test_texts_of_the_wrong_kind_are_named(texts: list[Any]) -> None:
    with pytest.raises(RewardError, match="with its numbers, under the prompt 'p'; give a list"):
        giving(([1, 2, 3], texts)).score(["a", "b", "c"], EXAMPLES, "p")


def test_an_error_names_the_prompt_the_example_and_the_line() -> None:
    def fails(outputs: Sequence[str], examples: Sequence[Example]) -> list[float]:
        return [{"a": 1.0, "c": 2.0}[output] for output in outputs]

    with pytest.raises(RewardError) as caught:
        RewardFunction(fails).score(["a", "b", "c"], EXAMPLES, " the prompt")
    assert str(caught.value).startswith(f"reward {fails.__qualname__} raised KeyError: 'b' at ")
    assert "test_reward_function.py:" in str(caught.value)
    assert "on the example train.csv:3 where the model wrote 'b'" in str(caught.value)
    assert str(caught.value).endswith("under the prompt ' the prompt'")
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_error_of_no_single_example_is_told_as_such() -> None:
    def fails(prompt_text: str, examples: Sequence[Example]) -> list[float]:
        return [0.0] if len(examples) == 1 else [1 / 0]

    with pytest.raises(RewardError, match="on 3 examples together, though on none of them alone"):
        RewardFunction(fails).score("p", EXAMPLES, "p")


class TestFingerprint:
    def test_it_is_that_of_the_whole_file(self, tmp_path: Path) -> None:
        texts = {
            "one": "def score(outputs, examples): return helper(outputs)\ndef helper(o): return o",
            "two": "def score(outputs, examples): return helper(outputs)\ndef helper(o): return 1",
        }
        found = []
        for folder, text in texts.items():
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "same.py").write_text(text)
            found.append(load_reward(f"{tmp_path}/{folder}/same.py:score").fingerprint)
        assert found[0] != found[1]
        assert load_reward(f"{tmp_path}/one/same.py:score").fingerprint == found[0]

    def test_what_it_imports_of_its_folder_counts_and_what_lies_there_besides_does_not(
        self, tmp_path: Path
    ) -> None:
        texts = {
            "score.py": "import json\nfrom helper import good\n\n"
            "def score(outputs, examples):\n    return good(outputs)\n",
            "helper.py": "def good(outputs):\n    import deep\n    return deep.ones(outputs)\n",
            "deep.py": "def ones(outputs):\n    return [1.0] * len(outputs)\n",
            "other.py": "",
        }

        def fingerprint(folder: str, **changed: str) -> str:
            (tmp_path / folder).mkdir()
            for name, text in texts.items():
                (tmp_path / folder / name).write_text(text + changed.get(name[:-3], ""))
            return load_reward(f"{tmp_path}/{folder}/score.py:score").fingerprint

        first = fingerprint("first")
        assert fingerprint("same") == fingerprint("more", other="# edited") == first
        changed = {fingerprint(name, **{name: "# edited"}) for name in ("score", "helper", "deep")}
        assert len(changed | {first}) == 4

    def test_a_function_alone_in_its_folder_has_the_fingerprint_of_before(
        self, tmp_path: Path
    ) -> None:
        text = "import json\ndef score(outputs, examples):\n    return [0.0] * len(outputs)\n"
        (tmp_path / "score.py").write_text(text)
        expected = hashlib.blake2b(f"score\n{text}".encode(), digest_size=16).hexdigest()
        assert load_reward(f"{tmp_path}/score.py:score").fingerprint == expected

    @pytest.fixture
    def made(self, tmp_path: Path) -> Callable[[str], RewardFunction]:
        """The reward that an expression of `MANY` makes, from a file that is read anew."""

        def make(expression: str) -> RewardFunction:
            path = tmp_path / "many.py"
            path.write_text(MANY)
            return RewardFunction(eval(expression, load_object(f"{path}:plain").__globals__))

        return make

    @pytest.mark.parametrize(("first", "second"), PAIRS.items())
    def test_functions_of_one_name_in_one_file_have_each_their_own(
        self, made: Callable[[str], RewardFunction], first: str, second: str
    ) -> None:
        assert made(first).name == made(second).name
        assert made(first).fingerprint != made(second).fingerprint
        assert made(first).fingerprint == made(first).fingerprint

    @pytest.mark.parametrize(
        ("expression", "expected"),
        [
            # As ever: studies that were begun with it go on.
            ("plain", hashlib.blake2b(f"plain\n{MANY}".encode(), digest_size=16).hexdigest()),
            ("wants('e')", "3eb857490e49604732ff1c61a02b48fa"),
            ("Wants('e').score", "74ee88d9e38b3e6d9f200dfad8077cf4"),
            ("pair[1]", "4ae96614aa42a8321b2fc3ff4c885f13"),
        ],
    )
    def test_it_is_the_same_in_every_process(
        self, made: Callable[[str], RewardFunction], expression: str, expected: str
    ) -> None:
        assert made(expression).fingerprint == expected

    @pytest.mark.parametrize(
        "expression",
        ["Best.score", "Best().own.function", "quiet", "__import__('torch').no_grad()(quiet)"],
    )
    def test_it_is_the_same_in_every_folder(self, tmp_path: Path, expression: str) -> None:
        found = set()
        for name in ("here", "there"):
            path = tmp_path / name / "many.py"
            path.parent.mkdir()
            path.write_text(OTHERS)
            scope = load_object(f"{path}:quiet").__globals__
            found.add(RewardFunction(eval(expression, scope)).fingerprint)
        assert len(found) == 1

    def test_an_object_that_holds_its_own_reward_has_one_by_all_else(self, tmp_path: Path) -> None:
        (tmp_path / "many.py").write_text(OTHERS)
        made = load_object(f"{tmp_path}/many.py:Best")
        first, again, other = made(1), made(1), made(2)
        assert first.own.fingerprint == again.own.fingerprint == first.own.fingerprint
        assert first.own.fingerprint != other.own.fingerprint

    def test_the_text_of_a_library_is_no_part_of_it(self, tmp_path: Path) -> None:
        (tmp_path / "many.py").write_text(OTHERS)
        wrapped = torch.no_grad()(load_object(f"{tmp_path}/many.py:quiet"))
        told: Any = identity(wrapped)
        assert "code" not in told

    def test_a_function_without_a_text_is_refused(self) -> None:
        scope: dict[str, Any] = {}
        exec("def score(outputs, examples): return []", scope)
        with pytest.raises(ValueError, match="the source of reward score cannot be read"):
            _ = reward(scope["score"]).fingerprint

    def test_of_an_object_or_a_partial_function_it_is_said_how_it_can_be_had(self) -> None:
        class Score:
            def __call__(self, outputs: Any, examples: Any) -> list[float]:
                return []

        for made in (Score(), functools.partial(Score())):
            with pytest.raises(ValueError, match="wrap an object or a partial in a function there"):
                _ = reward(made).fingerprint
