"""Does a task keep its promises, and is it worth a search?

For pytest:

    check_task(my_task, lm).raise_if_failed()

A task is asked about few prompts and examples, in ways that must not matter. What cannot be seen
from here: a fingerprint that differs between processes, such as one made with Python's `hash`, and
a cache with a wrong key, which gives the same wrong answer for ever.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import itertools
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, get_args

import numpy as np

from rlprompt._utils.seeding import random_states
from rlprompt._utils.text import listed
from rlprompt.check.calls import CheckedTask, as_rewards, raised
from rlprompt.check.classes import check_classes, check_foresight, largest_class
from rlprompt.check.empty_answers import empty_answers
from rlprompt.check.gradient import check_gradient, gradient_calls
from rlprompt.check.patience import Patience
from rlprompt.check.purity import check_purity, purity_rows
from rlprompt.check.report import Finding, Report, Stop, collect, verdict
from rlprompt.check.signal import check_signal
from rlprompt.check.state import changed, model_state
from rlprompt.data.examples import Example, Splits
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Length, Prompt, SoftPrompt, TextPrompt, TokenPrompt
from rlprompt.search.make_space import make_space
from rlprompt.search.objective import CHUNK
from rlprompt.search.space import TextSpace, TokenSpace
from rlprompt.tasks.base import Measured, Task, what_it_writes
from rlprompt.tasks.completed import as_task
from rlprompt.tasks.fitting import fitted
from rlprompt.template import Query
from rlprompt.types import PromptKind

# What a task has, what that must be, and how to tell.
MEMBERS: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    ("name", "a text that is not empty", lambda v: isinstance(v, str) and bool(v.strip())),
    ("fingerprint", "a text", lambda v: isinstance(v, str)),
    ("rewards", "a method (lm, prompts, examples)", callable),
    ("splits", "`Splits` of train, dev and test", lambda v: _parts(v) == ["train", "dev", "test"]),
)
# Sizes that tell (P, E) from (E, P).
N_PROMPTS, N_EXAMPLES = 4, 3
# Random prompts and train examples that the worth of a search is judged by.
MANY_PROMPTS, MANY_EXAMPLES = 16, 16
# Of them at the least; fewer say next to nothing.
LEAST_PROMPTS = 6
# Times a forward pass over the same texts from which a task is slow, and seconds a row that are
# nothing whatever the model.
SLOW, QUICK = 10.0, 1e-3
# Tokens of an example's text that a forward pass is timed on.
TIMED_TOKENS = 256


def check_task(
    task: Task,
    lm: FrozenLM,
    *,
    seed: int = 0,
    length: int | Length = 5,
    every_example: bool = True,
    patience: Patience | None = None,
) -> Report:
    """Try a task: about 1,000 rows, and one for each example.

    Args:
        task: What is checked.
        lm: A model that it is meant for.
        seed: Decides the prompts.
        length: Tokens of a prompt, exactly or in a range; see `search`.
        every_example: Whether each example of every split is scored once, dev and test included, so
            that a search does not end in an error at its last step. No reward of theirs is told.
        patience: How long that may take, and where what is left out is noted; None for all of it.

    >>> from rlprompt.check.toy import ToyTask, toy_lm
    >>> report = check_task(ToyTask(), toy_lm())
    >>> report.failed
    ()
    >>> report.lines()[0]
    'ok    protocol              name, splits, fingerprint and rewards are there'
    """
    task = inspect.unwrap(task)  # type: ignore[arg-type]  # a person's own object
    members = collect(lambda: _members(task))
    subject = str(getattr(task, "name", type(task).__name__))
    if any(finding.status == "fail" for finding in members):
        return Report(subject, members)
    if as_task(task).has("fitted"):
        try:
            task = fitted(as_task(task), lm, length)
        except ValueError as error:
            return Report(subject, (*members, Finding("examples-fit", "fail", str(error))))
        members += tuple(_texts(task, lm))
    rng = np.random.default_rng(seed)
    check = _Check(task, lm, rng, length, Patience() if patience is None else patience)
    series = [lambda: _fingerprint(task), check.answers]
    if every_example:
        series.append(check.every_example)
    series.append(check.left_alone)
    return Report(subject, members + collect(*series))


def _members(task: Task) -> Iterator[Finding]:
    """Whether it is a task at all."""
    wrong = []
    for name, wanted, fine in MEMBERS:
        try:
            value = getattr(task, name, None)
        # Any error: a property of theirs may raise what it likes.
        except Exception as error:
            raise Stop(raised(error, f" (for `{name}`)")) from error
        if not fine(value):
            seen = "not there" if value is None else repr(value)[:60]
            wrong.append(f"`{name}` is {seen}; it must be {wanted}")
    problem = "this is a class; give a task, such as an instance of it"
    problem = problem if isinstance(task, type) else "; ".join(wrong)
    yield verdict("protocol", problem, "name, splits, fingerprint and rewards are there")
    if problem:
        return
    parts = task.splits.parts()
    try:
        Splits(parts["train"], parts["dev"], parts["test"])
        leak = ""
    except ValueError as error:
        leak = str(error)
    sizes = ", ".join(f"{len(part)} {name}" for name, part in parts.items())
    allowed = getattr(task.splits, "on_leak", "error") == "allow"
    apart = f"{sizes} examples, none in two splits"
    if leak and allowed:
        leak = f"{leak.partition(';')[0].partition('. ')[0]}, which on_leak: allow allows"
    yield verdict("splits", leak, apart, "warn" if allowed else "fail")


def _texts(task: Task, lm: FrozenLM) -> Iterator[Finding]:
    """How the tokenizer treats the borders of the pieces of examples."""
    warnings = list(task.spelling_warnings(lm))
    yield from (Finding("tokens", "warn", warning) for warning in warnings)
    if not warnings:
        fine = "text, prompt and answer have the tokens that they have typed at once"
        yield Finding("tokens", "pass", fine)


def _fingerprint(task: Task) -> Iterator[Finding]:
    """Whether it is the hash of what it should be the hash of."""
    problem = "it is another one at each look: nothing that was paid for is found again. "
    problem += "Hash the content alone, neither addresses nor times"
    stable = task.fingerprint == task.fingerprint == copy.copy(task).fingerprint
    yield verdict("fingerprint-stable", "" if stable else problem, "a copy has the same")
    parts = task.splits.parts()
    first = parts["train"][0]
    fields = {name: f"{text} " * 2 for name, text in first.fields.items()}
    other = dataclasses.replace(first, fields=fields)
    rest = (*parts["train"][1:],)
    splits = Splits((other, *rest), parts["dev"], parts["test"], on_leak="allow")
    value: Any = task  # a dataclass, or else no fields are found
    settable = {f.name: f for f in dataclasses.fields(value)} if _is_value(task) else {}
    if "splits" not in settable or not settable["splits"].init or "fingerprint" in settable:
        text = "could not be tried; make sure that it changes with the examples"
        yield Finding("fingerprint-examples", "warn", text)
        return
    changed_task = dataclasses.replace(value, splits=splits)
    problem = "it is the same with another train example, so answers to one would be taken for "
    problem += "answers to the other; let `splits.digest` enter it"
    same = changed_task.fingerprint == task.fingerprint
    yield verdict("fingerprint-examples", problem if same else "", "it changes with the examples")


def _parts(splits: Any) -> list[str]:
    return list(splits.parts()) if hasattr(splits, "parts") else []


def _is_value(task: Task) -> bool:
    return dataclasses.is_dataclass(task) and not isinstance(task, type)


class _Check:
    """Asks one task.

    Args:
        task: What is checked.
        lm: The model.
        rng: Draws prompts.
        length: Of prompts.
        patience: How long it may take.
    """

    def __init__(
        self,
        task: Task,
        lm: FrozenLM,
        rng: np.random.Generator,
        length: int | Length,
        patience: Patience,
    ) -> None:
        self.patience = patience
        self.given, self.task = task, as_task(task)
        self.lm, self.rng, self.length = lm, rng, length
        # Of their own, so that what is drawn for other kinds does not depend on texts.
        self.text_rng = np.random.default_rng(0)
        self.model, self.states = model_state(lm), random_states()
        self.attributes = _attributes(task)
        self.fingerprint = task.fingerprint
        self.ask = CheckedTask(self.task, lm)

    def prompts(self, kind: PromptKind, count: int) -> list[Prompt]:
        """Random prompts, each another one."""
        if kind == "text":
            tokens = make_space("tokens", self.lm, self.length, (), self.text_rng, self.task)
            assert isinstance(tokens, TokenSpace)
            drawn = [tokens.sample(self.text_rng) for _ in range(count)]
            return [TextPrompt(self.task.described(self.lm, one)[0]) for one in drawn]
        space = make_space(kind, self.lm, self.length, (), self.rng, self.task)
        assert not isinstance(space, TextSpace)
        if isinstance(space, TokenSpace):
            return [space.sample(self.rng) for _ in range(count)]
        noise = 0.5 * self.rng.standard_normal((count, *space.start.shape))
        return [space.prompt(z) for z in noise]

    def answers(self) -> Iterator[Finding]:
        """What it says to few prompts and examples."""
        train = self.task.splits.parts()["train"]
        examples = _spread(train, N_EXAMPLES)
        taken = listed(f"{kind.removesuffix('s')} prompts" for kind in self.kinds)
        yield Finding("kinds", "pass", f"it takes {taken}")
        first = self.prompts(self.kinds[0], N_PROMPTS)
        self.ask(first, examples)
        # Single rows, and the first ones, say little about how long many take.
        self.ask.rows, self.ask.seconds = 0, 0.0
        self.ask(first, examples)
        if not (yield from self._asked_again(self.kinds[0], first, examples)):
            return
        # Before other kinds and gradients: it is what a search stands or falls with.
        some = _spread(train, MANY_EXAMPLES)
        fits = self.patience.left / max(1e-9, self._seconds(self._signal_rows(1)))
        count = int(min(fits, MANY_PROMPTS))
        if count < MANY_PROMPTS:
            left = f"{MANY_PROMPTS - count if count >= LEAST_PROMPTS else 'all'} of {MANY_PROMPTS}"
            what = f"{left} random prompts that tell what a search could find"
            self.patience.leave_out(what, self._seconds(self._signal_rows(MANY_PROMPTS)))
        if count >= LEAST_PROMPTS:
            yield from self._signal(self.kinds[0], count, some)
        if "tokens" in self.kinds and self._allows(3 * len(some), "whether the model writes"):
            yield from self._written(some)
        for kind in self.kinds[1:]:
            if not (yield from self._asked_again(kind, self.prompts(kind, N_PROMPTS), examples)):
                return
        n_rows = gradient_calls(2) * self.ask.cost(examples)
        hooks = ("rewards_with_grad", "cross_entropy_with_grad")
        if (
            "soft" in self.kinds
            and any(map(self.task.has, hooks))
            and self._allows(n_rows, "whether the gradient is that of the reward")
        ):
            soft = [p for p in self.prompts("soft", 2) if isinstance(p, SoftPrompt)]
            yield from check_gradient(self.task, self.ask, soft, examples, self.rng)
        self.patience.row_seconds = self.ask.row_seconds

    def _asked_again(
        self, kind: PromptKind, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Generator[Finding, None, bool]:
        """Whether prompts of a kind earn the same in all ways; returns whether to go on."""
        dev = self.task.splits.parts()["dev"][:2]
        what = f"whether {kind.removesuffix('s')} prompts asked again earn the same"
        if not self._allows(purity_rows(self.ask, len(prompts), examples, dev), what):
            return True
        others = self.prompts(kind, 2)
        found = collect(partial(check_purity, self.ask, prompts, examples, others, dev))
        yield from found
        if any(finding.status == "fail" for finding in found):
            return False
        yield from self._companions(prompts, examples)
        return True

    def _allows(self, n_rows: int, what: str) -> bool:
        """Whether there is time for so many rows."""
        return self.patience.allows(self._seconds(n_rows), what)

    def _seconds(self, n_rows: int) -> float:
        """What so many rows take, as far as it is known."""
        return n_rows * self.ask.row_seconds

    def _signal_rows(self, n_prompts: int) -> int:
        """Rows from which the worth of a search is told: of the task, and of the model alone."""
        some = _spread(self.task.splits.train, MANY_EXAMPLES)
        return n_prompts * (self.ask.cost(some) + len(some))

    @cached_property
    def kinds(self) -> list[PromptKind]:
        """The kinds of prompts that it takes, one at least.

        Raises:
            Stop: It raised an error for each.
        """
        taken, stops = [], []
        examples = self.task.splits.parts()["train"][:1]
        for kind in get_args(PromptKind):
            try:
                self.ask.raw(self.prompts(kind, 1), examples)
            except Stop as stop:
                stops.append(stop)
            except ValueError:
                if kind != "prefix":
                    raise
                # The model, or the template, has no place for them.
            else:
                taken.append(kind)
        if not taken:
            raise stops[0]
        return taken

    def _companions(
        self, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Iterator[Finding]:
        """Whether what it says besides agrees with its rewards."""
        rewards = self.ask(prompts, examples)
        if self.task.has("measure"):
            again, metric, *_ = self._measure(prompts, examples)
            metric = np.asarray(metric)
            problem = ""
            if not np.allclose(again, rewards, rtol=0, atol=self.ask.tolerance(rewards)):
                problem = "`measure` gives other rewards than `rewards`"
            elif metric.shape != rewards.shape or not np.isfinite(metric).all():
                problem = f"`measure` gives a metric of shape {metric.shape}; expected finite "
                problem += f"numbers of shape {rewards.shape}"
            yield verdict("metric", problem, "`measure` gives the same rewards, and a metric")
        if self.task.has("rewards_with_outputs"):
            again, texts = self.ask.guarded(
                len(prompts) * self.ask.cost(examples),
                lambda task: task.rewards_with_outputs(self.lm, list(prompts), list(examples)),
            )
            problem = ""
            if not np.allclose(again, rewards, rtol=0, atol=self.ask.tolerance(rewards)):
                problem = "`rewards_with_outputs` gives other rewards than `rewards`"
            elif [len(row) for row in texts] != [len(examples)] * len(prompts):
                problem = "`rewards_with_outputs` does not give a text for each prompt and example"
            yield verdict("outputs", problem, "`rewards_with_outputs` gives the same rewards")

    def _written(self, examples: Sequence[Example]) -> Iterator[Finding]:
        """Whether the model writes anything, where it is to write."""
        prompts: dict[str, Prompt] = {"the empty prompt": TokenPrompt()}
        if self.task.hand_prompt:
            prompts["the hand-written one"] = self.task.written(self.lm, self.task.hand_prompt)
        (prompts["a random one"],) = self.prompts("tokens", 1)
        outputs = self.ask.guarded(
            len(prompts) * len(examples),
            lambda task: what_it_writes(task, self.lm, list(prompts.values()), list(examples)),
        )
        if outputs is not None:
            problem = empty_answers(dict(zip(prompts, outputs, strict=True)), self.task)
            yield verdict("writing", problem, "the model writes answers", "warn")

    def _signal(
        self, kind: PromptKind, count: int, examples: Sequence[Example]
    ) -> Iterator[Finding]:
        """What a search could find, by so many prompts, and what a row costs."""
        self.ask(self.prompts(kind, 1), examples)  # what is kept from call to call is kept now
        prompts = self.prompts(kind, count)
        began = time.perf_counter()
        measured = None
        if self.task.class_words and self.task.has("measure"):
            measured = self._measure(prompts, examples)
            rewards = as_rewards(measured.rewards, prompts, examples)
        else:
            rewards = self.ask(prompts, examples)
        seconds = (time.perf_counter() - began) / rewards.size
        forward = _forward_seconds(self.lm, prompts, examples)
        text = f"{1e3 * seconds:.2g} ms a row, {seconds / forward:.1f} times a forward pass over "
        text += "the same texts"
        slow = seconds > max(SLOW * forward, QUICK)
        advice = text + f"; 10,000 rows take {1e4 * seconds / 60:.0f} min. Score prompts together"
        yield verdict("cost", advice if slow else "", text, "warn")
        yield from check_signal(
            rewards, len(self.task.splits.parts()["train"]), self._seen(examples)
        )
        if self.task.class_words:
            yield largest_class(self.task.splits, self.task.metric)
        if measured is not None:
            can_calibrate = self.task.calibrated() is not None
            yield from check_classes(measured, examples, can_calibrate=can_calibrate)
        elif (
            self.task.metric != "reward"
            and "writing" in (self.task.usage() or {})
            and self._allows(rewards.size, "how the reward foretells the metric")
        ):
            measured = self._measure(prompts, examples)
            yield check_foresight(measured, self.task.metric)

    def _measure(self, prompts: Sequence[Prompt], examples: Sequence[Example]) -> Measured:
        """What the task measures."""
        measured = self.ask.guarded(
            len(prompts) * self.ask.cost(examples),
            lambda task: task.measure(self.lm, list(prompts), list(examples)),
        )
        return Measured(*measured)

    def _seen(self, examples: Sequence[Example]) -> str:
        """What the model wrote, if it did."""
        prompt = self.prompts(self.kinds[0], 1)
        texts = self.ask.guarded(
            len(examples), lambda task: what_it_writes(task, self.lm, prompt, list(examples))
        )
        some = ", ".join(map(repr, texts[0][:3])) if texts else ""
        return f"under one of them the model wrote {some}" if some else ""

    def every_example(self) -> Iterator[Finding]:
        """Whether a prompt can be scored on each example of all splits that there is time for."""
        prompts = self.prompts(self.kinds[0], 1)
        parts = self.task.splits.parts().values()
        count, total = 0, sum(map(len, parts))
        for chunk in _in_turns(parts, self.rng):
            if self._seconds(self.ask.cost(chunk)) > self.patience.left:
                break
            self.ask(prompts, chunk)
            count += len(chunk)
        text = f"all {total} examples of all splits can be scored"
        if count < total:
            self._allows(total - count, f"{total - count:,} of {total:,} examples, scored once")
            text = f"{count:,} of {total:,} examples can be scored, the longest of each split first"
        if count:
            yield Finding("every-example", "pass", text)

    def left_alone(self) -> Iterator[Finding]:
        """Whether all those calls changed anything."""
        inputs = ", ".join(sorted(self.ask.changed))
        problem = f"it changed the {inputs} it was given; change a copy"
        fine = "prompts and examples are as they were"
        yield verdict("inputs-unchanged", problem if inputs else "", fine)
        drawn = ", ".join(changed(self.states, random_states()))
        problem = f"it changed the global generator of {drawn}, and with it what others draw; use "
        problem += "a generator of its own"
        fine = "the global random generators are as they were"
        yield verdict("random-state", problem if drawn else "", fine)
        touched = ", ".join(changed(self.model, model_state(self.lm)))
        problem = f"it changed the model's {touched}; the model is frozen, load it again"
        fine = "weights and modes of the model are as they were"
        yield verdict("model-unchanged", problem if touched else "", fine)
        altered = ", ".join(changed(self.attributes, _attributes(self.given)))
        problem = (
            f"scoring changed its {altered}; harmless if that only remembers what was computed"
        )
        fine = "its attributes are as they were"
        yield verdict("attributes", problem if altered else "", fine, "warn")
        if self.task.fingerprint != self.fingerprint:
            text = "it changed while prompts were scored; hash what was given, once"
            yield Finding("fingerprint-stable", "fail", text)


def _attributes(task: Task) -> dict[str, object]:
    """The attributes of a task as text."""
    return {name: repr(value) for name, value in getattr(task, "__dict__", {}).items()}


def _spread(examples: Sequence[Example], count: int) -> list[Example]:
    """A few examples from all over a split."""
    places = np.linspace(0, len(examples) - 1, min(count, len(examples))).round().astype(int)
    return [examples[i] for i in places]


def _in_turns(
    parts: Iterable[Sequence[Example]], rng: np.random.Generator
) -> Iterator[Sequence[Example]]:
    """All examples in pieces, split by split in turn: the longest first, the others by chance."""
    pieces = []
    for part in parts:
        longest = sorted(part, key=lambda one: -sum(map(len, one.fields.values())))
        rest = longest[CHUNK:]
        mixed = [*longest[:CHUNK], *(rest[i] for i in rng.permutation(len(rest)))]
        pieces.append([mixed[start : start + CHUNK] for start in range(0, len(mixed), CHUNK)])
    for turn in itertools.zip_longest(*pieces):
        yield from filter(None, turn)


def _forward_seconds(lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]) -> float:
    """Seconds a row that the model itself needs for prompts behind the examples' texts."""
    mask = () if lm.kind != "masked" or lm.mask_id is None else (lm.mask_id,)
    limit = TIMED_TOKENS if lm.context is None else min(TIMED_TOKENS, lm.context // 2)
    queries = [
        Query(
            (*lm.prefix_ids, *lm.encode(" ".join(example.fields.values()), plain=True)[:limit]),
            (*mask, *lm.suffix_ids),
            ((0,), (1,)),
        )
        for example in examples
    ]
    lm.score(prompts[:1], queries)
    began = time.perf_counter()
    lm.score(prompts, queries)
    return (time.perf_counter() - began) / (len(prompts) * len(queries))
