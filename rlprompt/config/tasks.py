"""What an experiment file may say of a task, checked before anything is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import pydantic
from pydantic import BeforeValidator, ConfigDict, Field

from rlprompt.config.registry import find
from rlprompt.data.settings import DRAW, DrawSettings
from rlprompt.template import AnswerSpace, Template
from rlprompt.types import DEFAULT_CALIBRATION, Calibration, RegistryKind

# What the name of a data set on the Hugging Face hub is marked with.
HUB = "hub:"


class StrictModel(pydantic.BaseModel):
    """A part of an experiment file; what it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def named(value: object) -> object:
    """A bare name stands for a section with nothing but a name."""
    return {"name": value} if isinstance(value, str) else value


def _word(value: object) -> object:
    """A label word that YAML took for a number."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


_Word = Annotated[str, BeforeValidator(_word)]


def split_settings(value: object) -> object:
    """`{name: greedy, pool: 0.5}` with the settings apart from the name."""
    value = named(value)
    if not isinstance(value, Mapping):
        return value
    settings = {key: item for key, item in value.items() if key != "name"}
    return {"name": value["name"], "settings": settings} if "name" in value else {}


def _template(source: object) -> object:
    """A text, or the messages of a chat, as the text that stands for it."""
    if isinstance(source, str | Mapping | list | tuple):
        return Template.of(source).text
    return source


def _place_of(spec: str) -> str:
    if not re.fullmatch(r"[^:].*:\w+", spec):
        raise ValueError(f"must be MODULE:NAME or FILE.py:NAME, got {spec!r}")
    return spec


def known(kind: RegistryKind) -> pydantic.AfterValidator:
    """That a name is a task's, or an optimiser's."""
    return pydantic.AfterValidator(lambda name: find(kind, name).name)


# The order of fields is that in which a study's page shows its experiment file.
class _LabelledData(StrictModel):
    data: str = Field(min_length=1)
    template: Annotated[str, BeforeValidator(_template)]
    label_words: Literal["auto"] | dict[str, _Word | tuple[_Word, ...]]
    labels: tuple[_Word, ...] = ()
    text: str | dict[str, str] | tuple[str, ...] | None = None
    label: str = "label"
    reward: str = "gap"


if TYPE_CHECKING:
    _DrawConfig = _LabelledData
else:  # a field for each of the settings, with the values that are allowed
    _DrawConfig = pydantic.create_model(
        "_DrawConfig",
        __base__=_LabelledData,
        **{
            name: (hint, DRAW[name])
            for name, hint in get_type_hints(DrawSettings, include_extras=True).items()
        },
    )


class ClassificationConfig(_DrawConfig):
    """A task that tells classes apart: what `ClassificationTask.from_file` takes.

    Besides its own attributes it has those of `DrawSettings`.

    Attributes:
        data: `movie-reviews`, a `.csv`, `.tsv`, `.jsonl` or `.parquet` file, a folder with train,
            dev and test files, or `hub:NAME`. A relative path starts at the experiment file, else
            at the working folder.
        template: Where text and prompt go; its fields are columns of the data. A text, or the
            messages of a chat: role to content, or a list of such.
        label_words: Class to the word, or words, that answer for it; `auto` finds words on the
            train examples of `labels`.
        labels: The classes, where label words are to be found.
        text: Columns for the template's fields: a mapping of field to column, or the column of the
            only field. Left out, the fields are columns.
        label: Column that holds the class.
        reward: `gap`, `cross_entropy`, `hinge` or `accuracy`.
        hand_prompt: A prompt written by hand, the control to beat.
        pooling: How several words of a class count together (`Verbaliser`).
        length: How the tokens of a word count together (`Verbaliser`).
        calibration: `contextual` (Zhao et al. 2021), `batch` (Zhou et al. 2024) or `none`.
        calibration_strength: How much of it, 0 to 1.
        answer_space: What stands between text and label word: `auto`, `" "` or `""` (`Template`).
    """

    hand_prompt: str = ""
    pooling: Literal["mean", "logsumexp"] = "mean"
    length: Literal["sum", "mean"] = "sum"
    calibration: Calibration = DEFAULT_CALIBRATION
    calibration_strength: float = Field(1.0, ge=0, le=1)
    answer_space: AnswerSpace = "auto"

    @pydantic.model_validator(mode="after")
    def _labels_where_words_are_found(self) -> ClassificationConfig:
        if (self.label_words == "auto") != bool(self.labels):
            raise ValueError(
                "`label_words: auto` needs `labels:`, the list of classes, and nothing else does"
            )
        return self

    @property
    def name(self) -> str:
        """What results call the task: a file without its ending, a folder with the one above."""
        path = Path(self.data)
        return "/".join(path.parts[-2:]) if path.is_dir() else path.stem


class NamedTaskConfig(StrictModel):
    """A task by its short name: `sst2`, or `{name: sst2, shots: 32}` with some of its settings."""

    name: Annotated[str, known("task")]
    settings: dict[str, Any] = Field(default_factory=dict)

    @pydantic.model_serializer
    def _as_written(self) -> dict[str, Any]:
        return {"name": self.name, **self.settings}


class ImportedTaskConfig(StrictModel):
    """A task of a person's own class: `{class: "my_module:MyTask", args: {...}}`.

    Attributes:
        place: `FILE.py:NAME` or `MODULE:NAME`, called `class` in the file.
        args: What the class is called with.
    """

    place: Annotated[str, pydantic.AfterValidator(_place_of)] = Field(alias="class")
    args: dict[str, Any] = Field(default_factory=dict)

    @pydantic.model_serializer
    def _as_written(self) -> dict[str, Any]:
        return {"class": self.place, "args": self.args}

    @property
    def name(self) -> str:
        """What it is called while it is not loaded."""
        return self.place.rpartition(":")[2]


# Where pydantic says what it took a value for, in the place of an error.
TAGS = ("<class>", "<name>", "<classification>", "<list>", "<mapping>", "<number>")
IMPORTED, _NAMED, _CLASSIFICATION, LIST, MAPPING, NUMBER = TAGS


def _task_kind(value: Any) -> str:
    """Which kind of section a task is."""
    if isinstance(value, str | NamedTaskConfig) or (isinstance(value, Mapping) and "name" in value):
        return _NAMED
    if isinstance(value, ImportedTaskConfig) or (isinstance(value, Mapping) and "class" in value):
        return IMPORTED
    return _CLASSIFICATION


TaskConfig = Annotated[
    Annotated[ImportedTaskConfig, pydantic.Tag(IMPORTED)]
    | Annotated[NamedTaskConfig, BeforeValidator(split_settings), pydantic.Tag(_NAMED)]
    | Annotated[ClassificationConfig, pydantic.Tag(_CLASSIFICATION)],
    pydantic.Discriminator(_task_kind),
]


def parse_task(value: Any) -> TaskConfig:
    """A task's section that is inside another's settings.

    Raises:
        ValueError: It is none.
    """
    parsed: TaskConfig = pydantic.TypeAdapter[TaskConfig](TaskConfig).validate_python(value)
    return parsed
