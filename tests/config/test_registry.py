"""Optimisers and tasks by name: their settings, and a plain line for what is not there."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from rlprompt._utils.assets import AssetError
from rlprompt.agents.greedy import Greedy
from rlprompt.config import registry
from rlprompt.config.registry import (
    FOLLOWED,
    checked_task,
    entries,
    import_task,
    load,
    make_optimiser,
    make_task,
    settings_of,
    summary_of,
)


def test_settings_change_the_defaults() -> None:
    assert make_optimiser("greedy", {"pool": 0.5}) == Greedy(pool=0.5)
    assert settings_of(Greedy)["pool"] == Greedy().pool


@pytest.mark.parametrize("name", sorted(entries("optimiser")))
def test_no_method_has_a_setting_that_hides_one_of_its_prompts(name: str) -> None:
    """`{name: greedy, tokens: words}` says what the prompts are made of, for every method."""
    hidden = settings_of(load("optimiser", name)).keys() & {"length", "tokens"}
    assert not hidden, f"{name} cannot be told {hidden} of its prompts"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pol": 0.5}, "optimiser greedy has no setting 'pol'; did you mean 'pool'?"),
        ({"zzz": 1}, "optimiser greedy has no setting 'zzz'; known: pool, "),
        ({"pool": "much"}, "optimiser greedy: pool must be a number, got 'much'"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match="optimiser greedy") as caught:
        make_optimiser("greedy", settings)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("name", "meant"), [*FOLLOWED.items(), ("RLPrompt", "soft-q"), ("greeedy", "greedy")]
)
def test_the_name_of_a_paper_leads_to_the_method_that_follows_it(name: str, meant: str) -> None:
    with pytest.raises(
        ValueError, match=f"no optimiser is called {name!r}; did you mean {meant!r}"
    ):
        make_optimiser(name, {})


MINE = """
from dataclasses import dataclass
from functools import partial

from rlprompt import AskTell
from rlprompt.agents import Play

@dataclass(frozen=True)
class Mine(AskTell):
    step: float = 1.0
    searches = "tokens"

    def __post_init__(self):
        if self.step < 0:
            raise ValueError("step is negative")

    def ask(self, space, n_prompts, rng):
        yield [space.sample(rng)]

class Plain:
    searches = "tokens"

    def __init__(self, step=2):
        self.step = step

    def run(self, objective, space, rng):
        pass

class Nothing:
    searches = "tokens"

class Words:
    searches = "words"

    def run(self, objective, space, rng):
        pass

def learn(env, rate=0.5):
    env.reset()

def played(rate: float = 0.5):
    return Play(partial(learn, rate=rate))

@dataclass(frozen=True)
class Checked(Mine):
    step: "Known" = 1

class Raises(Mine):
    def __init__(self, step):
        raise KeyError("step")

HALF = partial(Mine, step=0.5)
playing = Play(learn)
number = 3
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    """A file with optimisers of a person's own."""
    (tmp_path / "mine.py").write_text(MINE)
    return str(tmp_path / "mine.py")


def test_an_optimiser_of_ones_own_is_made_with_its_settings(mine: str) -> None:
    made: Any = make_optimiser(f"{mine}:Mine", {"step": 3})
    assert (type(made).__name__, made.step, made.searches) == ("Mine", 3.0, "tokens")
    plain: Any = make_optimiser(f"{mine}:Plain", {"step": "any"})
    assert plain.step == "any"
    played: Any = make_optimiser(f"{mine}:played", {"rate": 1})
    assert (type(played).__name__, played.function.keywords) == ("Play", {"rate": 1.0})
    half: Any = make_optimiser(f"{mine}:HALF", {"step": 4})
    assert half.step == 4.0
    checked: Any = make_optimiser(f"{mine}:Checked", {"step": 2})  # a type for type checkers alone
    assert checked.step == 2


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("Mine", {"stp": 1}, "optimiser Mine has no setting 'stp'; did you mean 'step'?"),
        ("Mine", {"step": "x"}, "optimiser Mine: step must be a number, got 'x'"),
        ("Mine", {"step": -1}, "optimiser Mine: step is negative"),
        ("Min", {}, "mine.py has no 'Min'; did you mean 'Mine'?"),
        (
            "number",
            {},
            "type int; give a class, or a function that gives an optimiser, such as `Pl",
        ),
        ("playing", {}, "type Play; give a class, or a function that gives an optimiser, such as"),
        ("learn", {}, "learn needs the setting 'env'; a loop is given by a function without it"),
        ("played", {"rte": 1}, "optimiser played has no setting 'rte'; did you mean 'rate'?"),
        ("Raises", {"step": 1}, "optimiser Raises raised KeyError: 'step' at mine.py:"),
        ("HALF", {"stp": 1}, "optimiser HALF has no setting 'stp'; did you mean 'step'?"),
        ("Nothing", {}, "mine.py:Nothing gives a Nothing, which is no optimiser; one has `search"),
        ("Words", {}, "mine.py:Words gives a Words, which is no optimiser; one has `searches`, 't"),
    ],
)
def test_what_is_wrong_with_ones_own_is_said(
    mine: str, name: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=r"mine|optimiser") as caught:
        make_optimiser(f"{mine}:{name}", settings)
    assert message in str(caught.value)


def test_one_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = EntryPoint("broken", "rlprompt.no_such_module:Nothing", "rlprompt.optimisers")
    known = entries("optimiser") | {"broken": broken}
    monkeypatch.setattr(registry, "entries", lambda kind: known)
    with pytest.raises(ValueError, match=r"optimiser broken .* cannot be imported: No module"):
        make_optimiser("broken", {})


OWN = """
from rlprompt.check.toy import ToyTask

def toy(n_examples=2):
    return ToyTask(n_examples)

def broken():
    raise OSError("no disk")

class NoSplits:
    name = fingerprint = "none"
    rewards = None

    @property
    def splits(self):
        return {}["train"]

number = 3
"""


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("toy", {"size": 3}, r"cannot be called with args \{'size': 3\}"),
        ("broken", {}, "raised OSError: no disk"),
        ("number", {}, "is of the type int; give a class, or a function"),
        ("NoSplits", {}, r"NoSplits raised KeyError: 'train' at mine.py:\d+"),
    ],
)
def test_a_task_of_ones_own_is_made_or_says_why_not(
    tmp_path: Path, name: str, args: dict[str, Any], message: str
) -> None:
    place = tmp_path / "mine.py"
    place.write_text(OWN)
    assert len(import_task(f"{place}:toy", {"n_examples": 3}).splits.train) == 3
    with pytest.raises(ValueError, match=message):
        import_task(f"{place}:{name}", args)


@pytest.mark.parametrize("error", [AssetError("not in the cache"), OSError("no disk")])
def test_what_is_not_there_says_so_itself(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def gone(**_: Any) -> None:
        raise error

    monkeypatch.setattr(registry, "load", lambda kind, name: gone)
    with pytest.raises(type(error), match=f"^{error}$"):
        make_task("movie-reviews", {})


def test_what_is_no_task_is_told_what_it_lacks() -> None:
    with pytest.raises(ValueError, match="gives a int without name, splits, fingerprint, rewards"):
        checked_task(3, "mine")


def test_the_first_line_describes_a_method() -> None:
    assert summary_of(Greedy) == (Greedy.__doc__ or "").splitlines()[0]
