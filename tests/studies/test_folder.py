"""The folder of a study: what is claimed, what is refused, and which is the newest."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlprompt.store.store import FILE
from rlprompt.studies.folder import claimed, newest


def with_study(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / FILE).touch()
    return folder


class TestClaimed:
    def test_one_that_is_not_there_is_made_and_leaves_no_trace(self, tmp_path: Path) -> None:
        out = tmp_path / "runs" / "small"
        with claimed(out) as place:
            assert place == out
            assert list(out.iterdir()) == []
        assert not out.exists()

    def test_what_was_written_stays(self, tmp_path: Path) -> None:
        with claimed(tmp_path / "small") as place:
            (place / FILE).touch()
        assert (tmp_path / "small" / FILE).exists()

    def test_an_empty_one_that_was_there_stays(self, tmp_path: Path) -> None:
        with claimed(tmp_path):
            pass
        assert tmp_path.exists()

    def test_an_error_removes_what_was_made(self, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt), claimed(tmp_path / "small"):
            raise KeyboardInterrupt
        assert not (tmp_path / "small").exists()

    def test_a_study_is_gone_on_with(self, tmp_path: Path) -> None:
        out = with_study(tmp_path / "small")
        with claimed(out) as place:
            assert place == out

    def test_a_study_is_left_alone_where_another_is_wanted_beside_it(self, tmp_path: Path) -> None:
        out = with_study(tmp_path / "small")
        with_study(tmp_path / "small-2")
        with claimed(out, beside=True) as place:
            assert place == tmp_path / "small-3"

    def test_other_files_are_never_written_over(self, tmp_path: Path) -> None:
        (tmp_path / "notes").touch()
        with pytest.raises(ValueError, match="is not overwritten"), claimed(tmp_path):
            pass

    def test_a_file_of_that_name_is_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "small").touch()
        with (
            pytest.raises(ValueError, match="holds no study to go on with"),
            claimed(tmp_path / "small"),
        ):
            pass
        with claimed(tmp_path / "small", beside=True) as place:
            assert place == tmp_path / "small-2"

    def test_a_place_that_cannot_be_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(ValueError, match="cannot write to"), claimed(tmp_path / "file" / "x"):
            pass


class TestNewest:
    def test_the_highest_number_counts_as_a_number(self, tmp_path: Path) -> None:
        assert newest(tmp_path / "small") is None
        for number in range(1, 12):
            name = "small" if number == 1 else f"small-{number}"
            made = with_study(tmp_path / name)
            assert newest(tmp_path / "small") == made

    def test_a_folder_without_a_study_is_passed_over(self, tmp_path: Path) -> None:
        out = with_study(tmp_path / "small")
        (tmp_path / "small-2").mkdir()
        assert newest(out) == out
        third = with_study(tmp_path / "small-3")
        assert newest(out) == third

    def test_a_gap_ends_the_row(self, tmp_path: Path) -> None:
        out = with_study(tmp_path / "small")
        with_study(tmp_path / "small-3")
        assert newest(out) == out
