"""Prompts that no search found, which every study is measured by.

- `empty`: no prompt.
- `hand-written`: the task's own and others that are given, and each once more calibrated, which
  often does more than a search: contextually (Zhao et al. 2021, arXiv 2102.09690), or by train
  (Zhou et al. 2024, arXiv 2309.17249) where the task itself is; then the first is without.
- `best word`: the best on train of `WORDS`. A search that does not beat it has found no prompt but
  a lucky word.
- `in context`: train examples with their answers before the text (Brown et al. 2020,
  arXiv 2005.14165, section 2), what a person without a search would do with the same examples.

Random search, the control at the same cost, is an optimiser.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from rlprompt._utils.text import counted, error_line
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import TokenPrompt
from rlprompt.search.evaluation import (
    Evaluator,
    describe,
    each_metric,
    scores_of,
    shown_answers,
)
from rlprompt.search.memo import Memo
from rlprompt.search.result import Score
from rlprompt.store.summary import BEST_WORD, EMPTY, IN_CONTEXT, control_title, hand_name
from rlprompt.tasks.base import Task, prompt_rows, rows_of
from rlprompt.tasks.fitting import longest_text
from rlprompt.tasks.prior import needs_prior

logger = logging.getLogger(__name__)

# Common words that name no class of any task, each a token in most vocabularies; a list of our own.
WORDS = (
    *("the", "a", "it", "this", "that", "was", "is", "and", "so", "but"),
    *("very", "all", "one", "more", "now", "then", "just", "what", "how", "about"),
)


@dataclass(frozen=True)
class ControlPlan:
    """A control before it is scored.

    Attributes:
        name: What it is called.
        task: What it is scored on: the study's task, or a variant of it.
        prompts: The prompt, or several of which the best on train is taken, the first of equals;
            none where the control cannot be had, and the note says why.
        texts: How each reads, and whether typing that gives it again.
        note: How it was made.
        required: Whether a study that cannot score it is not worth beginning.
        variant: Whether it is scored on a variant of the study's task, so that its rewards are not
            those of a search.
    """

    name: str
    task: Task
    prompts: tuple[TokenPrompt, ...]
    texts: tuple[tuple[str, bool], ...]
    note: str = ""
    required: bool = False
    variant: bool = False

    @property
    def asked(self) -> str:
        """What the task was asked, for messages: the prompt, and the template it stands in."""
        texts = ", ".join(repr(text) for text, _ in self.texts[:3]) or "none"
        return f" (prompt {texts}{_in_template(self.task)})"

    @property
    def rows(self) -> int:
        """Rows that it costs, outside any budget."""
        if not self.prompts:
            return 0
        sizes = [(split, len(part)) for split, part in self.task.splits.parts().items()]
        several = len(self.prompts) > 1  # which are tried on train first
        tried = len(self.prompts) * prompt_rows(self.task) if several else 0
        known = several and needs_prior(self.task, "train")
        return tried + rows_of(self.task, sizes, known=known)


@dataclass(frozen=True)
class Control:
    """A prompt that no search found, scored.

    Attributes:
        name: What it is called.
        text: How it reads.
        retypable: Whether typing the text gives the prompt again.
        scores: By split; None where it could not be scored, and the note says why.
        rows: What it cost to choose and score it, outside any budget.
        length: Tokens of the prompt, which every prediction reads; None where it was not scored,
            and on a server, which does not tell.
        note: How it was made.
        variant: As in its plan.
        test_metrics: Metric on each test example.
        test_answers: What the model answered on each, cut; empty where the task does not say.
    """

    name: str
    text: str
    retypable: bool
    scores: Mapping[str, Score | None]
    rows: int = 0
    length: int | None = None
    note: str = ""
    variant: bool = False
    test_metrics: tuple[float, ...] = field(default=(), repr=False)
    test_answers: tuple[str, ...] = field(default=(), repr=False)

    @property
    def title(self) -> str:
        """What a table calls it."""
        return control_title(self.name)


def plan_controls(
    task: Task, lm: FrozenLM, own: Mapping[str, TokenPrompt], hand_prompts: Sequence[str] = ()
) -> tuple[ControlPlan, ...]:
    """The controls of a task on a model, of those above all that make sense for it.

    Args:
        task: What the prompts are for.
        lm: The frozen model, in memory.
        own: A person's own controls by name.
        hand_prompts: Prompts written by hand beside the task's own.

    Raises:
        ValueError: A control of one's own has the name of another, a prompt is written
            twice, or one cannot be made.
    """
    by_hand = written_by_hand(task, lm, hand_prompts)
    prompts = {EMPTY: TokenPrompt(), **by_hand}
    twins = {hand_name(i, calibrated=True) for i in range(1, max(len(by_hand), 1) + 1)}
    for name, prompt in own.items():
        if prompts.setdefault(name, prompt) != prompt or name in (*twins, BEST_WORD, IN_CONTEXT):
            raise ValueError(f"every study has a control called {name!r}; give yours another name")
    plans = [_plan(name, task, lm, [prompt], required=True) for name, prompt in prompts.items()]
    for i, prompt in enumerate(by_hand.values(), 1):
        with _named(hand_name(i, calibrated=True), task):
            plans = _with_and_without(task, lm, plans, prompt, i)
    with _named(BEST_WORD, task):
        plans.append(_best_word(task, lm))
    with _named(IN_CONTEXT, task):
        return (*plans, *_in_context(task, lm))


def written_by_hand(
    task: Task, lm: FrozenLM, hand_prompts: Sequence[str] = ()
) -> dict[str, TokenPrompt]:
    """The task's hand prompt and others, by the names of their controls.

    Raises:
        ValueError: A prompt is written twice, or one cannot be made.
    """
    texts = [*([task.hand_prompt] if task.hand_prompt else []), *hand_prompts]
    found = dict[str, TokenPrompt]()
    for i, text in enumerate(texts, 1):
        if not text or texts.count(text) > 1:
            raise ValueError(
                f"the hand-written prompts are {texts}; give texts that differ, none of them empty"
            )
        with _named(hand_name(i), task):
            found[hand_name(i)] = task.written(lm, text)
    return found


def score_control(plan: ControlPlan, lm: FrozenLM, memo: Memo | None = None) -> Control:
    """A control with its scores on all splits; test is opened for the chosen prompt alone.

    Args:
        plan: The control.
        lm: The frozen model.
        memo: Where scores are looked up and put.

    Raises:
        ValueError: A required one cannot be scored. Another is left out, with a note that says why.
    """
    splits = plan.task.splits.parts()
    nothing = Control(
        plan.name, "", True, dict.fromkeys(splits), note=plan.note, variant=plan.variant
    )
    if not plan.prompts:
        return nothing
    outside = Evaluator(plan.task, lm, memo)
    try:
        best = 0
        if len(plan.prompts) > 1:
            best = int(outside.measure(plan.prompts, "train").rewards.mean(axis=1).argmax())
        measured = {split: outside.measure([plan.prompts[best]], split) for split in splits}
    # Any error: a task may come from anyone, and nobody's searches are lost to a control that was
    # not asked for. It is told with its traceback, and in the study's tables.
    except Exception as error:
        if plan.required:
            raise
        reason = error_line(error)
        logger.warning("the control %r is left out: %s", plan.name, reason, exc_info=True)
        return replace(nothing, rows=outside.rows, note=f"left out: {reason}")
    tested = measured["test"]
    task = outside.task
    return Control(
        plan.name,
        *plan.texts[best],
        scores={
            split: scores_of(task, found, splits[split])[0] for split, found in measured.items()
        },
        rows=outside.rows,
        length=None if lm.served else len(plan.prompts[best]),
        note=plan.note,
        variant=plan.variant,
        test_metrics=each_metric(task, tested, splits["test"]),
        test_answers=shown_answers(tested),
    )


@contextmanager
def _named(name: str, task: Task) -> Iterator[None]:
    """Say in an error which control it is about, and in which template.

    Raises:
        ValueError: There was one, of any kind: a task may come from anyone.
    """
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"the control {name!r} cannot be made{_in_template(task)}: {error_line(error)}"
        ) from error


def _in_template(task: Task) -> str:
    """Where a task puts a prompt, as far as it says so."""
    template = getattr(task, "template", "")
    text = getattr(template, "text", template)
    return f" in the template {text!r}" if text else ""


def _plan(
    name: str,
    task: Task,
    lm: FrozenLM,
    prompts: Sequence[TokenPrompt],
    note: str = "",
    required: bool = False,
    variant: bool = False,
) -> ControlPlan:
    texts = tuple(describe(task, lm, prompt) for prompt in prompts)
    return ControlPlan(name, task, tuple(prompts), texts, note, required, variant)


def _with_and_without(
    task: Task, lm: FrozenLM, plans: Sequence[ControlPlan], hand: TokenPrompt, number: int
) -> list[ControlPlan]:
    """The plans, with a hand prompt both calibrated and not, where a task can do both."""
    named, twin = hand_name(number), hand_name(number, calibrated=True)
    variant, plain = task.calibrated(), task.uncalibrated()
    if variant is not None:
        note = "calibrated by what the model answers to texts without content"
        return [*plans, _plan(twin, variant, lm, [hand], note, variant=True)]
    if plain is None:
        return list(plans)
    note = "not calibrated, unlike the task"
    without = _plan(named, plain, lm, [hand], note, variant=True)
    note = "calibrated by what the model answers to the train texts on average"
    calibrated = _plan(twin, task, lm, [hand], note, required=True)
    return [*(without if plan.name == named else plan for plan in plans), calibrated]


def _best_word(task: Task, lm: FrozenLM) -> ControlPlan:
    """The words that a prompt of the task may be."""
    space = "" if task.has("written") else " "
    prompts = [task.written(lm, space + word) for word in WORDS]
    allowed = task.tokens(lm)
    if allowed is not None:
        prompts = [prompt for prompt in prompts if set(allowed).issuperset(prompt.ids)]
    prompts = list(dict.fromkeys(prompts))
    if not prompts:
        return ControlPlan(BEST_WORD, task, (), (), "left out: the task allows none of the words")
    note = f"the best on train of {len(prompts)} common words"
    return _plan(BEST_WORD, task, lm, prompts, note)


def _in_context(task: Task, lm: FrozenLM) -> Iterator[ControlPlan]:
    """Demonstrations in the place of a prompt, as many as fit."""
    found = task.demonstrations()
    if found is None or not found.rounds:
        return
    variant = found.task
    longest = longest_text(variant, lm) or 0
    for n_rounds in range(len(found.rounds), 0, -1):
        shown = [text for one in found.rounds[:n_rounds] for text in one]
        # As a leading prompt they are computed once for all examples.
        prompt = TokenPrompt(lm.encode("".join(shown), plain=True))
        if lm.context is None or longest + len(prompt) <= lm.context:
            each = f", {n_rounds} a class," if task.class_words else ""
            note = (
                f"{counted(len(shown), 'train example')}{each} with answers before every text, so "
                f"its train score is too good{found.note and '; '}{found.note}"
            )
            yield _plan(IN_CONTEXT, variant, lm, [prompt], note, variant=True)
            return
    note = (
        f"left out: the fewest demonstrations take {len(prompt)} tokens and the longest example "
        f"{longest}, and {lm.name} takes {lm.context}"
    )
    yield ControlPlan(IN_CONTEXT, variant, (), (), note)
