"""Objects as JSON values that are the same in every process, and the files they are made of."""

from __future__ import annotations

import functools
import hashlib
import json
import linecache
import re
import sys
import threading
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_experiments import task
from tiny import tiny_lm

from rlprompt._utils.identity import identity, is_told, own_sources
from rlprompt._utils.plugins import load_object
from rlprompt.models.writing import LocalWriter

HERE = __name__
OWN = f"{HERE}:Own"


class Own:
    def __init__(self, **given: Any) -> None:
        vars(self).update(given)

    def play(self) -> None:
        pass


class Slotted:
    __slots__ = ("rate",)


@dataclass
class Fields:
    of: Any


def bound(rate: float, step: int = 3) -> Callable[..., object]:
    def learn(env: Any, step: int = step) -> Any:
        return rate, step, learn

    return learn


@functools.lru_cache
def cached() -> None:
    pass


def slotted() -> Slotted:
    made = Slotted()
    made.rate = 0.5  # type: ignore[attr-defined]
    return made


def circle() -> Own:
    made = Own()
    made.itself = made  # type: ignore[attr-defined]
    return made


# Up to where it ends.
TEXT = """\
    def learn(env: Any, step: int = step) -> Any:
        return rate, step, learn"""
LEARN = {
    "function": f"{HERE}:bound.<locals>.learn",
    "code": hashlib.blake2b(json.dumps([TEXT]).encode(), digest_size=8).hexdigest(),
    "closure": {"learn": "...", "rate": 0.5},
    "defaults": {"step": 3},
}
TASK = {
    "class": "rlprompt.tasks.classification:ClassificationTask",
    "digest": task().fingerprint,
    "examples": task().splits.digest,
}
DIGEST = tiny_lm().fingerprint.digest
TOLD = [
    (1.5, 1.5),
    ({"a": (1, None), 2: True}, {"a": [1, None], 2: True}),
    (Fields([Fields("x")]), {"of": [{"of": "x"}]}),
    (Path("x"), repr(Path("x"))),
    (np.float32(0.5), repr(np.float32(0.5))),
    ({3, 1}, repr({3, 1})),
    (Own, repr(Own)),
    (len, "<built-in function len>"),
    # From here on a `repr` would be another one in every process.
    ({"b", "a"}, ["a", "b"]),
    (float("nan"), "nan"),
    (bound, f"{HERE}:bound"),
    (cached, f"{HERE}:cached"),
    (bound(0.5), LEARN),
    (Own(), OWN),
    (
        Own(a=1, of=[Own(b={"y", "x"})]),
        {"class": OWN, "a": 1, "of": [{"class": OWN, "b": ["x", "y"]}]},
    ),
    (circle(), {"class": OWN, "itself": "..."}),
    (slotted(), {"class": f"{HERE}:Slotted", "rate": 0.5}),
    (Own(a=1).play, {"method": "Own.play", "of": {"class": OWN, "a": 1}}),
    (
        functools.partial(bound, 1, step=2),
        {"partial": f"{HERE}:bound", "args": [1], "keywords": {"step": 2}},
    ),
    (
        types.MappingProxyType({"a": bound}),
        {"class": "builtins:mappingproxy", "a": f"{HERE}:bound"},
    ),
    (Fields({"f": bound}), {"of": {"f": f"{HERE}:bound"}}),
    (LocalWriter(tiny_lm()), {"class": "rlprompt.models.writing:LocalWriter", "digest": DIGEST}),
    (
        Own(lm=tiny_lm()),
        {"class": OWN, "lm": {"class": "rlprompt.models.lm:FrozenLM", "digest": DIGEST}},
    ),
    # A dataclass with hundreds of examples.
    (Own(task=task()), {"class": OWN, "task": TASK}),
    (
        np.arange(2.0),
        {
            "class": "numpy:ndarray",
            "type": "float64",
            "shape": [2],
            "digest": hashlib.blake2b(np.arange(2.0).tobytes(), digest_size=8).hexdigest(),
        },
    ),
    (
        np.array([bound, None]),
        {"class": "numpy:ndarray", "shape": [2], "items": [f"{HERE}:bound", None]},
    ),
]


@pytest.mark.parametrize(("value", "told"), TOLD)
def test_what_a_value_is_can_be_said_in_any_process(value: Any, told: Any) -> None:
    assert identity(value) == told
    assert is_told(value)
    assert not re.search("0x[0-9a-f]{6}", json.dumps(identity(value)))


@pytest.mark.parametrize(
    "value", [object(), threading.Lock(), np.random.default_rng(0), Own(of=[zip()])]
)
def test_where_only_its_class_can_be_said_that_is_known(value: Any) -> None:
    assert not is_told(value)
    assert "0x" not in json.dumps(identity(value))


def test_functions_of_one_name_are_told_apart_by_what_they_have_taken_along() -> None:
    assert identity(bound(0.5)) != identity(bound(0.7))
    assert identity(bound(0.5)) != identity(bound(0.5, step=4))
    assert identity(bound(0.5)) == identity(bound(0.5))


def wrapping(by: int) -> Callable[[Any], Any]:
    def twice(function: Any) -> Any:
        return functools.wraps(function)(lambda: function() * 2)

    def thrice(function: Any) -> Any:
        @functools.wraps(function)
        def wrapped() -> Any:
            return function() * 3

        return wrapped

    return twice if by == 2 else thrice


def branching(first: bool) -> Callable[..., object]:
    if first:

        def step() -> int:
            return 1
    else:

        def step() -> int:
            return 2

    return step


def nought() -> int:
    return 0


LAMBDAS = [lambda: 1, lambda: 2, lambda: "å", lambda: (
    3
)]  # fmt: skip
CASES = {
    "lambdas": LAMBDAS,
    "of one name in one function": [branching(True), branching(False)],
    "decorators": [wrapping(2)(nought), wrapping(3)(nought), nought],
    "cached": [functools.lru_cache(one) for one in LAMBDAS],
}


@pytest.mark.parametrize("functions", CASES.values(), ids=CASES)
def test_functions_of_one_name_are_told_apart_by_their_text(functions: Sequence[Any]) -> None:
    assert len({one.__qualname__ for one in functions} - {"nought"}) <= 1
    told = [identity({"f": one}) for one in functions]
    assert all(told.count(one) == 1 for one in told)
    assert told == [identity({"f": one}) for one in functions]


def test_a_function_without_a_text_goes_by_its_name() -> None:
    assert identity(eval("lambda: 1", {"__name__": "made"})) == "made:<lambda>"


def bits(value: torch.Tensor) -> torch.Tensor:
    return value.to(torch.bfloat16).requires_grad_()


def linear(value: torch.Tensor) -> torch.nn.Module:
    made = torch.nn.Sequential(torch.nn.Linear(50, 100, bias=False))
    made[0].weight = torch.nn.Parameter(value.reshape(100, 50).clone())
    return made


def norm(value: torch.Tensor) -> torch.nn.Module:
    made = torch.nn.BatchNorm1d(5000)
    made.running_mean = value.clone()
    return made


@pytest.mark.parametrize(
    "made", [torch.Tensor.numpy, torch.Tensor.clone, bits, linear, norm, torch.Tensor.to_sparse]
)
def test_of_many_numbers_each_counts(made: Callable[[torch.Tensor], Any]) -> None:
    values = torch.arange(5000.0) + 1
    edited = values.clone()
    edited[2500] = 7
    if made is torch.Tensor.to_sparse:
        assert not is_told(made(values))  # of these we cannot say, and know it
        return
    assert is_told(made(values))
    assert identity(made(values)) == identity(made(values))
    assert identity(made(values)) != identity(made(edited))
    assert len(json.dumps(identity(made(values)))) < 200


@dataclass
class Named:
    digest: str
    rate: float


class Short:
    def __init__(self, rate: float) -> None:
        self.rate, self.digest = rate, "the same"


@dataclass
class Hashed:
    rate: float

    @property
    def digest(self) -> str:
        return f"of {self.rate}"


def test_a_field_that_is_called_digest_is_one_of_others() -> None:
    assert identity(Named("x", 0.5)) == {"digest": "x", "rate": 0.5}
    assert identity(Short(0.5)) != identity(Short(0.7))
    assert identity(Hashed(0.5)) == {"class": f"{HERE}:Hashed", "digest": "of 0.5"}
    assert identity(Hashed(0.5), by_fields=True) == {"rate": 0.5}


def test_a_file_that_was_run_goes_by_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "loops.py").write_text("def learn(env): pass\n")
    assert identity(load_object(f"{tmp_path}/loops.py:learn")) == "loops:learn"


class TestSources:
    @pytest.fixture
    def loops(self, tmp_path: Path) -> Path:
        files = {
            "loops": "import numpy\nfrom base import Base\n"
            "class Loop(Base):\n  def go(self): pass\ndef learn(env): pass\n",
            "base": "import pack.deep\nclass Base: pass\n",
            "pack/__init__": "",
            "pack/deep": "",
            "other": "",
        }
        (tmp_path / "pack").mkdir()
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(text)
        return tmp_path / "loops.py"

    FOUND = ("base.py", "loops.py", "pack/__init__.py", "pack/deep.py")

    def test_a_value_is_made_of_its_file_and_of_what_that_imports(self, loops: Path) -> None:
        loop, learn = (load_object(f"{loops}:{name}") for name in ("Loop", "learn"))
        for value in (
            loop(),
            loop,
            learn,
            {"a": [functools.partial(learn, 1)]},
            functools.lru_cache(learn),
            loop().go,
            {"algorithm": f"{loops}:Loop"},
        ):
            assert tuple(own_sources(value)) == self.FOUND

    def test_an_edit_is_seen_in_the_file_that_it_is_in(self, loops: Path) -> None:
        learn = load_object(f"{loops}:learn")
        before = own_sources(learn)
        (loops.parent / "pack" / "deep.py").write_text("x = 1\n")
        (loops.parent / "other.py").write_text("x = 1\n")
        after = own_sources(learn)
        assert {name for name in before if before[name] != after[name]} == {"pack/deep.py"}

    def test_what_is_installed_or_ours_is_not_looked_at(self, tmp_path: Path) -> None:
        folder = tmp_path / "site-packages"
        folder.mkdir()
        (folder / "loops.py").write_text("def learn(env): pass\n")
        learn = load_object(f"{folder}/loops.py:learn")
        for value in (learn, 3, "x", len, np.zeros(2), json.JSONDecoder(), tiny_lm(), identity):
            assert own_sources(value) == {}

    def test_of_a_notebook_there_is_the_text_of_its_functions(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = []
        for number, text in enumerate(("rate = 1", "rate = 2")):
            cell = f"<cell {number}>"
            code = f"class Loop:\n    def run(self):\n        {text}\n"
            linecache.cache[cell] = (len(code), None, code.splitlines(keepends=True), cell)
            names: dict[str, Any] = {"__name__": "__main__"}
            exec(compile(code, cell, "exec"), names)
            monkeypatch.setattr(sys.modules["__main__"], "__file__", None, raising=False)
            found.append(own_sources(names["Loop"]()))
        assert list(found[0]) == list(found[1]) == ["Loop"]
        assert found[0] != found[1]

    def test_two_lambdas_of_a_notebook_count_both(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys.modules["__main__"], "__file__", None, raising=False)
        found = []
        for first in (1, 2):
            code = f"pair = [\n    lambda: {first},\n    lambda: 3,\n]\n"
            cell = f"<cell of {first}>"
            linecache.cache[cell] = (len(code), None, code.splitlines(keepends=True), cell)
            names: dict[str, Any] = {"__name__": "__main__"}
            exec(compile(code, cell, "exec"), names)
            found.append(own_sources(names["pair"]))
        assert list(found[0]) == list(found[1]) == ["<lambda>"]
        assert found[0] != found[1]

    SCRIPT = """\
from base import Base

SEEDS = [0, 1]

class Loop(Base):
    def go(self):
        return range(3)

loop = Loop()
"""

    @pytest.mark.parametrize(("old", "new", "counts"), [("[0, 1]", "[0]", 0), ("(3)", "(4)", 1)])
    def test_of_a_script_there_is_the_text_of_what_it_makes(
        self, loops: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, counts: int
    ) -> None:
        file = loops.parent / "script.py"
        monkeypatch.setattr(sys.modules["__main__"], "__file__", str(file), raising=False)
        monkeypatch.syspath_prepend(str(loops.parent))
        found = []
        for text in (self.SCRIPT, self.SCRIPT.replace(old, new)):
            file.write_text(text)
            linecache.checkcache(str(file))
            sys.modules.pop("base", None)
            names: dict[str, Any] = {"__name__": "__main__"}
            exec(compile(text, file, "exec"), names)
            monkeypatch.setitem(vars(sys.modules["__main__"]), "Loop", names["Loop"])
            found.append(own_sources(names["loop"]))
        assert list(found[0]) == ["Loop", "base.py", "pack/__init__.py", "pack/deep.py"]
        changed = {name for name in found[0] if found[0][name] != found[1][name]}
        assert changed == ({"Loop"} if counts else set())
