"""Texts that fill the context: whoever makes a study's task again cuts them as the study did."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import LABELS, rlprompt, write_config, write_data
from tiny import CONTEXT, tiny_lm

from rlprompt.config.yaml_file import load_config
from rlprompt.export.folder import load_prompt
from rlprompt.export.server import Classified
from rlprompt.store.store import FILE, Store
from rlprompt.studies.loading import load_task, longest, settle
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.transfer.targets import Destinations

LONG = " film" * CONTEXT
SOFT = {"name": "soft-prompt", "start": "hand", "length": 20}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A finished study whose longest prompt is a control; change nothing in it."""
    folder = tmp_path_factory.mktemp("long")
    write_data(folder, [f"{i}{LONG},{LABELS[i % 2]}" for i in range(20)])
    task = {
        "data": "films.csv",
        "template": "{text} {prompt}",
        "label_words": {"negative": "terrible", "positive": "great"},
        "shots": 2,
        "test": 6,
        "hand_prompt": ["it was", "it" + " was" * 24],
        "on_long_text": "truncate-end",
    }
    write_config(folder, model=str(model), task=task, optimisers=["random", SOFT])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = rlprompt("compare", "small.yaml")
    assert done.exit_code == 0, done.stderr
    return folder


@pytest.fixture
def here(ended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: a copy of it."""
    monkeypatch.chdir(shutil.copytree(ended, tmp_path / "copy"))
    return tmp_path / "copy"


def test_the_longest_is_of_all_that_may_be_proposed(here: Path) -> None:
    assert longest(load_config(Path("small.yaml"))) == 20


@pytest.mark.parametrize("run", ["random-seed0", "soft-prompt-start=hand-length=20-seed0"])
def test_an_export_has_its_template_and_is_scored_as_the_study_did(here: Path, run: str) -> None:
    done = rlprompt("export", "runs/small", "--best", "best", "--run", run)
    assert done.exit_code == 0, done.stderr
    assert "note:" not in done.stdout
    assert load_prompt("best").facts.task.usage is not None
    verdict = rlprompt("score", "best", "small.yaml").stdout
    assert "Verified: mean rewards" in " ".join(verdict.split())


def test_an_export_is_given_as_much_of_a_text_as_the_search_was(here: Path) -> None:
    rlprompt("export", "runs/small", "--best", "best", "--run", "random-seed0")
    config = load_config(Path("small.yaml"))
    whole = load_task(config.split_tasks[0][2])
    found = load_prompt("best")
    lm = found.load_model()
    searched = settle(config.split_tasks[0][2], whole, lm, longest(config))
    assert isinstance(searched, ClassificationTask)
    by_probability = replace(searched, reward="cross_entropy")
    told = by_probability.rewards(lm, [found.prompt], searched.splits.test)[0]
    asked = whole.splits.test
    answers = found.predict([example.fields["text"] for example in asked], lm)
    for answer, example, logarithm in zip(answers, asked, told, strict=True):
        assert isinstance(answer, Classified)
        assert np.log(answer.chances[example.label]) == pytest.approx(logarithm, abs=1e-6)
    assert searched.splits.test != asked


def test_another_model_is_given_the_texts_as_it_can_read_them(here: Path) -> None:
    config = load_config(Path("small.yaml"))
    with Store(here / "runs" / "small" / FILE) as store:
        to = Destinations(config, store)
    (target,), (own,) = to.tasks, to.own_models()
    whole = load_task(config.split_tasks[0][2]).splits.digest
    assert target.make(tiny_lm(max_position_embeddings=2 * CONTEXT)).splits.digest == whole
    assert target.make(own).splits.digest != whole
