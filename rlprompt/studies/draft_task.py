"""The section of a task for some data and a model, with the reason of each line.

What cannot be seen is tried: rows that no task takes are found by loading them, and whether the
model does better with a chat by scoring the hand-written prompt on train, where both fit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from rlprompt._utils.text import counted, listed, listed_briefly
from rlprompt.config.tasks import parse_task
from rlprompt.data.roles import Roles
from rlprompt.data.survey import Survey
from rlprompt.data.values import is_code
from rlprompt.models.lm import FrozenLM
from rlprompt.models.memory import RowTooLargeError
from rlprompt.studies.loading import load_task
from rlprompt.tasks.base import Task
from rlprompt.tasks.benchmarks import Benchmark, alike
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.tasks.fitting import fitted
from rlprompt.tasks.generation import GenerationTask
from rlprompt.tasks.label_search import with_found_words
from rlprompt.tasks.likelihood import LOG_LIKELIHOOD
from rlprompt.tasks.word_choice import ChosenWord, choose_words, denied
from rlprompt.template import MASK, PROMPT, Template, TemplateText

# Tokens of a searched prompt, at the most.
LENGTH = 5
# Examples a class for train and as many for dev; in all, where answers are written.
SHOTS, WRITTEN_SHOTS = 16, 32
# A class has so many rows or it is rare, and does not decide how many examples the others give.
COMMON = 6
# Examples to test on at the most: enough to tell an accuracy to 0.05.
TEST = 400
# How many times as many rows the largest class has as the smallest where accuracy says little.
UNEVEN = 3
# Words of an answer, on average, beyond which hardly any is written exactly, and tokens at most.
LONG_ANSWER, MOST_TOKENS = 4, 64
# Label words that an instruction lists.
LISTED = 12
# Names of a label that are no noun of what is asked.
BARE = frozenset({"label", "labels", "class", "target", "output", "y", "gold_label", "label_text"})
# What may have to be done about data, the least first; the last two where they have parts.
REMEDIES: tuple[dict[str, str], ...] = (
    {},
    {"on_bad_rows": "skip"},
    {"dev_from": "train"},
    {"on_bad_rows": "skip", "dev_from": "train"},
)
TOO_LONG = {"on_long_text": "truncate-end"}

KeyPath = tuple[str, ...]
"""Where a value stands in a file: its keys."""


@dataclass(frozen=True)
class Shape:
    """A way to put a task to a model.

    Attributes:
        kind: `plain text`, or `a chat`.
        template: As a file has it.
        hand_prompt: A prompt written by hand.
        words: Class to its word; none where answers are written, or words are to be found.
    """

    kind: str
    template: TemplateText
    hand_prompt: str
    words: Mapping[str, ChosenWord] = field(default_factory=dict)


@dataclass(frozen=True)
class DraftTask:
    """A task's section.

    Attributes:
        section: What a file says of it; its `data` are where they were given.
        task: What that makes.
        why: Place of a value in the section to a remark.
        said: What was found and guessed: what it is about, and a sentence.
    """

    section: dict[str, Any]
    task: Task
    why: Mapping[KeyPath, str]
    said: tuple[tuple[str, str], ...]


def draft_task(found: Survey, roles: Roles, lm: FrozenLM, data: str) -> DraftTask:
    """The section for some data and a model.

    Args:
        found: What the columns hold.
        roles: What they are for.
        lm: The model.
        data: The data, as `load_splits` takes them.

    Raises:
        ValueError: No task can be made of the data whatever is done about them, or answers are to
            be written by a masked model.
    """
    if not roles.classes and lm.kind == "masked":
        raise ValueError(
            f"the column {roles.label.name!r} holds written answers ({roles.why_label}), and "
            f"{lm.name} is a masked model, which fills gaps and cannot write; give another model "
            "with --model, or a column of classes with --label"
        )
    drafts = [_Drafting(found, roles, lm, data, shape).made() for shape in _shapes(roles, lm)]
    if len(drafts) == 1:
        return drafts[0]
    merits = [_merit(draft.task, lm) for draft in drafts]
    best = max(range(len(drafts)), key=lambda i: merits[i])
    told = _told_shapes(merits, best, "accuracy" if roles.classes else "log-likelihood a token")
    return replace(drafts[best], said=(*drafts[best].said, ("template", told)))


def _shapes(roles: Roles, lm: FrozenLM) -> Iterator[Shape]:
    """Plain text, and a chat for a model that was trained on some."""
    fields = [f"{{{name}}}" for name in fields_of(roles)]
    known = alike([*roles.classes]) if len(roles.classes) > 1 else None
    plain = _plain_template(fields, roles, lm)
    yield _with_words(Shape("plain text", plain, _hand_prompt(roles, known, lm)), roles, lm)
    if not getattr(lm.tokenizer, "chat_template", None) or _are_codes(roles):
        return
    for chat in (
        {"system": f"{{{PROMPT}}}", "user": "\n".join(fields)},
        {"user": "\n".join([*fields, f"{{{PROMPT}}}"])},
    ):
        try:
            shape = _with_words(Shape("a chat", chat, ""), roles, lm)
        except ValueError:  # some chats have no system message
            continue
        yield replace(shape, hand_prompt=_instruction(roles, shape.words))
        return


def fields_of(roles: Roles) -> dict[str, str]:
    r"""Fields of a template and the column of each: its own name where that can be a field.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from rlprompt.data.roles import guess_roles
    >>> from rlprompt.data.survey import survey
    >>> path = Path(tempfile.mkdtemp(), "mails.csv")
    >>> rows = [f"so it is said {i},{['yes', 'no'][i % 2]}" for i in range(8)]
    >>> _ = path.write_text("\n".join(["Mail body,spam", *rows]))
    >>> fields_of(guess_roles(survey(str(path))))
    {'text': 'Mail body'}
    """
    names = [column.name for column in roles.text]
    if all(name.isidentifier() and name not in (PROMPT, MASK) for name in names):
        return {name: name for name in names}
    if len(names) == 1:
        return {"text": names[0]}
    plain = [re.sub(r"\W+", "_", name).strip("_").lower() or "text" for name in names]
    return {f"{one}_{i}": name for i, (one, name) in enumerate(zip(plain, names, strict=True), 1)}


def _plain_template(fields: list[str], roles: Roles, lm: FrozenLM) -> str:
    """The texts, the prompt, and the answer at the end or at the mask."""
    between = "\n" if len(fields) > 1 or not roles.classes else " "
    text = "\n".join(fields) + between + f"{{{PROMPT}}}"
    if lm.mask_id is None or not roles.classes:
        return text
    return f"{text} {{{MASK}}} ." if lm.kind == "masked" else f"{text} {{{MASK}}}"


def _with_words(shape: Shape, roles: Roles, lm: FrozenLM) -> Shape:
    """The shape with a word for each class.

    Raises:
        ValueError: The model's tokenizer has no such chat.
    """
    template = Template.of(shape.template)
    if not roles.classes or _are_codes(roles):
        template.on(lm)
        return shape
    return replace(shape, words=choose_words(lm, template, [*roles.classes]))


def _are_codes(roles: Roles) -> bool:
    """Whether classes are numbers, which say nothing of their meaning."""
    return bool(roles.classes) and all(map(is_code, roles.classes))


def _hand_prompt(roles: Roles, known: tuple[Benchmark, Any] | None, lm: FrozenLM) -> str:
    """What a person might write between a text and its answer."""
    noun = _noun(roles)
    if not roles.classes:
        return f"{noun.capitalize() or 'Answer'}:"
    if known is not None and len(known[0].columns) == len(roles.text):
        return known[0].hand_masked if lm.kind == "masked" else known[0].hand_causal
    if what := denied([*roles.classes]):
        return f"Is this {what}? Answer:"
    return f"The {noun} is" if noun else "This is about"


def _instruction(roles: Roles, words: Mapping[str, ChosenWord]) -> str:
    """What a person might tell a model that chats."""
    noun = _noun(roles)
    if not roles.classes:
        return f"Answer with the {noun} alone." if noun else "Answer briefly."
    if len(words) <= LISTED:
        return f"Answer with one word: {', '.join(one.word for one in words.values())}."
    return f"Answer with the {noun or 'class'} in one word."


def _noun(roles: Roles) -> str:
    """What the label's name says is asked, or ""."""
    name = roles.name.replace("_", " ").replace("-", " ").strip().lower()
    says = name.replace(" ", "_") not in BARE and re.fullmatch(r"[^\W\d]+( [^\W\d]+)?", name)
    return name if says else ""


@dataclass
class _Drafting:
    """The draft in one shape."""

    found: Survey
    roles: Roles
    lm: FrozenLM
    data: str
    shape: Shape
    why: dict[KeyPath, str] = field(default_factory=dict)
    said: list[tuple[str, str]] = field(default_factory=list)

    def made(self) -> DraftTask:
        """The draft."""
        section = self._section()
        remedy, task = self._settled(section)
        section |= remedy
        if section.get("test") and len(task.splits.test) < TEST:
            del section["test"]
        self._say_columns()
        notes = (note for note in task.splits.notes if note not in self.found.remarks)
        self.said += (("data", note) for note in notes)
        if isinstance(task, GenerationTask):
            task = self._with_lengths(section, task)
        elif isinstance(task, ClassificationTask):
            task = self._with_label_words(section, task)
        return DraftTask(section, task, self.why, tuple(self.said))

    def _section(self) -> dict[str, Any]:
        roles, fields = self.roles, fields_of(self.roles)
        section: dict[str, Any] = {"data": self.data}
        if not roles.classes:
            section = {"name": "generation", **section}
        if [*fields] != [*fields.values()]:
            section["text"] = fields if len(fields) > 1 else next(iter(fields.values()))
        section |= {"label": roles.name, "template": self.shape.template}
        self.why[("label",)] = roles.why_label
        names = listed(column.name for column in roles.text)
        self.why[("template",)] = f"{self.shape.kind}; reads {names}: {roles.why_text}"
        if not roles.classes:
            section["reward"] = LOG_LIKELIHOOD
            self.why[("reward",)] = "of the right answer; the model writes nothing"
        elif _are_codes(roles):
            section |= {"label_words": "auto", "labels": [*roles.classes]}
        else:
            section["label_words"] = {label: one.word for label, one in self.shape.words.items()}
        if roles.aliases:
            same = {} if section.get("label_words") != "auto" else {c: c for c in roles.classes}
            section["labels"] = same | dict(roles.aliases)
            self.why[("labels",)] = "spellings that differ only in case"
        return section | self._sizes() | {"hand_prompt": self.shape.hand_prompt}

    def _sizes(self) -> dict[str, Any]:
        """How many examples are drawn, and what is told of them."""
        roles, n_rows = self.roles, self.roles.label.n_rows
        section: dict[str, Any] = {}
        if self.found.apart:
            section["test"] = TEST
        elif not roles.classes:
            section["shots"] = max(1, min(WRITTEN_SHOTS, n_rows // 3))
            self.why[("shots",)] = "examples for train, and as many for dev"
        else:
            counts = sorted(roles.classes.values())
            common = [n for n in counts if n >= COMMON] or counts
            section["shots"] = max(1, min(SHOTS, common[(len(common) - 1) // 2] // 3))
            self.why[("shots",)] = "examples per class for train, and as many for dev"
        drawn = 2 * section.get("shots", 0) * max(1, len(roles.classes))
        if not self.found.apart and n_rows - drawn > TEST:
            section["test"] = TEST
        if "test" in section:
            self.why[("test",)] = "of the remaining examples; leave it out to test on all of them"
        if roles.classes and max(roles.classes.values()) >= UNEVEN * min(roles.classes.values()):
            section["metric"] = "macro_f1"
            self.why[("metric",)] = "classes differ in size, and this metric weights them equally"
        return section

    def _settled(self, section: Mapping[str, Any]) -> tuple[dict[str, str], Task]:
        """What has to be done about the data, and the task that they then make.

        Raises:
            ValueError: Nothing helps; what is wrong where nothing is done.
        """
        first: ValueError | None = None
        for remedy in REMEDIES if self.found.apart else REMEDIES[:2]:
            try:
                loaded = load_task(parse_task({**section, **remedy}))
                done, task = self._fitted(loaded)
            except ValueError as error:
                first = first or error
                continue
            reason = str(first or "").partition("; ")[0]
            for key in remedy:
                self.why[(key,)] = f"without it: {reason}"
                self.said.append(("data", f"{key}: {remedy[key]}, since {reason}"))
            return remedy | done, task
        assert first is not None
        raise first

    def _fitted(self, task: Any) -> tuple[dict[str, str], Task]:
        """The task with texts that the model has room for, cut where there is no other way."""
        try:
            return {}, fitted(task, self.lm, LENGTH)
        except ValueError as error:
            splits = replace(task.splits, **TOO_LONG)
            made = fitted(replace(task, splits=splits), self.lm, LENGTH)
            self.why[("on_long_text",)] = f"without it: {str(error).partition(';')[0]}"
            return TOO_LONG, made

    def _with_lengths(self, section: dict[str, Any], task: GenerationTask) -> Task:
        """What answers are, by those of train: how long, of how many lines."""
        answers = [answer for example in task.splits.train for answer in example.references]
        longest = max(len(self.lm.encode(answer, plain=True)) for answer in answers)
        changes: dict[str, Any] = {"max_new_tokens": min(MOST_TOKENS, 4 + 5 * longest // 4)}
        self.why[("max_new_tokens",)] = f"train answers have {counted(longest, 'token')} at most"
        if any("\n" in answer for answer in answers):
            changes["stop"] = []
            self.why[("stop",)] = "answers have line breaks"
        if np.mean([len(answer.split()) for answer in answers]) > LONG_ANSWER:
            changes["metric"] = "token_f1"
            self.why[("metric",)] = "long answers are hardly ever matched exactly"
        section |= changes
        return replace(task, **changes)

    def _with_label_words(self, section: dict[str, Any], task: ClassificationTask) -> Task:
        """Words of the classes, each with its reason, found on train where names say nothing."""
        place, name = ("label_words",), self.lm.name
        if section["label_words"] == "auto":
            try:
                task = with_found_words(task, self.lm)
            except RowTooLargeError:
                raise
            except ValueError as error:
                del section["labels"]
                section["label_words"] = {label: label for label in self.roles.classes}
                self.why[place] = f"none could be found on train: {error}"
                self.said.append(("words", f"the classes themselves, since {error}"))
            else:
                words = "; ".join(f"{c}: {w[0]}" for c, w in task.class_words.items())
                self.why[place] = f"the classes are numbers; found on train: {words}"
                self.said.append(("words", f"found on train, as the classes are numbers: {words}"))
                return task
        else:
            for label, one in self.shape.words.items():
                n_rows = counted(self.roles.classes[label], "row")
                self.why[(*place, label)] = f"{_why_word(one)}; {n_rows}"
            self.said.append(("words", _told_words(self.shape.words, name)))
        report = task.label_word_report(self.lm)
        if len({len(one.ids) for one in report.words}) > 1:
            section["length"] = "mean"
            self.why[("length",)] = "words differ in number of tokens; scores are means per token"
            task = replace(task, length="mean")
            report = task.label_word_report(self.lm)
        # That a word is long was said of its class.
        told = [one for one in report.warnings if "look for a more common word" not in one]
        self.said += (("words", one) for one in told)
        return task

    def _say_columns(self) -> None:
        """What was taken for what."""
        roles, found = self.roles, self.found
        names = listed(repr(one.name) for one in roles.text)
        told = [("text", f"{names} ({roles.why_text})"), ("label", self._told_label())]
        if roles.rare:
            few = ", ".join(f"{name} {n}" for name, n in roles.rare.items())
            rare = f"left out, with too few rows: {few}"
            told.append(("label", rare))
            self.why[("label_words",)] = rare
        if found.faults:
            told.append(("data", found.faults))
        self.said[:0] = told

    def _told_label(self) -> str:
        roles = self.roles
        told = f"{roles.label.name!r} ({roles.why_label})"
        if not roles.classes:
            return told
        counts = listed_briefly((f"{name} {n}" for name, n in roles.classes.items()), LISTED)
        return f"{told}: {counts}"


def _merit(task: Task, lm: FrozenLM) -> tuple[int, float, float]:
    """How well the hand-written prompt does on train; words of one token come first."""
    prompts, examples = [task.written(lm, task.hand_prompt)], task.splits.train
    if isinstance(task, ClassificationTask):
        several = sum(len(one.ids) > 1 for one in task.label_word_report(lm).words)
        measured = task.measure(lm, prompts, examples)
        return -several, float(measured.metrics.mean()), float(measured.rewards.mean())
    reward = float(task.rewards(lm, prompts, examples).mean())
    return 0, reward, reward


def _told_shapes(merits: list[tuple[int, float, float]], best: int, figure: str) -> str:
    """Why a template is plain text or a chat."""
    names = ("plain text", "a chat")
    mine, other = merits[best], merits[1 - best]
    if mine[0] != other[0]:
        return f"{names[best]}, in which more label words are one token than in {names[1 - best]}"
    return (
        f"{names[best]}: with the hand-written prompt, {figure} on train is {mine[1]:.2f}, against "
        f"{other[1]:.2f} with {names[1 - best]}"
    )


def _why_word(one: ChosenWord) -> str:
    match one.why:
        case "usual":
            return "usual in papers for such classes"
        case "opposite":
            return "one class is the negation of the other"
        case "name":
            return "its name, one token"
        case "part":
            return "a word of its name, one token"
    return "its name, of several tokens"


def _told_words(words: Mapping[str, ChosenWord], model: str) -> str:
    pairs = ((label, one.word) for label, one in words.items())
    shown = listed_briefly(word if word == label else f"{label}: {word}" for label, word in pairs)
    several = [label for label, one in words.items() if one.why == "tokens"]
    if not several:
        return f"{shown}; each is one token of {model}"
    return f"{shown}; for {listed_briefly(several, 5)} no word of the name is one token of {model}"
