"""Settings of data that are said once: where they appear, and with which defaults."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, Unpack

import pytest

from rlprompt.config.registry import make, settings_of
from rlprompt.config.tasks import ClassificationConfig
from rlprompt.data.settings import DRAW, DrawSettings, draw_splits, draws
from rlprompt.tasks.benchmarks import sst2
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.tasks.function import FunctionTask
from rlprompt.tasks.generation import GenerationTask
from rlprompt.tasks.style_transfer import StyleTransferTask

# What makes a task of data, and the defaults that are its own.
MAKERS: list[tuple[Callable[..., Any], DrawSettings]] = [
    (ClassificationTask.from_file, {}),
    (GenerationTask.from_file, {}),
    (FunctionTask.from_file, {}),
    (StyleTransferTask.from_file, {"test": 100}),
    (sst2, {"on_bad_rows": "skip"}),
]
every_maker = pytest.mark.parametrize(("made", "own"), MAKERS)


def of_draw(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: settings[name] for name in DRAW}


def test_every_setting_has_a_default() -> None:
    assert set(DRAW) == set(typing.get_type_hints(DrawSettings))


@every_maker
def test_a_task_lists_them_with_its_defaults(made: Callable[..., Any], own: DrawSettings) -> None:
    assert of_draw(settings_of(made)) == {**DRAW, **own}
    assert of_draw(typing.get_type_hints(made)) == typing.get_type_hints(DrawSettings)


@every_maker
def test_its_help_says_what_each_means(made: Callable[..., Any], own: DrawSettings) -> None:
    text = inspect.getdoc(made) or ""
    assert "**draw" not in text
    assert all(f"\n    {name}: " in text for name in DRAW)


@every_maker
def test_a_setting_that_is_none_of_them_is_refused(
    made: Callable[..., Any], own: DrawSettings
) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'shot'"):
        made("films.csv", shot=1)
    with pytest.raises(ValueError, match="film has no setting 'shot'; did you mean 'shots'"):
        make(made, "film", {"data": "films.csv", "shot": 1})


def test_an_experiment_file_has_the_same() -> None:
    fields = ClassificationConfig.model_fields
    assert of_draw({name: field.default for name, field in fields.items()}) == DRAW
    others = ["hand_prompt", "pooling", "length", "calibration", "calibration_strength"]
    others += ["metric", "select_by", "answer_space"]
    assert list(fields)[7:] == [*DRAW, *others]


def test_a_function_is_called_with_all_of_them() -> None:
    @draws(shots=2)
    def read(**draw: Unpack[DrawSettings]) -> DrawSettings:
        return draw

    assert read(seed=3) == {**DRAW, "shots": 2, "seed": 3}


def test_splits_are_drawn_by_them() -> None:
    films = [{"text": f"Film {i}", "label": str(i % 2)} for i in range(12)]
    splits = draw_splits(films, ["0", "1"], {"shots": 2, "test": 3}, text=["text"], label="label")
    assert [len(part) for part in splits.parts().values()] == [4, 4, 3]
