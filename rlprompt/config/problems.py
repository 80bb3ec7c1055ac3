"""What is wrong with a config, in plain words: of a file, or of what a study was made from."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import pydantic

from rlprompt._utils.suggest import advice, reason
from rlprompt.config.schema import (
    Config,
    LengthConfig,
    ModelConfig,
    PromptConfig,
    RayConfig,
    SelectionConfig,
    StopConfig,
)
from rlprompt.config.tasks import IMPORTED, TAGS, ClassificationConfig, ImportedTaskConfig

M = TypeVar("M", bound=pydantic.BaseModel)


def config_from_json(state: Mapping[str, Any]) -> Config:
    """The config that `Config.record` described.

    >>> file = {"name": "mine", "model": "smollm2-135m", "task": "sst2", "budget": 64}
    >>> config = Config.model_validate({**file, "optimisers": ["random"]})
    >>> config_from_json(config.record) == config
    True

    Raises:
        ValueError: It is not, or no more, a config.
    """
    optimisers = [{"name": one["name"], **one["settings"]} for one in state["optimisers"]]
    try:
        return checked(Config, **{**state, "optimisers": optimisers})
    except ValueError as error:
        raise ValueError(
            f"the study's experiment is none here any more: {error}. Install the package that it "
            "needs, or use the version of rlprompt that it was begun with"
        ) from None


def checked(section: type[M], /, **given: Any) -> M:
    """A section with these keys.

    >>> checked(ModelConfig, nam="smollm2-135m")
    Traceback (most recent call last):
    ValueError: unknown key 'nam'; did you mean 'name'?

    Raises:
        ValueError: They are not allowed; one line says why.
    """
    try:
        return section.model_validate(given)
    except pydantic.ValidationError as error:
        raise ValueError("; ".join(told for _, told in problems(error))) from None


def problems(error: pydantic.ValidationError) -> list[tuple[list[int | str], str]]:
    """Where each mistake is, and what it is, in plain words."""
    # A list whose items are all wrong is reported as too short as well.
    errors = [e for e in error.errors() if e["type"] != "too_short" or not e["input"]]
    # A key that is misspelt is not missing as well.
    meant = [_meant(e) for e in errors if e["type"] == "extra_forbidden"]
    errors = [e for e in errors if e["type"] != "missing" or _place(e) not in meant]
    return [(_place(e), _problem(e)) for e in errors]


def _place(error: Any) -> list[int | str]:
    """Where in the file one of pydantic's errors is."""
    return [part for part in error["loc"] if part not in TAGS]


def _problem(error: Any) -> str:
    """One of pydantic's errors in plain words."""
    where = [str(part) for part in _place(error)]
    if error["type"] == "extra_forbidden":
        return _unknown_key(error)
    if not where:
        return reason(error)
    if error["type"] == "missing":
        return f"{'.'.join(where)} is missing"
    return f"{'.'.join(where)}: {reason(error)}"


def _unknown_key(error: Any) -> str:
    """What to say of a key that its section does not have."""
    *above, key = map(str, _place(error))
    section = ".".join(above)
    what = f"unknown key {key!r}{f' in {section}' if section else ''}"
    meant = _meant(error)
    if not meant:
        return f"{what}{advice(key, _keys(_sections(error)[_kind(above)]))}"
    *home, name = map(str, meant)
    place = ""
    if home != above:
        place = f" under {'.'.join(home)!r}" if home else " at the top, without indentation"
    return f"{what}; did you mean {name!r}{place}?"


def _meant(error: Any) -> list[int | str]:
    """Where the key stands that an unknown one was probably meant for; nowhere for none."""
    *above, key = _place(error)
    sections, own = _sections(error), _kind([*map(str, above)])
    for home in (own, *sections):
        if near := difflib.get_close_matches(str(key), _keys(sections[home]), 1):
            return [*(above if home == own else filter(None, home.split("."))), near[0]]
    return []


def _kind(above: Sequence[str]) -> str:
    """Which of `_sections` a section is."""
    several = above and above[0] in ("tasks", "models")
    return above[0].removesuffix("s") if several else ".".join(above)


def _keys(section: type[pydantic.BaseModel]) -> list[str]:
    return [field.alias or name for name, field in section.model_fields.items()]


def _sections(error: Any) -> dict[str, type[pydantic.BaseModel]]:
    """Sections by their place, for a mistake in one of them."""
    return {
        "": Config,
        "task": ImportedTaskConfig if IMPORTED in error["loc"] else ClassificationConfig,
        "prompt": PromptConfig,
        "prompt.length": LengthConfig,
        "stop": StopConfig,
        "selection": SelectionConfig,
        "ray": RayConfig,
        "model": ModelConfig,
    }
