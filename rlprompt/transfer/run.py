"""Takes the prompts that a study picked to other models and to other tasks, beside any budget.

Tokens go where the tokenizer is the same. Elsewhere, and to a server, their text goes, and is typed
again there; on
the own model that is scored as well, where typing gives other tokens. Vectors mean something in one
embedding space alone, and a hidden size of the same number makes no two spaces one: a soft prompt
is scored as it is on its own model, and everywhere as its nearest tokens. A prefix prompt is near
no tokens, and stays at home. A text goes everywhere as it is.

The own model is scored today for every prompt: where that differs from what the study holds, the
machine, a library or the model has drifted.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Literal

from rlprompt._utils.assets import AssetError
from rlprompt._utils.clock import now
from rlprompt._utils.text import one_line
from rlprompt.data.examples import Example
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import PrefixPrompt, Prompt, SoftPrompt, TextPrompt, TokenPrompt
from rlprompt.search.evaluation import Evaluator, describe, n_tokens, naming, scores_of
from rlprompt.search.memo import Measurement, SplitQuestion
from rlprompt.search.result import Result, Score
from rlprompt.store.store import Store, StoredRun
from rlprompt.store.summary import CALIBRATED, HAND
from rlprompt.studies.experiment import Experiment, searches
from rlprompt.studies.planned_search import PlannedSearch
from rlprompt.studies.verification import check_unchanged, reward_name, rounding
from rlprompt.tasks.base import Measured, Task
from rlprompt.transfer.file import (
    Form,
    ModelEntry,
    Opening,
    Retyping,
    Source,
    Target,
    Transfer,
    TransferEntry,
)
from rlprompt.transfer.notes import notes_on
from rlprompt.types import PromptKind

# What a person gets wrong, or what a model or a task cannot do: the others go on.
MISTAKES = (ValueError, AssetError, OSError)
# What may change a score without a change of model, task and prompt.
PACKAGES = ("rlprompt", "torch", "transformers")
# Prompts scored together: six took 29 s where one by one they took 70, on 200 examples with the
# default model. Ctrl-C loses no more than these.
TOGETHER = 8

# Why a prompt reaches no other tokenizer.
SILENT = "its text is empty, so there is nothing to transfer"
# Why a prefix prompt reaches no other model.
STAYS = (
    "keys and values mean nothing to another model, and no tokens are equivalent; search on this "
    "model"
)

Top = Literal["all", "best"]


@dataclass(frozen=True)
class TargetTask:
    """A task that prompts go to.

    Attributes:
        title: What it is called.
        make: Gives it for a model, with label words of the model's finding where that is asked for.
        asked: Whether prompts of other tasks go there, and not only those that were found on it.
    """

    title: str
    make: Callable[[FrozenLM], Task]
    asked: bool = True


@dataclass(frozen=True)
class FoundPrompt:
    """A picked prompt, with all that is needed of its own model once that is put back.

    Attributes:
        source: What it is called, and how it reads.
        prompt: What its own model is given.
        tokens: The same, or the nearest tokens of a soft prompt; none of a prefix prompt or a text.
        lm: Its own model.
        task: Its own task.
        result: What its search says of it.
    """

    source: Source
    prompt: Prompt
    tokens: TokenPrompt
    lm: FrozenLM
    task: Task
    result: Result


def finished(store: Store) -> list[StoredRun]:
    """The runs of a study that picked a prompt.

    Raises:
        ValueError: There is none.
    """
    picked = [
        run
        for run in store.runs()
        if run.state == "finished" and run.result and run.result.candidates
    ]
    if not picked:
        raise ValueError(
            f"{store.path.parent} has no finished run, so no prompt to transfer; finish it with "
            "`rlprompt work`, or with the command that began it"
        )
    return picked


def found_prompts(
    store: Store, experiments: Sequence[Experiment], top: Top = "all"
) -> tuple[list[FoundPrompt], list[str]]:
    """The picked prompts of a study's finished runs, and what was left out, a sentence each.

    Args:
        store: The study's.
        experiments: What it was made from, as it is today.
        top: `all` of them, or the `best` on dev of each method's seeds.

    Raises:
        ValueError: No run has finished, or model, task or data are not those of the study.
    """
    done, n_runs, grid = finished(store), len(store.runs()), searches(experiments)
    check_unchanged(done, grid)
    notes = []
    if len(done) < n_runs:
        notes.append(f"Left out as unfinished: {n_runs - len(done)} of {n_runs} runs.")
    found = [_found(run, grid[run.name]) for run in done]
    return _best_seeds(found) if top == "best" else found, notes


def _best_seeds(every: Sequence[FoundPrompt]) -> list[FoundPrompt]:
    """Of the prompts that differ by their seed alone, the one that is the best on dev."""
    best: dict[tuple[object, ...], tuple[tuple[float, float], FoundPrompt]] = {}
    for found in every:
        source, dev = found.source, found.result.best.dev
        assert dev is not None  # its search has finished
        method = (source.task, source.model, source.budget_rows, source.optimiser)
        worth = dev.worth(found.task.select_by)
        if method not in best or worth > best[method][0]:
            best[method] = (worth, found)
    return [found for _, found in best.values()]


def _found(run: StoredRun, search: PlannedSearch) -> FoundPrompt:
    task, lm, result = search.task, search.lm, run.result
    assert result is not None
    prompt = task.shortened(lm, result.best.prompt)
    tokens = TokenPrompt()
    if isinstance(prompt, PrefixPrompt | TextPrompt):
        text, retypable = describe(task, lm, prompt)
    else:
        tokens = lm.nearest_tokens(prompt) if isinstance(prompt, SoftPrompt) else prompt
        text, retypable = task.described(lm, tokens)
    source = Source(
        run=run.name,
        task=search.task_name,
        model=lm.name,
        budget_rows=search.budget.rows,
        optimiser=search.method,
        seed=result.seed,
        soft=prompt.kind == "soft",
        tokens=0 if lm.served else n_tokens(lm, prompt),
        text=text,
        retypable=retypable,
    )
    return FoundPrompt(source, prompt, tokens, lm, task, result)


def arrivals(
    found: FoundPrompt, task: Task, lm: FrozenLM
) -> Iterator[tuple[Form, Prompt | str, Retyping | None]]:
    """The forms in which a prompt reaches a task on a model, with what typing did to each.

    In the place of a prompt that does not get there, why. One of no tokens is itself on a model
    with its tokens, as what is left of a prompt of blanks; there is nothing to type of it.
    """
    own, there = found.lm.fingerprint, lm.fingerprint
    same_tokens = own.tokenizer == there.tokenizer
    if isinstance(found.prompt, PrefixPrompt):
        yield "as found", found.prompt if own.digest == there.digest else STAYS, None
        return
    if isinstance(found.prompt, TextPrompt):
        yield "as found", found.prompt, None
        return
    if found.source.soft:
        if own.digest == there.digest:
            yield "as found", found.prompt, None
        tokens: tuple[Prompt, Retyping | None] = (found.tokens, None)
        typed, retyping = tokens if same_tokens else _typed(found.source.text, task, lm)
        yield "nearest tokens", typed if len(typed) else SILENT, retyping
        return
    if same_tokens:
        yield "as found", found.prompt, None
    typed, retyping = _typed(found.source.text, task, lm)
    if not same_tokens or typed != found.prompt:
        yield "by text", typed if len(typed) else SILENT, retyping


def _typed(text: str, task: Task, lm: FrozenLM) -> tuple[Prompt, Retyping | None]:
    """The prompt that exactly this text makes for a model, without the spaces of a template.

    A served model is given the text, and does not tell its tokens.
    """
    if lm.served:
        return TextPrompt(text), None
    prompt = task.spelt(lm, text)
    survives = task.described(lm, prompt)[0] == text
    return prompt, Retyping(tokens=len(prompt), survives=survives)


class TransferScores:
    """Scores on one model and task, kept in a study so that none is computed twice.

    They are kept apart from the study's own and by versions and device: else nothing could drift.
    Each is kept by itself, so a later command finds it in whatever company it asks.

    Args:
        task: What a prompt is worth.
        lm: The frozen model.
        store: The study's.
        read_only: Look scores up, and keep none.

    Attributes:
        evaluator: Computes what is new, and counts it: prompts on test that had not been there.
        lowest: Lowest reward on an example so far.
        highest: Highest reward on an example so far.
    """

    def __init__(self, task: Task, lm: FrozenLM, store: Store, read_only: bool = False) -> None:
        self.task = task
        self.lm = lm
        self.evaluator = Evaluator(task, lm)
        made_by = (*map(version, PACKAGES), platform.machine(), lm.where)
        self._memo = store.memo(lm, task, f" transfer {' '.join(made_by)}")
        self._read_only = read_only
        self.lowest, self.highest = math.inf, -math.inf

    def scores(self, prompts: Iterable[Prompt], split: str) -> dict[Prompt, Score | str]:
        """Means over a split of each prompt, or in a line why it has none."""
        found: dict[Prompt, Score | str] = {}
        new: dict[PromptKind, list[Prompt]] = {}
        examples = self.task.splits.parts()[split]
        for prompt in dict.fromkeys(prompts):
            measurement = self._memo.get(SplitQuestion((prompt,), split))
            if measurement is None:
                new.setdefault(prompt.kind, []).append(prompt)
            else:
                (found[prompt],) = self._scores_of(measurement.measured, examples)
        for kind in new.values():  # a batch is of one kind
            for start in range(0, len(kind), TOGETHER):
                found |= self._computed(kind[start : start + TOGETHER], split)
        return found

    def _computed(self, prompts: Sequence[Prompt], split: str) -> dict[Prompt, Score | str]:
        at, before = now(), self.evaluator.seconds
        try:
            with naming(self.task):
                together = self.evaluator.measure(prompts, split)
        except ValueError as error:
            if len(prompts) == 1:
                return {prompts[0]: one_line(error)}
            # One that cannot be scored, such as a text too long, does not spoil the others.
            alone = (self._computed([prompt], split) for prompt in prompts)
            return {prompt: score for one in alone for prompt, score in one.items()}
        seconds = (self.evaluator.seconds - before) / len(prompts)
        if not self._read_only:
            for i, prompt in enumerate(prompts):
                own = Measurement(_row(together, i), at, seconds)
                self._memo.put(SplitQuestion((prompt,), split), own)
        examples = self.task.splits.parts()[split]
        return dict(zip(prompts, self._scores_of(together, examples), strict=True))

    def _scores_of(self, measured: Measured, examples: Sequence[Example]) -> list[Score]:
        self.lowest = min(self.lowest, float(measured.rewards.min()))
        self.highest = max(self.highest, float(measured.rewards.max()))
        return scores_of(self.evaluator.task, measured, examples)


@dataclass
class Transferring:
    """Takes prompts to one target after another; `file` is what came of it so far.

    Args:
        store: The study's, where scores are kept (`TransferScores`).
        study: Its name.
        found: The prompts.
        split: Where they are scored.
        top: Which prompts they are, for the record.
        read_only: Keep no score.
        notes: What was left out.
        earlier: Looks at test splits of earlier commands.
    """

    store: Store
    study: str
    found: Sequence[FoundPrompt]
    split: str = "test"
    top: Top = "all"
    read_only: bool = False
    notes: list[str] = field(default_factory=list)
    earlier: Sequence[Opening] = ()
    complete: bool = False
    _models: dict[str, ModelEntry] = field(default_factory=dict)
    _targets: list[Target] = field(default_factory=list)
    _entries: list[TransferEntry] = field(default_factory=list)
    _openings: list[Opening] = field(default_factory=list)

    @property
    def file(self) -> Transfer:
        """All of it as it is written."""
        return Transfer(
            study=self.study,
            complete=self.complete,
            split=self.split,
            top=self.top,
            sources=tuple(one.source for one in self.found),
            models=tuple(self._models.values()),
            targets=tuple(self._targets),
            entries=tuple(self._entries),
            openings=(*self.earlier, *self._openings),
            notes=tuple(self.notes),
            versions={package: version(package) for package in PACKAGES},
        )

    def go(
        self, lm: FrozenLM, tasks: Sequence[TargetTask], *, of_study: bool = False
    ) -> Iterator[Target]:
        """Score on a model, on one task after another; each as it is done.

        A model that was there already is left out, with a note.
        """
        mark = lm.fingerprint
        same = [model.name for model in self._models.values() if model.digest == mark.digest]
        if same:
            self.notes.append(f"{lm.name} is the same model as {same[0]}, so it is scored once.")
            return
        titles = (lm.name, f"{lm.name} ({mark.dtype})", f"{lm.name} ({mark.dtype}, {mark.digest})")
        title = next(title for title in titles if title not in self._models)
        self._models[title] = ModelEntry(
            name=title,
            kind=lm.kind,
            digest=mark.digest,
            dtype=mark.dtype,
            device=lm.where,
            of_study=of_study,
        )
        for to in tasks:
            yield self._score(lm, title, to)

    def fail(self, model: str, tasks: Sequence[TargetTask], error: Exception) -> Iterator[Target]:
        """Note a model that cannot be had."""
        for to in tasks:
            yield self._noted(
                Target(model=model, task=to.title, split=self.split, problem=one_line(error))
            )

    def _noted(self, target: Target, entries: Sequence[TransferEntry] = ()) -> Target:
        self._targets.append(target)
        self._entries += entries
        return target

    def _score(self, lm: FrozenLM, model: str, to: TargetTask) -> Target:
        target = Target(model=model, task=to.title, split=self.split, asked=to.asked)
        try:
            task = to.make(lm)
        except MISTAKES as error:
            return self._noted(target.model_copy(update={"problem": one_line(error)}))
        scores = TransferScores(task, lm, self.store, self.read_only)
        at = now()
        try:
            return self._noted(*self._score_all(scores, target, to))
        finally:  # a look that Ctrl-C ended was one
            if scores.evaluator.test_prompts:
                opening = Opening(
                    at=at, model=model, task=to.title, prompts=scores.evaluator.test_prompts
                )
                self._openings.append(opening)

    def _score_all(
        self, scores: TransferScores, target: Target, to: TargetTask
    ) -> tuple[Target, list[TransferEntry]]:
        """Controls on a target, and if those can be scored, every prompt in every form."""
        lm, task = scores.lm, scores.task
        n_examples = len(task.splits.parts()[self.split])
        told = {"metric": task.metric, "metric_range": task.metric_range}
        target = target.model_copy(update={"examples": n_examples, **told})
        try:
            controls = _controls(lm, task)
        except ValueError as error:
            return target.model_copy(update={"problem": one_line(error)}), []
        found = scores.scores(controls.values(), self.split)
        own_scores = {}
        for name, prompt in controls.items():
            said = found[prompt]
            if isinstance(said, str):
                return target.model_copy(update={"problem": said}), []
            own_scores[name] = said
        asked = [
            (entry, prompt)
            for one in self.found
            if to.asked or one.source.task == to.title
            for entry, prompt in self._asked(one, lm, task, target)
        ]
        entries = []
        for split in dict.fromkeys(entry.split for entry, _ in asked):
            own = [(entry, prompt) for entry, prompt in asked if entry.split == split]
            arriving = (p for _, p in own if not isinstance(p, str))
            found = scores.scores(arriving, split)
            entries += [one.model_copy(update=_outcome(found, prompt)) for one, prompt in own]
        spread = scores.highest - scores.lowest
        name, n_classes = reward_name(task), len(task.class_words)
        # Of few examples one that turns is more of a mean, and dev may have fewer.
        parts = task.splits.parts()
        fewest = min([n_examples, *(len(parts[one.split]) for one in entries)])
        tolerance = rounding(name, lm.fingerprint.dtype, spread, fewest, n_classes)
        return target.model_copy(update={"controls": own_scores, "tolerance": tolerance}), entries

    def _asked(
        self, found: FoundPrompt, lm: FrozenLM, task: Task, target: Target
    ) -> Iterator[tuple[TransferEntry, Prompt | str]]:
        """What to score of a prompt: every form, and a soft one at home on dev as well."""
        own = found.task
        at_home = lm.fingerprint.digest == found.lm.fingerprint.digest and (
            task.fingerprint == own.fingerprint and task.splits.digest == own.splits.digest
        )
        both = at_home and found.source.soft
        for form, prompt, retyping in arrivals(found, task, lm):
            for split in dict.fromkeys((self.split, "dev") if both else (self.split,)):
                entry = TransferEntry(
                    run=found.source.run,
                    model=target.model,
                    task=target.task,
                    split=split,
                    form=form,
                    retyping=retyping,
                    # What a server said for the study is not asked again, and has not drifted.
                    stored=_stored(found, form, split) if at_home and not lm.served else None,
                    notes=notes_on(own, task, split),
                )
                yield entry, prompt


def _outcome(found: Mapping[Prompt, Score | str], prompt: Prompt | str) -> dict[str, Any]:
    """The score of a prompt, or why there is none."""
    if isinstance(prompt, str):
        return {"problem": prompt}
    said = found[prompt]
    return {"problem": said} if isinstance(said, str) else {"score": said}


def _stored(found: FoundPrompt, form: Form, split: str) -> Score | None:
    """What the study says of a prompt in a form."""
    score: Score | None = None
    analysis = found.result.analysis
    if form == "as found":
        score = getattr(found.result.best, split)
    elif form == "nearest tokens" and analysis and analysis.projection and split != "train":
        score = getattr(analysis.projection, split)
    return score


def _controls(lm: FrozenLM, task: Task) -> dict[str, TokenPrompt]:
    """The prompts that a found one has to beat on a task."""
    controls = {"empty": TokenPrompt()}
    if task.hand_prompt:
        # As on the study's page: where the task calibrates by its train texts, the plain name is
        # that of the prompt without.
        name = HAND if task.uncalibrated() is None else CALIBRATED
        controls[name] = task.written(lm, task.hand_prompt)
    return controls


def _row(together: Measured, i: int) -> Measured:
    """What the i-th prompt came to, as if it had been asked for alone."""
    rewards, metrics, answers = together
    own = slice(i, i + 1)
    return Measured(rewards[own], metrics[own], None if answers is None else answers[own])
