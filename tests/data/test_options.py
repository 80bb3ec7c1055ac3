"""From where answers of multiple choice are counted is never guessed silently."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from rlprompt.data.examples import Splits
from rlprompt.data.load import load_splits
from rlprompt.data.options import Options, Places

NAMES = ("iron", "tin", "lead", "zinc", "gold")
# What counts from 1, each with the number of options of its row: 4 in all, or 2 to 5.
EQUAL = [(1 + i % 4, 4) for i in range(40)]
UNEQUAL = [(1 + i % (2 + i % 4), 2 + i % 4) for i in range(40)]


def read(answers: Sequence[tuple[Any, int]], **settings: Any) -> Splits:
    rows = [
        {"q": f"{i}: which?", "choices": list(NAMES[:n]), "answer": answer}
        for i, (answer, n) in enumerate(answers)
    ]
    return load_splits(
        rows, None, text=["q"], label="answer", options="choices", shots=2, **settings
    )


def labels(splits: Splits) -> dict[int, str]:
    found = [one for part in splits.parts().values() for one in part]
    return {int(one.fields["q"].partition(":")[0]): one.label for one in found}


@pytest.mark.parametrize("kind", [int, str, float])
@pytest.mark.parametrize("answers", [EQUAL, UNEQUAL], ids=["4 options", "2 to 5 options"])
@pytest.mark.parametrize("on_bad_rows", ["error", "skip"])
def test_answers_counted_from_1_are_refused_until_that_is_said(
    kind: type, answers: list[tuple[int, int]], on_bad_rows: str
) -> None:
    given = [(kind(answer), n) for answer, n in answers]
    where = 3 if answers is EQUAL else next(i for i, (a, n) in enumerate(answers) if a == n)
    message = (
        rf"examples\[{where}\] has the answer '{answers[where][0]}' of {answers[where][1]} "
        "options, as where they are counted from 1, and no row has the answer 0: "
        "set answers_from: 1, or 0"
    )
    with pytest.raises(ValueError, match=message) as refused:
        read(given, on_bad_rows=on_bad_rows)
    assert "skip" not in str(refused.value)
    made = read(given, on_bad_rows=on_bad_rows, answers_from=1)
    assert labels(made) == {i: NAMES[answer - 1] for i, (answer, _) in enumerate(answers)}
    assert not made.notes


def test_a_bad_row_among_answers_from_0_is_left_out_once_that_is_said() -> None:
    answers = [(i % 4, 4) for i in range(12)] + [(4, 4)]
    message = r"\[12\] has the answer '4' of 4 options.* but other rows have the answer 0: mend"
    with pytest.raises(ValueError, match=message):
        read(answers, on_bad_rows="skip")
    with pytest.raises(ValueError, match=r"'4', which is none of its 4 options.*on_bad_rows: skip"):
        read(answers, answers_from=0)
    made = read(answers, answers_from=0, on_bad_rows="skip")
    assert labels(made) == {i: NAMES[i % 4] for i in range(12)}


def test_from_1_the_answer_0_is_a_bad_row() -> None:
    with pytest.raises(ValueError, match="a place from 1 to 4, or an option's text"):
        read([*EQUAL, (0, 4)], answers_from=1)
    with pytest.raises(ValueError, match="answers_from is 2; give 0 or 1"):
        read(EQUAL, answers_from=2)


def test_answers_that_show_nothing_get_a_note() -> None:
    answers = [(1 + i % 3, 4) for i in range(11)]
    made = read(answers)
    assert labels(made)[0] == "tin"
    assert any("none of 11 answers is 0" in note for note in made.notes)
    assert not read([(i % 4, 4) for i in range(11)]).notes
    assert not read(answers, answers_from=0).notes


def test_few_answers_without_a_0_get_none_where_they_have_many_options() -> None:
    options = Options(tuple(map(str, range(10, 20))))
    for n, least in ((2, 5), (4, 11), (10, 29)):  # (1 - 1 / n) ** least is below 0.05
        places = Places()
        for i in range(least):
            assert not places.remark()
            places.see(Options(options.texts[:n]), 1 + i % (n - 1), f"row {i}")
        assert f"none of {least} answers is 0" in places.remark()


def test_a_part_of_its_own_shows_it_too() -> None:
    def rows(name: str, answers: Sequence[int]) -> list[dict[str, Any]]:
        return [
            {"q": f"{name} {i}", "choices": list(NAMES[:4]), "answer": answer}
            for i, answer in enumerate(answers)
        ]

    data = {"train": rows("a", [1, 2]), "dev": rows("b", [2, 3]), "test": rows("c", [1, 4, 2])}
    with pytest.raises(ValueError, match="set answers_from: 1"):
        load_splits(data, None, text=["q"], label="answer", options="choices")


@pytest.mark.parametrize("answers", ["ABCD", NAMES[:4]], ids=["letters", "texts"])
def test_letters_and_texts_need_nothing(answers: Sequence[str]) -> None:
    for first in (None, 0, 1):
        made = read([(answers[i % 4], 4) for i in range(12)], answers_from=first)
        assert labels(made) == {i: NAMES[i % 4] for i in range(12)}
        assert not made.notes


def test_numbers_that_are_options_are_not_read_in_two_ways() -> None:
    def made(answers: Sequence[Any], **settings: Any) -> Splits:
        rows = [
            {"q": f"{i}: which?", "choices": ["1", "2", "3", "4"], "answer": answer}
            for i, answer in enumerate(answers)
        ]
        return load_splits(
            rows, None, text=["q"], label="answer", options="choices", shots=1, **settings
        )

    with pytest.raises(ValueError, match=r"of one and no place, and .*give letters in all rows"):
        made([1, 2, 3, 4], on_bad_rows="skip")
    assert labels(made([1, 2, 3, 4], answers_from=1)) == {0: "1", 1: "2", 2: "3", 3: "4"}
    places = made([0, 1, 2, 3])
    assert labels(places) == {0: "1", 1: "2", 2: "3", 3: "4"}
    assert any("numbers are read as places" in note for note in places.notes)
