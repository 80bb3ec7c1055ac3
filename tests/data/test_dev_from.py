"""A dev that is a copy of train is called that, and the ways on lead somewhere."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rlprompt.data.examples import Splits, repeats
from rlprompt.data.load import load_splits

CLASSES = ("bad", "good")


def part(name: str, n: int) -> list[dict[str, str]]:
    return [{"text": f"{name} {i}", "label": CLASSES[i % 2]} for i in range(n)]


def write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(f"{row['text']}\t{row['label']}\n" for row in [HEADER, *rows]))


HEADER = {"text": "text", "label": "label"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As the public 16-shot files of Subj: dev has the rows of train."""
    for name in ("train", "dev"):
        write(tmp_path / f"{name}.tsv", part("train", 32))
    write(tmp_path / "test.tsv", part("test", 40))
    return tmp_path


def load(source: Any, **options: Any) -> Splits:
    return load_splits(source, CLASSES, **{"shots": 4, **options})


def texts(splits: Splits, name: str) -> list[str]:
    return [example.fields["text"] for example in splits.parts()[name]]


class TestCopies:
    @pytest.mark.parametrize("on_bad_rows", ["error", "skip"])
    def test_a_copy_is_called_that(self, folder: Path, on_bad_rows: str) -> None:
        with pytest.raises(ValueError, match=r"^dev is a copy of train: 32 of 32 texts") as told:
            load(folder, on_bad_rows=on_bad_rows)
        assert "skip" not in str(told.value)

    def test_every_way_on_that_is_named_works(self, folder: Path) -> None:
        allowed = load(folder, on_leak="allow")
        assert allowed.dev == allowed.train
        assert load(folder, dev_from="train").parts().keys() == {"train", "dev", "test"}
        assert load(folder, dev_from="test").parts().keys() == {"train", "dev", "test"}
        assert len(load(folder / "test.tsv").test) == 40 - 16

    def test_a_copy_with_another_order_and_spacing_is_one(self, folder: Path) -> None:
        rows = [{**row, "text": row["text"].upper() + " "} for row in part("train", 32)]
        write(folder / "dev.tsv", rows[::-1])
        with pytest.raises(ValueError, match=r"^dev is a copy of train: 32 of 32"):
            load(folder)

    def test_a_test_that_is_a_copy_of_dev_is_named_as_well(self, folder: Path) -> None:
        write(folder / "dev.tsv", part("test", 40))
        with pytest.raises(ValueError, match=r"^test is a copy of dev: 40 of 40") as told:
            load(folder)
        assert "dev_from" not in str(told.value)

    def test_a_part_that_is_shared_may_be_left_out(self, folder: Path) -> None:
        write(folder / "dev.tsv", [*part("train", 3), *part("dev", 8)])
        with pytest.raises(
            ValueError,
            match=r"dev.tsv:2 repeats train.tsv:2; .*skip to leave 3 rows out, or on_leak: allow",
        ):
            load(folder)
        assert len(load(folder, on_bad_rows="skip").dev) == 8

    def test_leaving_out_is_not_advised_where_a_class_would_be_gone(self, folder: Path) -> None:
        write(folder / "dev.tsv", [*part("train", 4), *part("dev", 1)])
        with pytest.raises(ValueError, match="without its 4 bad rows too little is left") as told:
            load(folder)
        assert "skip" not in str(told.value)

    def test_leaving_out_is_not_advised_where_every_row_is_bad(self) -> None:
        rows = [{"text": f"t {i}", "label": f"{i % 2}"} for i in range(8)]
        with pytest.raises(ValueError, match="8 bad rows too little is left") as told:
            load(rows)
        assert "skip" not in str(told.value)


class TestDevFromTrain:
    def test_train_is_split_in_two_by_class(self, folder: Path) -> None:
        splits = load(folder, dev_from="train")
        for name in ("train", "dev"):
            assert Counter(e.label for e in splits.parts()[name]) == {"bad": 8, "good": 8}
        assert set(texts(splits, "train")) | set(texts(splits, "dev")) == {
            row["text"] for row in part("train", 32)
        }
        assert not list(repeats(splits.parts()))
        assert len(splits.test) == 40
        assert splits.notes == ("train was split in two: 16 for train, 16 for dev",)

    def test_the_seed_decides_and_no_dev_file_is_read(self, folder: Path) -> None:
        (folder / "dev.tsv").write_text("no table")
        splits = [load(folder, dev_from="train", seed=seed) for seed in (0, 0, 1)]
        assert splits[0] == splits[1] != splits[2]
        (folder / "dev.tsv").unlink()
        assert load(folder, dev_from="train") == splits[0]

    def test_an_odd_example_stays_in_train(self) -> None:
        splits = load({"train": part("a", 7), "test": part("t", 4)}, dev_from="train")
        assert [len(splits.train), len(splits.dev)] == [4, 3]

    def test_a_class_of_one_is_refused(self) -> None:
        with pytest.raises(ValueError, match="train has 1 examples of the class 'good', and dev"):
            load({"train": part("a", 3), "test": part("t", 4)}, dev_from="train")

    def test_without_classes(self) -> None:
        data = {"train": part("a", 6), "test": part("t", 4)}
        splits = load_splits(data, None, dev_from="train")
        assert [len(p) for p in splits.parts().values()] == [3, 3, 4]


class TestDevFromTest:
    def test_dev_is_drawn_and_the_rest_stays_in_order(self, folder: Path) -> None:
        splits = load(folder, dev_from="test", shots=4)
        assert texts(splits, "train") == [row["text"] for row in part("train", 32)]
        assert Counter(e.label for e in splits.dev) == {"bad": 4, "good": 4}
        rest = [row["text"] for row in part("test", 40) if row["text"] not in texts(splits, "dev")]
        assert texts(splits, "test") == rest
        assert splits.notes == ("dev was drawn from test: 8 of 40",)

    def test_a_rare_class_gives_half_and_that_is_said(self) -> None:
        test = [
            *part("t", 20),
            {"text": "rare 1", "label": "ugly"},
            {"text": "rare 2", "label": "ugly"},
        ]
        data = {"train": [*part("a", 4), {"text": "rare 3", "label": "ugly"}], "test": test}
        splits = load_splits(data, [*CLASSES, "ugly"], dev_from="test", shots=4)
        assert Counter(e.label for e in splits.dev) == {"bad": 4, "good": 4, "ugly": 1}
        assert splits.notes[1] == "test has 2 examples of the class 'ugly', of which 1 are in dev"


class TestElsewhere:
    @pytest.mark.parametrize("source", [part("a", 20), "movie-reviews"])
    def test_data_that_are_drawn_from_have_no_use_for_it(self, source: Any) -> None:
        labels = ("negative", "positive") if source == "movie-reviews" else CLASSES
        with pytest.raises(ValueError, match="dev_from is 'train', and these data are drawn from"):
            load_splits(source, labels, dev_from="train", shots=2)

    def test_anything_else_is_refused(self) -> None:
        with pytest.raises(ValueError, match="dev_from is 'dev'; give train or test"):
            load(part("a", 20), dev_from="dev")


def test_a_class_that_the_given_test_lacks_is_named() -> None:
    data = {"train": part("train", 8), "dev": part("dev", 8), "test": part("test", 9)[::2]}
    assert load(data).notes == (
        "test has no example of the class 'good', so its scores say nothing of that",
    )
    assert load({**data, "test": part("test", 9)}).notes == ()
