"""What an experiment file may say of a task, checked before anything is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import pydantic
from pydantic import BeforeValidator, ConfigDict, Field

from rlprompt.config.registry import find
from rlprompt.data.opening import file_title
from rlprompt.data.settings import DRAW, DrawSettings
from rlprompt.data.values import class_name
from rlprompt.template import Template
from rlprompt.types import (
    DEFAULT_CALIBRATION,
    AnswerSpace,
    Calibration,
    ClassMetric,
    RegistryKind,
    SelectBy,
)

# What a split seed is put in the place of, in the name of data or an argument of a class.
SEED = "{seed}"
# The task whose rows have options of their own.
MULTIPLE_CHOICE = "multiple-choice"
# Where pydantic says what it took a value for, in the place of an error.
TAGS = ("<class>", "<name>", "<classification>", "<list>", "<mapping>", "<number>")
IMPORTED, _NAMED, _CLASSIFICATION, LIST, MAPPING, NUMBER = TAGS


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
_Class = Annotated[str, BeforeValidator(class_name)]


def split_settings(value: object) -> object:
    """`{name: greedy, pool: 0.5}` with the settings apart from the name."""
    value = named(value)
    if not isinstance(value, Mapping):
        return value
    settings = {key: item for key, item in value.items() if key != "name"}
    return {"name": value["name"], "settings": settings} if "name" in value else {}


def _task_settings(value: object) -> object:
    """As `split_settings`; where options are named, it is a task of multiple choice."""
    if isinstance(value, Mapping) and "choices" in value and "name" not in value:
        value = {"name": MULTIPLE_CHOICE, **value}
    return split_settings(value)


def _template(source: object) -> object:
    """A text, or the messages of a chat, as the text that stands for it."""
    if isinstance(source, str | Mapping | list | tuple):
        return Template.of(source).text
    return source


def place_of(spec: object) -> str:
    """A place that is well spelt.

    Raises:
        ValueError: It is not.
    """
    if not isinstance(spec, str) or not re.fullmatch(r"[^:].*:\w+", spec):
        raise ValueError(f"must be MODULE:NAME or FILE.py:NAME, got {spec!r}")
    return spec


def known(kind: RegistryKind) -> pydantic.AfterValidator:
    """That a name is a task's, or an optimiser's."""
    return pydantic.AfterValidator(lambda name: find(kind, name).name)


# The order of fields is that in which a study's page shows its experiment file.
class _LabelledData(StrictModel):
    data: str = Field(min_length=1)
    template: Annotated[str, BeforeValidator(_template)]
    label_words: Literal["auto"] | dict[_Class, _Word | tuple[_Word, ...]]
    labels: Annotated[
        Annotated[tuple[_Word, ...], pydantic.Tag(LIST)]
        | Annotated[dict[_Class, _Word], pydantic.Tag(MAPPING)],
        pydantic.Discriminator(lambda value: MAPPING if isinstance(value, Mapping) else LIST),
    ] = ()
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
        data: `movie-reviews`, a file (see `load_splits` for the kinds), a folder with train,
            dev and test files, or `hub:NAME`. A relative path starts at the experiment file, else
            at the working folder. Each of `split_seeds` takes the place of `{seed}` in it.
        template: Where text and prompt go; its fields are columns of the data. A text, or the
            messages of a chat: role to content, or a list of such.
        label_words: Class to the word, or words, that answer for it; `auto` finds words on the
            train examples of `labels`.
        labels: What the data call the classes, where that is something else:
            `{0: objective, 1: subjective}`; the classes, where label words are to be found.
        text: Columns for the template's fields: a mapping of field to column, or the column of the
            only field. Left out, the fields are columns.
        label: Column that holds the class.
        reward: `gap`, `cross_entropy`, `hinge` or `accuracy`.
        hand_prompt: A prompt written by hand, the control to beat; or a list of them.
        pooling: How several words of a class count together (`Verbaliser`).
        length: How the tokens of a word count together (`Verbaliser`).
        calibration: `contextual` (Zhao et al. 2021), `batch` (Zhou et al. 2024) or `none`.
        calibration_strength: How much of it, 0 to 1.
        metric: What reports give: `accuracy`, `balanced_accuracy`, `macro_f1` or `mcc`.
        select_by: By what a prompt is picked on dev: its `reward`, or the `metric`.
        answer_space: What stands between text and label word: `auto` or white space (`Template`).
    """

    hand_prompt: str | tuple[str, ...] = ""
    pooling: Literal["mean", "logsumexp"] = "mean"
    length: Literal["sum", "mean"] = "sum"
    calibration: Calibration = DEFAULT_CALIBRATION
    calibration_strength: float = Field(1.0, ge=0, le=1)
    metric: ClassMetric = "accuracy"
    select_by: SelectBy = "reward"
    answer_space: AnswerSpace = "auto"

    @pydantic.model_validator(mode="after")
    def _labels_where_words_are_found(self) -> ClassificationConfig:
        if self.label_words == "auto" and not self.labels:
            raise ValueError("`label_words: auto` needs `labels:`, the list of classes")
        if self.label_words != "auto" and isinstance(self.labels, tuple) and self.labels:
            raise ValueError(
                "a list of `labels:` is for `label_words: auto`; where the data call the classes "
                "something else, map that to the classes: `labels: {0: negative, 1: positive}`"
            )
        return self

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, where label words are to be found."""
        labels = self.labels
        return tuple(dict.fromkeys(labels.values())) if isinstance(labels, dict) else labels

    @property
    def aliases(self) -> dict[str, str]:
        """What the data call the classes."""
        return self.labels if isinstance(self.labels, dict) else {}

    @property
    def name(self) -> str:
        """What results call the task: a file without its ending, a folder with the one above."""
        path = Path(self.data)
        folder = path.is_dir() or (SEED in self.data and not path.suffix)
        return "/".join(path.parts[-2:]) if folder else file_title(path)


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

    place: Annotated[str, pydantic.AfterValidator(place_of)] = Field(alias="class")
    args: dict[str, Any] = Field(default_factory=dict)

    @pydantic.model_serializer
    def _as_written(self) -> dict[str, Any]:
        return {"class": self.place, "args": self.args}

    @property
    def name(self) -> str:
        """What it is called while it is not loaded."""
        return self.place.rpartition(":")[2]


def _task_kind(value: Any) -> str:
    """Which kind of section a task is."""
    if isinstance(value, ImportedTaskConfig) or (isinstance(value, Mapping) and "class" in value):
        return IMPORTED
    marked = isinstance(value, Mapping) and ("name" in value or "choices" in value)
    if isinstance(value, str | NamedTaskConfig) or marked:
        return _NAMED
    return _CLASSIFICATION


TaskConfig = Annotated[
    Annotated[ImportedTaskConfig, pydantic.Tag(IMPORTED)]
    | Annotated[NamedTaskConfig, BeforeValidator(_task_settings), pydantic.Tag(_NAMED)]
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


def hand_prompts(section: TaskConfig) -> tuple[str, ...]:
    """Prompts written by hand that a section names, the task's own first.

    Where it names none, a task may have one all the same. A class has its arguments.

    >>> hand_prompts(parse_task({"name": "sst2", "hand_prompt": [" It was", " All in all"]}))
    (' It was', ' All in all')
    """
    if isinstance(section, ImportedTaskConfig):
        return ()
    settings = section.settings if isinstance(section, NamedTaskConfig) else dict(section)
    given = settings.get("hand_prompt", ())
    return tuple(given) if isinstance(given, list | tuple) else (given,)


def on_split(section: TaskConfig, seed: int | None) -> TaskConfig:
    """A task on the examples of a split seed.

    The seed takes the place of `{seed}` in the name of its data, or in the arguments of a class;
    where there is none, the examples are drawn with it.

    Args:
        section: The task.
        seed: The split seed; None where there are none, and the task stays as it is.

    Raises:
        ValueError: There is a place and no seed, or the other way round, or the task has a seed of
            its own.

    >>> films = {"data": "films/16-{seed}", "template": "{text} {prompt}", "label_words": {}}
    >>> on_split(parse_task(films), 13).data
    'films/16-13'
    """
    if isinstance(section, ImportedTaskConfig):
        places = [key for key, value in section.args.items() if _has_place(value)]
        _check_place(section.place, bool(places), seed)
        if seed is not None and not places:
            raise ValueError(
                f"split_seeds are given, and {section.place} is called without one: say in its "
                f"args where it goes, such as `args: {{seed: '{SEED}'}}`"
            )
        filled = {key: _filled(section.args[key], seed) for key in places}
        return section.model_copy(update={"args": {**section.args, **filled}})
    if isinstance(section, ClassificationConfig):
        own = {key: getattr(section, key) for key in section.model_fields_set}
        return section.model_copy(update=_drawn_with(section.data, own, seed))
    inner = section.settings.get("task")
    if inner is not None:  # of another task, whose examples it has
        section_inside = on_split(parse_task(inner), seed)
        changed: dict[str, Any] = {"task": section_inside.model_dump(exclude_unset=True)}
    else:
        changed = _drawn_with(section.name, section.settings, seed)
    return section.model_copy(update={"settings": {**section.settings, **changed}})


def _drawn_with(name: str, settings: Mapping[str, Any], seed: int | None) -> dict[str, Any]:
    """The setting that a split seed changes."""
    data = settings.get("data")
    _check_place(f"data of {name}", _has_place(data), seed)
    if seed is None:
        return {}
    if isinstance(data, str) and SEED in data:
        return {"data": _filled(data, seed)}
    # The default says nothing: a study keeps its file with all of them written out.
    if settings.get("seed", DRAW["seed"]) != DRAW["seed"]:
        raise ValueError(
            f"{name} has `seed: {settings['seed']}` of its own beside split_seeds; leave out one"
        )
    return {"seed": seed}


def _has_place(value: object) -> bool:
    return isinstance(value, str) and SEED in value


def _filled(value: str, seed: int | None) -> str | int | None:
    """A text with the seed in its place; the seed itself where there is nothing else."""
    return seed if value == SEED else value.replace(SEED, str(seed))


def _check_place(where: str, there: bool, seed: int | None) -> None:
    if there and seed is None:
        raise ValueError(
            f"{where} has {SEED} and there are no split seeds to put there; add "
            "`split_seeds: [13, 21, 42]`, or give one folder by its name"
        )
