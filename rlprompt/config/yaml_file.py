"""Experiment files: YAML, read so that every mistake is a line.

It names the file, the line and what was probably meant. Reading a file imports neither torch nor
an optimiser.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import pydantic
import yaml

from rlprompt._utils.assets import ASSETS
from rlprompt._utils.plugins import locate
from rlprompt.config.problems import problems
from rlprompt.config.schema import PLURALS, Config
from rlprompt.config.tasks import (
    SEED,
    ClassificationConfig,
    ImportedTaskConfig,
    TaskConfig,
    parse_task,
)
from rlprompt.data.hub import HUB
from rlprompt.data.load import MOVIE_REVIEWS
from rlprompt.data.opening import ENDINGS, PACKED, SUFFIXES


class ConfigError(ValueError):
    """An experiment file is wrong. The message has one line for each mistake.

    >>> load_config(Path("none.yaml"))
    Traceback (most recent call last):
    rlprompt.config.yaml_file.ConfigError: cannot read none.yaml: No such file or directory
    """


def load_config(path: Path, **overrides: Any) -> Config:
    """An experiment file, checked.

    Args:
        path: The YAML file.
        overrides: Values for top-level keys, which win over the file's; None leaves the file's.

    Raises:
        ConfigError: The file cannot be read, is not YAML, or breaks a rule.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "mine.yaml")
    ...     _ = path.write_text(
    ...         "{name: mine, model: smollm2-135m, task: sst2, optimisers: [random], budget: 64}"
    ...     )
    ...     config = load_config(path, seeds=[0, 1])
    >>> config.budget, config.seeds, config.prompt.length
    (64, (0, 1), 5)
    """
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        problem = f"{path} is not an experiment file: it is no UTF-8 text"
        raise ConfigError(_is_data(path) or problem) from None
    try:
        loader = _Loader(text)
        tree = loader.get_single_node()  # of the values, and to look up line numbers in
        _keep_words(tree)
        data = None if tree is None else loader.construct_document(tree)
    except (yaml.YAMLError, RecursionError) as error:
        # JSON may be either, and was to be an experiment file if its braces do not match.
        told = "" if path.suffix.lower() == ".json" else _is_data(path)
        raise ConfigError(told or f"{path}{_yaml_problem(error)}") from None
    if not isinstance(data, dict):
        found = "is empty" if data is None else f"holds a {type(data).__name__}, not keys"
        problem = f"{path} {found}; `rlprompt init DATA` writes an experiment file"
        raise ConfigError(_is_data(path) or problem)
    given = {key: value for key, value in overrides.items() if value is not None}
    try:
        # One budget in place of the file's several.
        replaced = [f"{key}s" for key in PLURALS if key in given]
        kept = {key: value for key, value in data.items() if key not in replaced}
        config = Config.model_validate({**kept, **given})
    except pydantic.ValidationError as error:
        lines = [f"{path}:{_line(tree, place)}: {told}" for place, told in problems(error)]
        raise ConfigError("\n".join(lines)) from None
    locate_one = partial(_located, config=path, splits=config.split_seeds)
    tasks = config.tasks
    if isinstance(tasks, dict):
        tasks = {title: locate_one(task) for title, task in tasks.items()}
    elif tasks is not None:
        tasks = tuple(map(locate_one, tasks))
    task = config.task and locate_one(config.task)
    prompt = config.prompt.model_copy(update={"start": _starts(config.prompt.start, path)})
    optimisers = []
    for one in config.optimisers:
        own = {k: _own(k, v, path) for k, v in one.settings.items()}
        place = locate(one.name, path.parent)
        optimisers.append(one.model_copy(update={"name": place, "settings": own}))
    located: dict[str, Any] = {"task": task, "tasks": tasks, "prompt": prompt}
    located["optimisers"] = tuple(optimisers)
    located |= {key: _models(getattr(config, key), path) for key in ("model", "models")}
    if config.cache and "cache" not in given:  # of a command, as the command says it
        located["cache"] = _cache(config.cache, path)
    return config.model_copy(update=located)


def _is_data(path: Path) -> str:
    """What to say of a file that is data by its name, or ""."""
    if path.suffix.lower() not in (*SUFFIXES, *PACKED):
        return ""
    return f"{path} is data and no experiment file; `rlprompt init {path}` writes one"


def _own(key: str, value: Any, config: Path) -> Any:
    """A setting of an optimiser, with what it names found relative to the file."""
    if key == "start":
        return _starts(value, config)
    if key == "proposer":
        if isinstance(value, Mapping):
            named = {"name": _model(value["name"], config)} if "name" in value else {}
            return value if "url" in value else {**value, **named}
        there = locate(value, config.parent) if isinstance(value, str) else value
        return _model(there, config)
    return locate(value, config.parent) if isinstance(value, str) else value


def _starts(start: Any, config: Path) -> Any:
    """A start, or several, with the folders of found prompts, relative to the file, found."""
    if isinstance(start, list | tuple):
        return type(start)(_starts(one, config) for one in start)
    if not isinstance(start, Mapping) or not isinstance(start.get("found"), str):
        return start
    there = config.parent / Path(start["found"]).expanduser()
    return {"found": str(there)} if there.exists() else start


def _models(given: Any, config: Path) -> Any:
    """A model, or several in a list or mapping, with those that lie beside the file found."""
    if isinstance(given, dict):
        return {title: _models(one, config) for title, one in given.items()}
    if isinstance(given, tuple):
        return tuple(_models(one, config) for one in given)
    there = given and not given.url
    return given.model_copy(update={"name": _model(given.name, config)}) if there else given


def _model(name: Any, config: Path) -> Any:
    """A model's name, or its path where it lies beside the file."""
    if not isinstance(name, str) or name in ASSETS:
        return name
    given = Path(name).expanduser()
    there = config.parent / given
    # A folder of something else does not hide a model of the hub.
    is_model = there.is_file() or any(there.glob("*config.json"))
    return str(there) if is_model and there != given else name


def _cache(cache: str, config: Path) -> str:
    """A file of answers: beside the file, unless it was begun in the working folder."""
    given = Path(cache).expanduser()
    there = config.parent / given
    begun = given.exists() and not there.exists()
    return cache if begun or not there.parent.is_dir() else str(there)


def _located(task: TaskConfig, config: Path, splits: Sequence[int]) -> TaskConfig:
    """A task with the files that it names, relative to the experiment file, found."""
    if isinstance(task, ImportedTaskConfig):
        return task.model_copy(update={"place": locate(task.place, config.parent)})
    if isinstance(task, ClassificationConfig):
        return task.model_copy(update={"data": _data_path(task.data, config, splits)})
    settings = {key: _found(key, value, config, splits) for key, value in task.settings.items()}
    return task.model_copy(update={"settings": settings})


def _found(key: str, value: Any, config: Path, splits: Sequence[int]) -> Any:
    """A setting of a named task with the files that it names found."""
    if key == "task":  # of another task, such as the one whose prompt is compressed
        return _located(parse_task(value), config, splits)
    if key == "data" and value:
        return _data_path(value, config, splits)
    if key == "source" and (there := config.parent / Path(value).expanduser()).is_file():
        return str(there)
    if key in ("style_model", "sentence_model"):
        return _model(value, config)
    if isinstance(value, Mapping):  # such as a metric that asks a model
        judged = {name: _model(value[name], config) for name in ("model",) if name in value}
        return {_found("", name, config, splits): v for name, v in {**value, **judged}.items()}
    return locate(value, config.parent) if isinstance(value, str) else value


def _data_path(data: str, config: Path, splits: Sequence[int]) -> str:
    """Data that the file names, relative to the file or else to the working folder.

    Of a pattern, what it names for every split seed.
    """
    if data == MOVIE_REVIEWS or data.startswith(HUB):
        return data
    given = Path(data).expanduser()
    tried, absent = list[str](), list[int]()
    for place in dict.fromkeys((config.parent / given, given)):
        named = {seed: Path(str(place).replace(SEED, str(seed))) for seed in splits or (0,)}
        missing = {seed: path.absolute() for seed, path in named.items() if not path.exists()}
        if not missing:
            return str(place)
        tried.append(str(next(iter(missing.values()))))
        absent = absent or list(missing)
    near = difflib.get_close_matches(data, [MOVIE_REVIEWS])
    meant = f" (did you mean {MOVIE_REVIEWS}?)" if near else ""
    which = f" for split seed {absent[0]}" if SEED in data else ""
    raise ConfigError(
        f"{config}: task.data {data!r} is not there{which}{meant}; looked for "
        f"{' or '.join(tried)}. Give {MOVIE_REVIEWS}, a file that ends in {ENDINGS}, a "
        "folder with train, dev and test, or hub:NAME"
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


# Settings of a task that have words by class, or classes by word; those of its metrics that are
# lists of texts, and where a task has metrics.
WORDS = ("label_words", "labels", "aliases")
METRIC_WORDS = ("words", "regexes_to_ignore")
METRICS = ("reward", "metric")
_TAG = "tag:yaml.org,2002:"
# Of the words that YAML 1.1 takes for a truth value or a date, only true and false stay: a label
# may well be called no.
_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag.removeprefix(_TAG) not in ("int", "float", "timestamp")
        and (tag != f"{_TAG}bool" or first in "tTfF")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# Numbers nearly as in YAML 1.2 (section 10.3.2), with 3_200 of 1.1: 1e-3 is one; 9:30, which is 570
# in 1.1, is text, and so is what has a zero in front.
for _number, _pattern in (
    ("int", r"0b[01][01_]*|0x[0-9a-fA-F][0-9a-fA-F_]*|0|[1-9][0-9_]*"),
    ("float", r"(\.[0-9][0-9_]*|[0-9][0-9_]*\.[0-9_]*)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"),
    ("float", r"\.(inf|Inf|INF|nan|NaN|NAN)"),
):
    _Loader.add_implicit_resolver(
        f"{_TAG}{_number}", re.compile(rf"^[-+]?({_pattern})$"), list("-+.0123456789")
    )


def _keep_words(tree: yaml.Node | None) -> None:
    """Have what tasks read as text taken as it is written: 3.10 is a word, and so is true."""
    for key, node in _entries(tree):
        sections = [node]
        if key == "tasks":
            listed = isinstance(node, yaml.SequenceNode)
            sections = node.value if listed else [one for _, one in _entries(node)]
        elif key != "task":
            continue
        for section in sections:
            _keep_words(section)  # whose prompt is another task's, as where that is compressed
            for name, given in _entries(section):
                several = not isinstance(given, yaml.ScalarNode)
                if name == "hand_prompt" or (several and name in WORDS):
                    _as_text(given)
                if name in METRICS:
                    _keep_metric_words(given)


def _keep_metric_words(node: yaml.Node) -> None:
    """The same for the settings of one metric, or of several in a list."""
    for one in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        for name, given in _entries(one):
            if name in METRIC_WORDS:
                _as_text(given)


def _entries(node: yaml.Node | None) -> list[tuple[str, yaml.Node]]:
    """The keys of a mapping, with what stands there; of anything else none."""
    entries: list[tuple[str, yaml.Node]] = []
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.value == "<<":
            for one in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                entries += _entries(one)
        else:
            entries.append((key.value, value))
    return entries


def _as_text(node: yaml.Node) -> None:
    """Have numbers and truth values taken as they are written."""
    if isinstance(node, yaml.ScalarNode):
        if node.tag.removeprefix(_TAG) in ("int", "float", "bool"):
            node.tag = f"{_TAG}str"
        return
    for one in node.value:
        _as_text(one[1] if isinstance(node, yaml.MappingNode) else one)


def _yaml_problem(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or str(error).splitlines()[0]
    if "<block end>" in reason:  # what stands deeper or less deep than it may
        reason += "; is this line indented like its neighbours?"
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
