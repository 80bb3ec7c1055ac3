"""A person's own files and modules: found, run once, and every failure named."""

from __future__ import annotations

import colorsys
import sys
from pathlib import Path

import pytest

from rlprompt._utils.plugins import _run, load_object, locate, module_title
from rlprompt.config.registry import import_task

TASK = """\
from dataclasses import dataclass
from helper import splits

@dataclass
class Mine:
    n: int
    name = "mine"
    fingerprint = "1"
    splits = splits()

    def rewards(self, lm, prompts, examples):
        return [[float(self.n)] * len(examples) for _ in prompts]

class NoTask:
    name = "nothing"

class Unsplit(Mine):
    splits = None

class Broken:
    def __init__(self):
        raise KeyError("city")

number = 3
"""
HELPER = """\
from rlprompt import Example, Splits

def splits():
    parts = ((Example({"text": text}, "a"),) for text in "xyz")
    return Splits(*parts)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "helper.py").write_text(HELPER)
    (tmp_path / "mine.py").write_text(TASK)
    return tmp_path / "mine.py"


def test_each_file_has_its_own_neighbours_and_not_those_of_another_folder(tmp_path: Path) -> None:
    found = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "deep").mkdir()
        for name in ("namesake", "deep/namesake", "colorsys"):
            (folder / f"{name}.py").write_text(f"number = {number}")
        (folder / "asks.py").write_text(
            "import colorsys, namesake\nfrom deep import namesake as deeper\n"
            "numbers = namesake.number, deeper.number, hasattr(colorsys, 'rgb_to_hsv')"
        )
        found.append(load_object(f"{folder}/asks.py:numbers"))
    assert found == [(1, 1, True), (2, 2, True)]  # a module that others imported is not taken away
    assert sys.modules["colorsys"] is colorsys


def test_a_file_is_found_beside_the_experiment_with_or_without_its_ending(file: Path) -> None:
    for written in ("mine:Mine", "mine.py:Mine"):
        assert locate(written, file.parent) == f"{file}:Mine"
    for elsewhere in ("torch.nn:Linear", "exact_match", "regex:a:b"):
        assert locate(elsewhere, file.parent) == elsewhere


def test_a_file_is_run_once_with_its_neighbours_in_reach_and_leaves_the_path(file: Path) -> None:
    before = list(sys.path)
    made = load_object(f"{file}:Mine")
    assert made is load_object(f"{file}:Mine")
    assert made(n=2).splits.train[0].fields == {"text": "x"}
    assert sys.path == before
    assert "mine" not in sys.modules


def test_files_of_the_same_name_are_two_modules(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.py").write_text(f"where = {folder!r}")
        assert load_object(f"{tmp_path / folder}/same.py:where") == folder


def test_a_module_is_found_by_its_name() -> None:
    assert load_object("rlprompt._utils.plugins:locate") is locate


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{}:Minee", r"mine.py has no 'Minee'; did you mean 'Mine'\?"),
        ("{}/nowhere.py:X", "there is no file /.*nowhere.py"),
        ("no_such_module:X", "there is no module 'no_such_module': no no_such_module.py beside"),
        ("Mine", "'Mine' names no object; give FILE.py:NAME or MODULE:NAME"),
    ],
)
def test_what_is_not_there_is_named(file: Path, spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_object(spec.format(file))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = 1\nx.y\n", "bad.py cannot be run: AttributeError: .* at bad.py:2"),
        ("def f(:\n", r"bad.py cannot be run: SyntaxError: .*bad.py, line 1\)$"),
        ("x = 1\neval('x:')\n", r"SyntaxError: .*<string>, line 1\) at bad.py:2"),
        ("raise ValueError\n", "bad.py cannot be run: ValueError at bad.py:1"),
        ("import no_such_thing\n", "bad.py cannot be run: ModuleNotFoundError: .*no_such_thing"),
    ],
)
def test_a_file_that_fails_is_named_with_its_line(
    tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "bad.py").write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_object(f"{tmp_path}/bad.py:f")
    assert caught.value.__cause__ is not None


class TestTask:
    def test_a_class_is_made_with_its_arguments(self, file: Path) -> None:
        assert import_task(f"{file}:Mine", {"n": 3}).name == "mine"

    @pytest.mark.parametrize(
        ("name", "args", "message"),
        [
            ("Mine", {}, r"mine.py:Mine cannot be called with args \{\}: missing a required"),
            ("Mine", {"m": 1}, "mine.py:Mine cannot be called with args .*: missing a required"),
            ("NoTask", {}, "gives a NoTask without splits, fingerprint, rewards, which is no task"),
            ("number", {}, "mine.py:number is of the type int; give a class, or a function"),
            ("Unsplit", {"n": 1}, "has splits of the type NoneType; make them with"),
            ("Broken", {}, "mine.py:Broken raised KeyError: 'city'"),
        ],
    )
    def test_what_is_no_task_is_named(
        self, file: Path, name: str, args: dict[str, int], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            import_task(f"{file}:{name}", args)


def test_a_module_is_called_alike_where_it_was_only_sent(tmp_path: Path) -> None:
    (tmp_path / "bandit.py").write_text("def learn(env): pass\n")
    (tmp_path / "bandit_0a1b2c3d.py").write_text("def learn(env): pass\n")
    name = load_object(f"{tmp_path}/bandit.py:learn").__module__
    assert module_title(name) == "bandit"
    del sys.modules[name]  # as in a process of a cluster, which has what it made alone
    _run.pop(name)
    assert module_title(name) == "bandit"
    sys.path.insert(0, str(tmp_path))
    own = load_object("bandit_0a1b2c3d:learn").__module__
    sys.path.remove(str(tmp_path))
    assert module_title(own) == "bandit_0a1b2c3d"
    del sys.modules[own]
