"""Models and tasks by the names that a person gives."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import rlprompt
from transferred_study import transferred


class TestTasks:
    def test_a_file_a_title_and_a_name(self, study: Path) -> None:
        done = transferred(study, "--tasks", "books.yaml,films")
        own, books = done.targets
        assert (own.task, books.task) == ("films", "books")
        assert set(books.controls) == {"empty", "hand-written, calibrated"}
        there = [entry for entry in done.entries if entry.task == "books"]
        assert {entry.run for entry in there} == {source.run for source in done.sources}
        for entry in there:
            assert entry.score is not None
            assert entry.stored is None
            words, known = entry.notes
            assert words == "found with other label words (great; terrible)"
            # Another draw of the study's data, of which one test holds two of the other's dev.
            assert known == (
                "found on 2 of the 6 test examples (2 in its dev), so the score there is too good"
            )

    def test_a_file_with_the_task_itself_adds_none(self, study: Path) -> None:
        (target,) = transferred(study, "--tasks", "same.yaml").targets
        assert (target.task, target.asked) == ("films", True)

    @pytest.mark.parametrize(
        ("name", "problem"),
        [
            ("antonym", "no task is called 'antonym'; did you mean 'antonyms'?"),
            ("generation", "needs the setting"),
            ("films.csv", "films.csv"),
        ],
    )
    def test_one_that_cannot_be_had_is_named(self, study: Path, name: str, problem: str) -> None:
        result = rlprompt("transfer", str(study), "--tasks", name)
        assert result.exit_code == 2
        assert problem in result.stdout
        assert result.stderr == "error: nothing that was asked for could be scored, see above\n"


def test_an_address_that_is_none_is_said_in_plain_words(study: Path) -> None:
    result = rlprompt("transfer", str(study), "--models", "m@http://here/v1?key=1")
    assert result.exit_code == 2
    assert "url: url has a ? or a #; give what comes before it" in result.stdout
    assert "pydantic" not in result.stdout


def test_a_mistyped_asset_is_recognised(study: Path) -> None:
    result = rlprompt("transfer", str(study), "--models", "smollm2-135")
    assert result.exit_code == 2
    assert "Did you mean 'smollm2-135m'?" in result.stdout
    assert "error: nothing that was asked for could be scored, see above\n" in result.stderr
