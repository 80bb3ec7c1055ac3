"""Found prompts on other models and data."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from study_folder import MODEL, make_study
from study_pages import SMALL, found

from rlprompt.reports.html import html
from rlprompt.reports.page import page_of
from rlprompt.reports.study_data import read_study
from rlprompt.search.result import Score
from rlprompt.transfer.file import Form, Source, Target, Transfer, TransferEntry
from rlprompt.transfer.file import ModelEntry as TransferModel


def transfer() -> Transfer:
    source = Source(
        run="a",
        task="sst-2",
        model=MODEL,
        budget_rows=9600,
        optimiser="greedy",
        seed=0,
        soft=False,
        tokens=5,
        text=" It was",
        retypable=True,
    )
    controls = {"empty": Score(metric=0.5, reward=0.0)}
    targets = [
        Target(model=name, task="sst-2", split="test", examples=200, controls=controls)
        for name in (MODEL, "gpt2")
    ]
    scores = zip((MODEL, "gpt2"), (0.75, 0.6), ("as found", "by text"), strict=True)
    return Transfer(
        study="three-tasks",
        complete=True,
        split="test",
        top="best",
        sources=(source,),
        models=tuple(
            TransferModel(
                name=name,
                kind="causal",
                digest="77",
                dtype="float32",
                device="cpu",
                of_study=name == MODEL,
            )
            for name in (MODEL, "gpt2")
        ),
        targets=tuple(targets),
        entries=tuple(
            TransferEntry(
                run="a",
                model=name,
                task="sst-2",
                split="test",
                form=cast(Form, form),
                score=Score(metric=metric, reward=0.0),
            )
            for name, metric, form in scores
        ),
    )


def test_prompts_elsewhere_are_a_matrix_of_gains(tmp_path: Path) -> None:
    make_study(tmp_path, SMALL)
    (tmp_path / "transfer.json").write_text(transfer().to_json())
    one = page_of(read_study(tmp_path))
    (gains,) = (each for each in one.tables() if each.name == "transfer")
    assert gains.header == ("found by", f"{MODEL}: sst-2", "gpt2: sst-2 (other)")
    assert gains.rows == (
        ("empty prompt", "0.500", "0.500"),
        ("greedy", "0.750 (+0.250)", "0.600 (+0.100)"),
    )
    # Of a metric without a name one prompt has no interval.
    assert gains.notes[0].startswith(
        "In brackets the gain over the empty prompt of the same column. "
    )
    assert "On other models and data" in html(one)


def test_a_damaged_file_is_flagged_and_the_page_is_there(tmp_path: Path) -> None:
    make_study(tmp_path, SMALL)
    (tmp_path / "transfer.json").write_text("{")
    one = page_of(read_study(tmp_path))
    assert "transfer.json is damaged" in found(one)["unread transfer"]
    assert one.transfer == ()
