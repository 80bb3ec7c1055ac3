"""`summary.json`: all that came of a study but the curves, in one file that any tool can read.

`Comparison.summary` fills it, the report reads it. Train, dev and test are the task's metric.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import ConfigDict, Field

from rlprompt._utils.text import other_format
from rlprompt.search.result import Score

FORMAT = 3
FILE = "summary.json"
# Names of controls that the library makes (`plan_controls`).
EMPTY, HAND, CALIBRATED = "empty", "hand-written", "hand-written, calibrated"
BEST_WORD, IN_CONTEXT = "best word", "in context"


# Metrics from 0 to 1, by the names that they have before a colon.
SHARES = frozenset(
    (
        *("accuracy", "balanced_accuracy", "macro_f1", "acc", "acc_norm", "acc_bytes", "joint"),
        *("exact_match", "token_f1", "contains", "strict_match", "number", "regex", "json"),
        *("bleu", "chrf", "rouge1", "rouge2", "rougeL", "judge"),
    )
)
UNIT = (0.0, 1.0)


def range_of(metric: str, reward: str = "") -> tuple[float, float] | None:
    """What a metric lies between by its name, or, where it is the reward, by the name of that.

    >>> range_of("mcc"), range_of("reward", "regex:[0-9]+"), range_of("reward", "gap")
    ((-1.0, 1.0), (0.0, 1.0), None)
    """
    name = reward if metric == "reward" else metric
    return (-1.0, 1.0) if name == "mcc" else UNIT if name.partition(":")[0] in SHARES else None


def hand_name(number: int, calibrated: bool = False) -> str:
    """What the hand-written prompt of a number from 1 is called.

    >>> hand_name(1), hand_name(1, calibrated=True), hand_name(2, calibrated=True)
    ('hand-written', 'hand-written, calibrated', 'hand-written 2, calibrated')
    """
    name = HAND if number == 1 else f"{HAND} {number}"
    return f"{name}, calibrated" if calibrated else name


def control_title(name: str) -> str:
    """What a table calls a control.

    >>> control_title(EMPTY), control_title(CALIBRATED), control_title(hand_name(2))
    ('empty prompt', 'hand-written prompt, calibrated', 'hand-written prompt 2')
    """
    if name in (BEST_WORD, IN_CONTEXT):
        return name
    return name.replace(HAND, f"{HAND} prompt", 1) if HAND in name else f"{name} prompt"


class SummaryError(ValueError):
    """A folder's summary cannot be read. The message says why and what to do."""


def _unused(value: object) -> bool:
    return value in (None, (), {}, "")


# Where the only draw has no seed, a file says nothing of splits.
_SplitSeed = Annotated[int | None, Field(exclude_if=_unused)]


class _Entry(pydantic.BaseModel):
    # A newer version of one format may add what an older one can do without.
    model_config = ConfigDict(extra="ignore", frozen=True)


class ExampleEntry(_Entry):
    """A test example to show beside what the model answered.

    Attributes:
        place: Its place in test.
        fields: Its texts.
        label: Its class or reference.
    """

    place: int
    fields: dict[str, str]
    label: str


class TaskEntry(_Entry):
    """A task.

    Attributes:
        name: What it is called.
        fingerprint: See `Task.fingerprint`.
        metric: What train, dev and test are the means of, or a figure of each of them.
        metric_range: `Task.metric_range`; see `scale`.
        select_by: By what prompts were picked on dev, `reward` or `metric`.
        reward: What the searches maximise, if it has a name.
        template: Where the prompt goes, if the task has one.
        classes: Its classes, for confusion tables; empty where there are none.
        label_words: The words that stand for each class.
        test_labels: The class of each test example, where there are classes.
        examples: Their number by split.
        shown: A few test examples.
        data_notes: What was done to the data, leaks that were allowed included.
        leaks: Examples of a split that an earlier split has as well, by split.
        split_seed: Which draw of the examples this is of; None for the only one.
        draw: `Splits.drawn_digest`, of which with its seed all that a search draws is; "" where an
            older version did not say. Searches on tasks with the same draw share their luck.
        by_model: The same task of each model that has another than this, such as label words that
            were found for it, or longer texts cut to fit it; empty where all models have this one.
        other_splits: The same task on its other draws; empty where there is one.
    """

    name: str
    fingerprint: str
    metric: str
    metric_range: Annotated[tuple[float, float] | None, Field(exclude_if=_unused)] = None
    select_by: str = "reward"
    reward: str = ""
    template: str = ""
    classes: tuple[str, ...] = ()
    label_words: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    test_labels: tuple[str, ...] = ()
    examples: dict[str, int]
    shown: tuple[ExampleEntry, ...] = ()
    data_notes: tuple[str, ...] = ()
    leaks: dict[str, int] = Field(default_factory=dict)
    split_seed: _SplitSeed = None
    draw: Annotated[str, Field(exclude_if=_unused)] = ""
    by_model: Annotated[dict[str, TaskEntry], Field(exclude_if=_unused)] = Field(
        default_factory=dict
    )
    other_splits: Annotated[tuple[TaskEntry, ...], Field(exclude_if=_unused)] = ()

    @classmethod
    def joined(cls, splits: Iterable[Mapping[str, TaskEntry]]) -> TaskEntry:
        """One entry of those on each draw, by model; each has one model or more."""
        made = []
        for own in splits:
            first = next(iter(own.values()))
            others = {
                model: one for model, one in own.items() if one.fingerprint != first.fingerprint
            }
            made.append(first.model_copy(update={"by_model": others, "other_splits": ()}))
        first, *rest = made
        return first.model_copy(update={"other_splits": tuple(rest)})

    def of_model(self, model: str) -> TaskEntry:
        """The task that a model has, on each draw."""
        return TaskEntry.joined([{model: one.by_model.get(model, one)} for one in self.splits])

    def headed(self, field: str) -> dict[str, TaskEntry]:
        """The task on this draw, and of the models that it is another for in a field.

        Returns:
            By how to call it in a sentence: its name, or its name and a model's.
        """
        own = self.by_model.items()
        others = {model: one for model, one in own if getattr(one, field) != getattr(self, field)}
        return {self.name: self, **{f"{self.name}, {name}": one for name, one in others.items()}}

    @property
    def scale(self) -> tuple[float, float] | None:
        """What the metric lies between, as the task or its name says; None where neither does."""
        return self.metric_range or range_of(self.metric, self.reward)

    @property
    def splits(self) -> tuple[TaskEntry, ...]:
        """The task on each draw of its examples, the first being itself."""
        return self, *self.other_splits

    def on(self, split_seed: int | None) -> TaskEntry | None:
        """The task on one draw of its examples, None if there is no such."""
        return next((one for one in self.splits if one.split_seed == split_seed), None)


class BillEntry(_Entry):
    """What a server's answers came to; see `models.served.bill.Bill`.

    Attributes:
        requests: Those that were answered.
        tokens_in: Tokens that the model read for them.
        tokens_out: Tokens that it wrote.
        untold: Requests of which the server did not say how many tokens they took.
        input_price: Money for a million tokens read, None where no prices were given.
        output_price: The same for tokens written.
        cost: Money, None without prices.
    """

    requests: int
    tokens_in: int
    tokens_out: int
    untold: int
    input_price: float | None = None
    output_price: float | None = None
    cost: float | None = None


class ModelEntry(_Entry):
    """A frozen model.

    Attributes:
        name: What it is called.
        kind: As `Fingerprint.kind`: `causal`, `masked`, `encoder-decoder` or `served`.
        parameters: Their number; 0 where a server does not tell.
        fingerprint: Its digest, and the fields of `Fingerprint`.
        device: Where it ran: a device, or the address of a server.
        noise: Fields of `Noise`, nats; empty where it was not measured.
        bill: Of a model on a server, what its answers came to.
    """

    name: str
    kind: str
    parameters: int
    fingerprint: dict[str, str]
    device: str
    noise: dict[str, float]
    bill: Annotated[BillEntry | None, Field(exclude_if=_unused)] = None


class ScoredEntry(_Entry):
    """Something with scores on a task and model.

    Attributes:
        task: Name of the task.
        model: Name of the model.
        name: What it is called.
        train: Mean metric, None where it was not scored.
        dev: The same.
        test: The same.
        rewards: Mean rewards by split.
        split_seed: Which draw of the examples it is on; None for the only one.
    """

    task: str
    model: str
    name: str
    split_seed: _SplitSeed = None
    train: float | None = None
    dev: float | None = None
    test: float | None = None
    rewards: dict[str, float | None] = Field(default_factory=dict)

    def worth(self, select_by: str) -> tuple[float, float]:
        """See `Score.worth`, of dev; minus infinity where it was not scored."""
        found = (-math.inf if one is None else one for one in (self.rewards.get("dev"), self.dev))
        return Score(*found).worth(select_by)


class ControlEntry(ScoredEntry):
    """A prompt that no search found.

    Attributes:
        prompt: Its text.
        retypable: Whether typing the text gives the prompt again.
        rows: What it cost to choose and score it, outside any budget.
        length: Tokens of the prompt; None where it was not scored.
        note: How it was made.
        variant: Whether its rewards are those of a variant of the task, and not those of a search.
        test_metrics: Metric on each test example.
        test_answers: What the model answered on each.
    """

    prompt: str
    retypable: bool
    rows: int = 0
    length: int | None = None
    note: str = ""
    variant: bool = False
    test_metrics: tuple[float, ...] = ()
    test_answers: tuple[str, ...] = ()


class ReferenceEntry(ScoredEntry):
    """Training of the same model on the same train examples, for scale: no prompt.

    Attributes:
        kind: `logistic-head`, `lora`, `lora+soft` or `fine-tuning`.
        trainable: Numbers that were trained.
        rows: Rows of work, in the unit of budgets: 3 for an example seen in training.
        seconds: Wall time.
        note: Settings, and how they were chosen.
        test_metrics: Metric on each test example.
    """

    kind: str
    trainable: int
    rows: int
    seconds: float
    note: str = ""
    test_metrics: tuple[float, ...] = ()

    @property
    def title(self) -> str:
        """Its name without the seed: the same for all seeds of one, and for no other of its kind.

        >>> figures = {"kind": "lora", "trainable": 1, "rows": 1, "seconds": 1.0}
        >>> ReferenceEntry(task="t", model="m", name="lora rank=4, seed 0", **figures).title
        'lora rank=4'
        """
        return re.sub(r", seed \d+$", "", self.name)


class RunEntry(ScoredEntry):
    """A search; its curves and candidates are in its file.

    Attributes:
        budget_rows: Rows it was given.
        optimiser: The method's name in the experiment.
        seed: Its seed.
        status: `finished`, `interrupted` or `failed`.
        error: What ended it, in a line, or "".
        rows: Rows it was charged.
        n_prompts: Prompts scored on train, repeats counted.
        n_partial: Different prompts scored on a part of train and never on all of it.
        lm_seconds: Wall time of rewards and gradients.
        total_seconds: Wall time of the search.
        prompt: The picked prompt's text, None if nothing was scored.
        retypable: Whether typing it gives the prompt again.
        best_train_reward: The highest in the search.
        mean_sampled_reward: The mean of all prompts that it scored; None where some were scored on
            a part of train alone, and so those with a mean are chosen ones.
        settings: The method's.
        source: Hashes of the files that the method is made of, by name, where a person wrote them.
        file: Its result (`result.Result`), relative to the folder.
    """

    budget_rows: int
    optimiser: str
    seed: int
    status: str
    error: str = ""
    rows: int
    n_prompts: int
    n_partial: int = 0
    lm_seconds: float
    total_seconds: float
    prompt: str | None
    retypable: bool | None
    best_train_reward: float | None
    mean_sampled_reward: float | None
    settings: dict[str, Any]
    source: Annotated[dict[str, str], Field(exclude_if=_unused)] = Field(default_factory=dict)
    file: str


class PartEntry(_Entry):
    """A study that was combined with others; see `parts.combined`.

    Attributes:
        name: What it was called, such as its folder.
        runs: Searches that it had.
        started: When, ISO 8601.
        platform: Where.
        versions: With what.
    """

    name: str
    runs: int
    started: str = ""
    platform: str = ""
    versions: dict[str, str] = Field(default_factory=dict)


class Summary(_Entry):
    """What came of a study so far.

    Attributes:
        format: Version of the file.
        name: The experiment's; of a combined study its folder's.
        complete: Whether every run finished.
        expected_runs: Runs that the grid has.
        optimisers: The methods' names, in order.
        seeds: One run each.
        split_seeds: The draws of the examples that all of it ran on; empty for one without a seed.
        budgets: Rows of each run.
        tasks: In order.
        models: In order.
        controls: Prompts that no search found.
        references: Training of the same models.
        runs: The searches that were begun and have ended.
        config: What it was made from; empty for one made in Python.
        started: When, ISO 8601.
        platform: Where; of several machines all, with commas between, the first first.
        versions: With what; of a package that was changed meanwhile all versions, in that order.
        parts: The studies that it was combined of; empty for one that ran as a whole. The three
            above are then those of the part that was begun first.
    """

    format: Annotated[int, Field(ge=FORMAT, le=FORMAT)] = FORMAT
    name: str
    complete: bool
    expected_runs: int
    optimisers: tuple[str, ...]
    seeds: tuple[int, ...]
    split_seeds: Annotated[tuple[int, ...], Field(exclude_if=_unused)] = ()
    budgets: tuple[int, ...]
    tasks: tuple[TaskEntry, ...]
    models: tuple[ModelEntry, ...]
    controls: tuple[ControlEntry, ...]
    references: tuple[ReferenceEntry, ...] = ()
    runs: tuple[RunEntry, ...]
    config: dict[str, Any] = Field(default_factory=dict)
    started: str = ""
    platform: str = ""
    versions: dict[str, str] = Field(default_factory=dict)
    parts: Annotated[tuple[PartEntry, ...], Field(exclude_if=_unused)] = ()

    def to_json(self) -> str:
        """The file's text."""
        return self.model_dump_json(indent=1)


def read_summary(folder: Path) -> Summary:
    """The summary of a study's folder.

    >>> read_summary(Path("runs/nothing"))
    Traceback (most recent call last):
    rlprompt.store.summary.SummaryError: runs/nothing has no summary.json: it holds no study, ...

    Raises:
        SummaryError: There is none, it is of another format, or damaged.
    """
    path = folder / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SummaryError(
            f"{folder} has no {FILE}: it holds no study, or one that has just started and is still "
            "scoring its controls. `rlprompt ls runs` lists the studies"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SummaryError(f"{path} cannot be read: {error}") from error
    try:
        return Summary.model_validate_json(text)
    except pydantic.ValidationError as error:
        raise SummaryError(_problem(path, error)) from error


def _problem(path: Path, error: pydantic.ValidationError) -> str:
    """What is wrong with a summary, and what to do."""
    first = error.errors()[0]  # in the order of the fields, so that the format comes first
    where, found = ".".join(map(str, first["loc"])), first["input"]
    if not where:
        return f"{path} is damaged: not JSON. Run the study's command again, which rewrites it"
    if where == "format" and isinstance(found, int):
        advice = "run the study again, or read it with the version that wrote it"
        return other_format(path, found, FORMAT, advice)
    return f"{path} is damaged: {where}: {first['msg']}. Run the study's command again"
