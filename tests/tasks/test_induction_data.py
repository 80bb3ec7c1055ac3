from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from rlprompt.tasks import induction_data as facts
from rlprompt.tasks.induction_data import Fact, in_words

TABLES: dict[Callable[[], Sequence[Fact]], int] = {
    facts.antonyms: 130,
    facts.plurals: 110,
    facts.past_tenses: 140,
    facts.capitals: 140,
    facts.number_words: 208,
    facts.animal_pairs: 250,
    facts.sums: 297,
}
every_table = pytest.mark.parametrize("table", TABLES, ids=lambda table: str(table.__name__))


@every_table
def test_there_are_enough_of_them_each_once(table: Callable[[], Sequence[Fact]]) -> None:
    questions = [question.casefold() for question, _ in table()]
    assert len(questions) >= TABLES[table]
    assert [question for question, n in Counter(questions).items() if n > 1] == []


@every_table
def test_they_are_plain_text(table: Callable[[], Sequence[Fact]]) -> None:
    for text in (part for fact in table() for part in fact):
        assert re.fullmatch(r"[A-Za-z0-9]+([ ,+-]+[A-Za-z0-9]+)*", text), text


@every_table
def test_they_are_the_same_every_time(table: Callable[[], Sequence[Fact]]) -> None:
    assert list(table()) == list(table())


def test_no_opposite_is_asked_for_the_other_way_round() -> None:
    asked, answers = zip(*facts.antonyms(), strict=True)
    assert not set(asked) & set(answers)


@pytest.mark.parametrize(
    ("table", "question", "answer"),
    [
        (facts.antonyms, "introvert", "extrovert"),
        (facts.antonyms, "expected", "unexpected"),
        (facts.plurals, "knife", "knives"),
        (facts.plurals, "giraffe", "giraffes"),
        (facts.past_tenses, "begin", "began"),
        (facts.past_tenses, "occur", "occurred"),
        (facts.capitals, "Australia", "Canberra"),
        (facts.capitals, "Papua New Guinea", "Port Moresby"),
        (facts.capitals, "Zimbabwe", "Harare"),
        (facts.number_words, "99", "ninety-nine"),
        (facts.number_words, "90000", "ninety thousand"),
        (facts.sums, "0 + 0", "0"),
    ],
)
def test_some_of_them(table: Callable[[], Sequence[Fact]], question: str, answer: str) -> None:
    assert dict(table())[question] == answer


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (20, "twenty"),
        (21, "twenty-one"),
        (800, "eight hundred"),
        (11_000, "eleven thousand"),
        (99_000, "ninety-nine thousand"),
    ],
)
def test_numbers_in_words(number: int, words: str) -> None:
    assert in_words(number) == words


@pytest.mark.parametrize("number", [-1, 101, 1100, 2001, 100_000])
def test_numbers_that_people_write_in_several_ways_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"{number} is neither"):
        in_words(number)


def test_sums_add_up() -> None:
    for question, answer in facts.sums():
        first, second = question.split(" + ")
        assert int(first) + int(second) == int(answer)


@pytest.mark.parametrize(("table", "between"), [(facts.sums, "+"), (facts.animal_pairs, ",")])
def test_pairs_come_in_one_order_only_and_either_order_is_common(
    table: Callable[[], Sequence[Fact]], between: str
) -> None:
    pairs = [[part.strip() for part in question.split(between)] for question, _ in table()]
    assert len({frozenset(pair) for pair in pairs}) == len(pairs)
    first = [answer == pair[0] for pair, (_, answer) in zip(pairs, table(), strict=True)]
    swapped = first if between == "," else [int(a) > int(b) for a, b in pairs]
    assert 0.4 < sum(swapped) / len(swapped) < 0.6


def test_an_animal_is_larger_than_all_that_it_is_larger_than() -> None:
    """The answers agree with one order of all animals."""
    larger = {(set(q.split(", ")) - {a}).pop() + ">" + a for q, a in facts.animal_pairs()}
    for one in list(larger):
        small, large = one.split(">")
        assert f"{large}>{small}" not in larger
    assert {"ant>bee", "cat>wolf", "elephant>blue whale", "mouse>rat"} <= larger


def test_words_are_words() -> None:
    words = facts.words()
    assert len(words) == len(set(words)) >= 200
    assert all(re.fullmatch("[a-z]{3,8}", word) for word in words)
