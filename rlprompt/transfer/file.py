"""`transfer.json`: what found prompts are worth on other models and tasks.

`Transferring` fills it, `matrix` arranges it for readers. Neither reading nor arranging imports
torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import ConfigDict, Field

from rlprompt._utils.text import other_format
from rlprompt.search.result import Score

FORMAT = 1
FILE = "transfer.json"

Form = Literal["as found", "by text", "nearest tokens"]


class TransferError(ValueError):
    """A file of transfers cannot be read. The message says why and what to do."""


class _Entry(pydantic.BaseModel):
    # A newer version of one format may add what an older one can do without.
    model_config = ConfigDict(extra="ignore", frozen=True)


class Source(_Entry):
    """A prompt that the study picked.

    Attributes:
        run: Name of its run, which the entries give.
        task: Name of the task that it was found on.
        model: Name of the model that it was found on.
        budget_rows: Rows of its search.
        optimiser: The method's name in the experiment.
        seed: Its seed.
        soft: Whether it is embedding vectors.
        tokens: How many tokens, vectors, or positions; 0 of a text on a server, which tells none.
        text: How it reads; a soft prompt as its nearest tokens, which are what can leave its model;
            a prefix prompt as its size.
        retypable: Whether typing the text gives these tokens again.
    """

    run: str
    task: str
    model: str
    budget_rows: int
    optimiser: str
    seed: int
    soft: bool
    tokens: int
    text: str
    retypable: bool


class ModelEntry(_Entry):
    """A model that prompts were scored on.

    Attributes:
        name: What it is called here, which tells it from the others.
        kind: `causal`, `masked` or `encoder-decoder`.
        digest: Hash of weights, config, tokenizer and dtype (`Fingerprint`).
        dtype: What it computes in.
        device: Where it ran.
        of_study: Whether the study searched on it.
    """

    name: str
    kind: str
    digest: str
    dtype: str
    device: str
    of_study: bool


class Target(_Entry):
    """A model and a task that prompts went to.

    Attributes:
        model: Name of the model.
        task: Name of the task.
        split: What all its scores are means over.
        asked: Whether the command named this task; prompts of other tasks go there then as well.
        examples: Their number.
        metric: What the metric is called.
        metric_range: `Task.metric_range`.
        controls: The empty and the hand-written prompt, the latter where the task has one, by the
            names that a study's controls have.
        tolerance: What rounding may make of a mean reward from one day to another; None where
            nothing could be scored.
        problem: Why nothing could be scored, in a line, or "".
    """

    model: str
    task: str
    split: str
    asked: bool = True
    examples: int = 0
    metric: str = ""
    metric_range: tuple[float, float] | None = None
    controls: dict[str, Score] = Field(default_factory=dict)
    tolerance: float | None = None
    problem: str = ""


class Retyping(_Entry):
    """What came of typing a prompt's text for a model.

    Attributes:
        tokens: How many tokens it is there.
        survives: Whether these tokens read as the text that was typed.
    """

    tokens: int
    survives: bool


class TransferEntry(_Entry):
    """A found prompt on a target.

    Attributes:
        run: Its source.
        model: The target's model.
        task: The target's task.
        split: The target's split; `dev` besides for what a soft prompt loses as tokens.
        form: `as found`, `by text`, or, of a soft prompt, `nearest tokens`.
        retyping: What typing did to it; None where its own tokens or vectors went.
        score: What it is worth there; None where it could not be scored.
        stored: What the study says of it, where that is the same prompt, model, task and split.
        notes: What a reader should know of the comparison.
        problem: Why it could not be scored, in a line, or "".
    """

    run: str
    model: str
    task: str
    split: str
    form: Form
    retyping: Retyping | None = None
    score: Score | None = None
    stored: Score | None = None
    notes: tuple[str, ...] = ()
    problem: str = ""


class Opening(_Entry):
    """A look at a test split: prompts that were scored on it, by one command.

    Attributes:
        at: When, ISO 8601.
        model: On which model.
        task: Whose test split.
        prompts: Prompts that were scored there for the first time, controls included.
    """

    at: str
    model: str
    task: str
    prompts: int


class Transfer(_Entry):
    """Where the prompts of a study were taken, and what they are worth there.

    Attributes:
        format: Version of the file.
        study: Name of the study.
        complete: Whether all targets were reached; an interrupted command leaves some out.
        split: What targets are scored on.
        top: `all` picked prompts, or the `best` seed on dev of each method.
        sources: The prompts.
        models: The study's own first.
        targets: In order.
        entries: Scores, one for each source, target and form.
        openings: Every look at a test split, those of earlier commands in this folder included.
            Test was opened once for each run of the study besides.
        notes: What was left out, a sentence each.
        versions: With what it was computed.

    >>> made = Transfer(
    ...     study="mine",
    ...     complete=True,
    ...     split="dev",
    ...     top="all",
    ...     sources=(),
    ...     models=(),
    ...     targets=(),
    ...     entries=(),
    ... )
    >>> Transfer.model_validate_json(made.to_json()) == made
    True
    """

    format: Annotated[int, Field(ge=FORMAT, le=FORMAT)] = FORMAT
    study: str
    complete: bool
    split: str
    top: Literal["all", "best"]
    sources: tuple[Source, ...]
    models: tuple[ModelEntry, ...]
    targets: tuple[Target, ...]
    entries: tuple[TransferEntry, ...]
    openings: tuple[Opening, ...] = ()
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)

    def to_json(self) -> str:
        """The file's text."""
        return self.model_dump_json(indent=1)


def read_transfer(path: Path) -> Transfer:
    """What `Transfer.to_json` wrote.

    Raises:
        TransferError: There is no such file, or it is of another format, or damaged.

    >>> import tempfile
    >>> made = Transfer(
    ...     study="mine",
    ...     complete=True,
    ...     split="dev",
    ...     top="all",
    ...     sources=(),
    ...     models=(),
    ...     targets=(),
    ...     entries=(),
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "transfer.json")
    ...     _ = path.write_text(made.to_json(), encoding="utf-8")
    ...     read_transfer(path).study
    'mine'
    """
    try:
        return Transfer.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise TransferError(f"{path} cannot be read: {error}") from None
    except pydantic.ValidationError as error:
        first = error.errors()[0]  # in the order of the fields, so that the format comes first
        where, found = ".".join(map(str, first["loc"])) or "the file", first["input"]
        advice = "move it away and run `rlprompt transfer` again, which scores nothing twice"
        if where == "format" and isinstance(found, int):
            raise TransferError(other_format(path, found, FORMAT, advice)) from None
        raise TransferError(f"{path} is damaged ({where}: {first['msg']}); {advice}") from None
