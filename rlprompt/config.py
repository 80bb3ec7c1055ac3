"""Experiment files: YAML, checked before anything is loaded or paid for.

Every mistake is one line that names the file, the line and what was probably meant. Reading a file
imports neither torch nor an optimiser.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import pydantic
import yaml
from pydantic import BeforeValidator, ConfigDict, Field, PositiveInt

from rlprompt.mistakes import advice, reason
from rlprompt.plugins import locate
from rlprompt.registry import Kind, find
from rlprompt.template import Template

DEFAULT_DATA = "movie-reviews"
# What the name of a data set on the Hugging Face hub is marked with.
HUB = "hub:"


class ConfigError(ValueError):
    """An experiment file is wrong. The message has one line for each mistake."""


class _Section(pydantic.BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _named(value: object) -> object:
    """A bare name stands for a section with nothing but a name."""
    return {"name": value} if isinstance(value, str) else value


def _word(value: object) -> object:
    """A label word that YAML took for a number."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _split_settings(value: object) -> object:
    """`{name: greedy, pool: 0.5}` with the settings apart from the name."""
    value = _named(value)
    if not isinstance(value, Mapping):
        return value
    settings = {key: item for key, item in value.items() if key != "name"}
    return {"name": value["name"], "settings": settings} if "name" in value else {}


def _template(text: str) -> str:
    return Template(text).text


def _place_of(spec: str) -> str:
    if not re.fullmatch(r"[^:].*:\w+", spec):
        raise ValueError(f"must be MODULE:NAME or FILE.py:NAME, got {spec!r}")
    return spec


def _known(kind: Kind) -> pydantic.AfterValidator:
    return pydantic.AfterValidator(lambda name: find(kind, name).name)


def _distinct(values: Sequence[object]) -> Sequence[object]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{value} is given twice")
    return values


class ModelConfig(_Section):
    """The frozen model.

    Attributes:
        name: As for `FrozenLM.load`: `smollm2-135m`, a hub name, a folder or a `.gguf` file.
        revision: Commit, branch or tag of a hub model.
    """

    name: str = Field(min_length=1)
    revision: str | None = None


class ClassificationConfig(_Section):
    """A task that tells classes apart: what `ClassificationTask.from_file` takes.

    Attributes:
        data: `movie-reviews`, a `.csv`, `.tsv` or `.jsonl` file, or a folder with train, dev and
            test files. A relative path starts at the experiment file, else at the working folder.
        template: Where text and prompt go; its fields are columns of the data.
        label_words: Class to the word that answers for it.
        text: Columns for the template's fields: a mapping of field to column, or the column of the
            only field. Left out, the fields are columns.
        label: Column that holds the class.
        reward: `gap`, `cross_entropy`, `hinge` or `accuracy`.
        shots: Examples a class for train and again for dev, where they are drawn from one file.
        test: Examples to test on; null for all there are.
        seed: Decides what is drawn.
        on_bad_rows: `error` stops at an example that is empty or has no known label; `skip` leaves
            it out and counts it.
        hand_prompt: A prompt written by hand, the control to beat.
    """

    data: str = Field(min_length=1)
    template: Annotated[str, pydantic.AfterValidator(_template)]
    label_words: dict[str, Annotated[str, BeforeValidator(_word)]]
    text: str | dict[str, str] | tuple[str, ...] | None = None
    label: str = "label"
    reward: str = "gap"
    shots: PositiveInt = 16
    test: PositiveInt | None = None
    seed: int = Field(0, ge=0)
    on_bad_rows: Literal["error", "skip"] = "error"
    hand_prompt: str = ""

    @property
    def name(self) -> str:
        """What results call the task: a file without its ending, a folder with the one above."""
        path = Path(self.data)
        return "/".join(path.parts[-2:]) if path.is_dir() else path.stem


class NamedTaskConfig(_Section):
    """A task by its short name: `sst2`, or `{name: sst2, shots: 32}` with some of its settings."""

    name: Annotated[str, _known("task")]
    settings: dict[str, Any] = Field(default_factory=dict)

    @pydantic.model_serializer
    def _as_written(self) -> dict[str, Any]:
        return {"name": self.name, **self.settings}


class ImportedTaskConfig(_Section):
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


# Where pydantic says which kind of section it took a task for, in the place of an error.
_IMPORTED, _NAMED, _CLASSIFICATION = _TASK_KINDS = ("<class>", "<name>", "<classification>")


def _task_kind(value: Any) -> str:
    """Which kind of section a task is."""
    if isinstance(value, str | NamedTaskConfig) or (isinstance(value, Mapping) and "name" in value):
        return _NAMED
    if isinstance(value, ImportedTaskConfig) or (isinstance(value, Mapping) and "class" in value):
        return _IMPORTED
    return _CLASSIFICATION


TaskConfig = Annotated[
    Annotated[ImportedTaskConfig, pydantic.Tag(_IMPORTED)]
    | Annotated[NamedTaskConfig, BeforeValidator(_split_settings), pydantic.Tag(_NAMED)]
    | Annotated[ClassificationConfig, pydantic.Tag(_CLASSIFICATION)],
    pydantic.Discriminator(_task_kind),
]


class PromptConfig(_Section):
    """What is searched for.

    Attributes:
        length: Tokens, or vectors of a soft prompt.
        banned: Words, or token ids, that token prompts may not use.
    """

    length: PositiveInt = 5
    banned: tuple[int | str, ...] = ()


class StopConfig(_Section):
    """When a search ends before its budget does; see `objective.Budget`.

    Attributes:
        seconds: Wall time of rewards and gradients.
        target: A mean train reward that is good enough.
        patience: Rows without a better reward.
    """

    seconds: Annotated[float, Field(gt=0)] | None = None
    target: float | None = None
    patience: PositiveInt | None = None


class OptimiserConfig(_Section):
    """A search method: a bare name, or `{name: greedy, pool: 0.5}` with some of its settings."""

    name: Annotated[str, _known("optimiser")]
    settings: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def named(cls, name: str) -> OptimiserConfig:
        """The method of that name as it comes.

        Raises:
            ValueError: There is none.
        """
        return cls(name=find("optimiser", name).name)

    @property
    def title(self) -> str:
        """Name and settings, such as `greedy pool=0.5`."""
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.settings.items())])


class Config(_Section):
    """An experiment: every optimiser with every seed, on one task and model, at one budget.

    Attributes:
        name: What its output folder is called.
        model: The frozen model.
        task: What a prompt is for.
        prompt: What is searched for.
        optimisers: The methods to compare.
        seeds: Each optimiser runs once with each.
        budget: Rows that each run may spend: one row is one prompt scored on one example.
        stop: When a search ends before.
        device: `cpu`, `cuda`, `cuda:1`, ..., or `auto`.
        dtype: `float32`, `bfloat16`, `float16`, or `auto`.
    """

    name: str = Field(pattern=r"^\w[\w.-]*$")
    model: Annotated[ModelConfig, BeforeValidator(_named)]
    task: TaskConfig
    prompt: PromptConfig = PromptConfig()
    optimisers: Annotated[
        tuple[Annotated[OptimiserConfig, BeforeValidator(_split_settings)], ...],
        Field(min_length=1),
    ]
    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...],
        Field(min_length=1),
        pydantic.AfterValidator(_distinct),
    ] = (0,)
    budget: PositiveInt
    stop: StopConfig = StopConfig()
    device: str = "auto"
    dtype: str = "auto"

    @pydantic.field_validator("optimisers")
    @classmethod
    def _titles_differ(cls, value: tuple[OptimiserConfig, ...]) -> tuple[OptimiserConfig, ...]:
        _distinct([optimiser.title for optimiser in value])
        return value


def config_from_json(state: Mapping[str, Any]) -> Config:
    """The config that `Config.model_dump(mode="json")` described.

    Raises:
        ValueError: It is not, or no more, a config.
    """
    optimisers = [{"name": one["name"], **one["settings"]} for one in state["optimisers"]]
    return Config.model_validate({**state, "optimisers": optimisers})


def load_config(path: Path, **overrides: Any) -> Config:
    """An experiment file, checked.

    Args:
        path: The YAML file.
        overrides: Values for top-level keys, which win over the file's; None leaves the file's.

    Raises:
        ConfigError: The file cannot be read, is not YAML, or breaks a rule.
    """
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not an experiment file: it is no UTF-8 text") from None
    try:
        # One tree for the values, and one to look up line numbers in.
        data, tree = yaml.load(text, _Loader), yaml.compose(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}{_yaml_problem(error)}") from None
    if not isinstance(data, dict):
        found = "is empty" if data is None else f"holds a {type(data).__name__}, not keys"
        raise ConfigError(f"{path} {found}; start from experiments/demo.yaml")
    given = {key: value for key, value in overrides.items() if value is not None}
    try:
        config = Config.model_validate({**data, **given})
    except pydantic.ValidationError as error:
        # A list whose items are all wrong is reported as too short as well.
        errors = [e for e in error.errors() if e["type"] != "too_short" or not e["input"]]
        lines = [f"{path}:{_line(tree, _place(e))}: {_problem(e)}" for e in errors]
        raise ConfigError("\n".join(lines)) from None
    return config.model_copy(update={"task": _located(config.task, path)})


def _located(task: TaskConfig, config: Path) -> TaskConfig:
    """A task with the files that it names, relative to the experiment file, found."""
    if isinstance(task, ImportedTaskConfig):
        return task.model_copy(update={"place": locate(task.place, config.parent)})
    if isinstance(task, ClassificationConfig):
        return task.model_copy(update={"data": _data_path(task.data, config)})
    settings = {
        key: _data_path(value, config) if key == "data" and value else _found(value, config.parent)
        for key, value in task.settings.items()
    }
    return task.model_copy(update={"settings": settings})


def _found(value: Any, folder: Path) -> Any:
    """A setting with the person's own functions that it names found."""
    if isinstance(value, Mapping):
        return {_found(key, folder): item for key, item in value.items()}
    return locate(value, folder) if isinstance(value, str) else value


def _data_path(data: str, config: Path) -> str:
    """Data that the file names, relative to the file or else to the working folder."""
    if data == DEFAULT_DATA or data.startswith(HUB):
        return data
    given = Path(data).expanduser()
    places = list(dict.fromkeys((config.parent / given, given)))
    for place in places:
        if place.exists():
            return str(place)
    tried = " or ".join(str(place.absolute()) for place in places)
    near = difflib.get_close_matches(data, [DEFAULT_DATA])
    meant = f" (did you mean {DEFAULT_DATA}?)" if near else ""
    raise ConfigError(
        f"{config}: task.data {data!r} is not there{meant}; looked for {tried}. "
        f"Give {DEFAULT_DATA}, a .csv, .tsv or .jsonl file, or a folder with train, dev and test"
    )


class _Loader(yaml.SafeLoader):
    """YAML as people read it: keys are text as written, none is there twice, no is a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(
                    problem="a key must be text", problem_mark=key.start_mark
                )
            if key.value in keys:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark
                )
            keys.add(key.value)
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep) for key, value in node.value}


# Of the words that YAML 1.1 takes for a truth value or a date, only true and false stay: a label
# may well be called no.
_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if not tag.endswith(":timestamp") and (not tag.endswith(":bool") or first in "tTfF")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _yaml_problem(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f": {reason}" if mark is None else f":{mark.line + 1}: {reason}"


def _line(tree: yaml.Node | None, location: Sequence[int | str]) -> int:
    """The line of a value, or of the innermost section around it that the file has."""
    line = 0
    for part in location:
        if isinstance(tree, yaml.SequenceNode) and isinstance(part, int):
            tree = tree.value[part]
            line = cast(yaml.Node, tree).start_mark.line
        elif isinstance(tree, yaml.MappingNode):
            entry = next(((k, v) for k, v in tree.value if k.value == part), None)
            if entry is None:
                break
            line, tree = entry[0].start_mark.line, entry[1]
    return line + 1


def _place(error: Any) -> list[int | str]:
    """Where in the file one of pydantic's errors is."""
    return [part for part in error["loc"] if part not in _TASK_KINDS]


def _problem(error: Any) -> str:
    """One of pydantic's errors in plain words."""
    where = [str(part) for part in _place(error)]
    if error["type"] == "extra_forbidden":
        return _unknown_key(where, imported=_IMPORTED in error["loc"])
    if error["type"] == "missing":
        return f"{'.'.join(where)} is missing"
    return f"{'.'.join(where)}: {reason(error)}"


def _unknown_key(where: Sequence[str], imported: bool) -> str:
    """What to say of a key that its section does not have."""
    sections: dict[str, type[pydantic.BaseModel]] = {
        "": Config,
        "task": ImportedTaskConfig if imported else ClassificationConfig,
        "prompt": PromptConfig,
        "stop": StopConfig,
        "model": ModelConfig,
    }
    *above, key = where
    section = ".".join(above)
    own = [field.alias or name for name, field in sections[section].model_fields.items()]
    inside = f" in {section}" if section else ""
    if not difflib.get_close_matches(key, own, 1):
        for home, other in sections.items():
            if near := difflib.get_close_matches(key, other.model_fields, 1):
                place = f"under {home!r}" if home else "at the top, without indentation"
                return f"unknown key {key!r}{inside}; did you mean {near[0]!r} {place}?"
    return f"unknown key {key!r}{inside}{advice(key, own)}"
