"""`transfer.json` is read as it was written, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlprompt.search.result import Score
from rlprompt.transfer.file import Target, Transfer, TransferEntry, TransferError, read_transfer

TRANSFER = Transfer(
    study="small",
    complete=True,
    split="test",
    top="all",
    sources=(),
    models=(),
    targets=(Target(model="m", task="films", split="test", controls={"empty": Score(0.25, 0.5)}),),
    entries=(
        TransferEntry(
            run="random-seed0",
            model="m",
            task="films",
            split="test",
            form="as found",
            score=Score(1.5, 0.75),
        ),
    ),
)


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "transfer.json"
    path.write_text(TRANSFER.to_json())
    assert read_transfer(path) == TRANSFER
    score = json.loads(path.read_text())["entries"][0]["score"]
    assert score == {"reward": 1.5, "metric": 0.75}


def test_what_a_newer_version_adds_is_left_aside(tmp_path: Path) -> None:
    state = json.loads(TRANSFER.to_json())
    state["later"] = state["entries"][0]["later"] = state["entries"][0]["score"]["later"] = 1
    (tmp_path / "transfer.json").write_text(json.dumps(state))
    assert read_transfer(tmp_path / "transfer.json") == TRANSFER


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"is damaged \(the file: "),
        (TRANSFER.to_json().replace('"format": 1', '"format": 0'), r"older .* this one reads 1\)"),
        (TRANSFER.to_json().replace("as found", "as told"), r"\(entries\.0\.form: "),
        ("\x80", "is damaged"),
    ],
)
def test_a_damaged_file_is_refused_with_what_to_do(
    tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "transfer.json"
    path.write_text(content)
    with pytest.raises(TransferError, match=message) as refusal:
        read_transfer(path)
    assert "run `rlprompt transfer` again, which scores nothing twice" in str(refusal.value)


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "transfer.json"
    path.write_text(TRANSFER.to_json().replace('"format": 1', '"format": 9'))
    with pytest.raises(TransferError, match=r"newer rlprompt \(format 9, .*; update rlprompt"):
        read_transfer(path)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match=r"nothing\.json cannot be read"):
        read_transfer(tmp_path / "nothing.json")
