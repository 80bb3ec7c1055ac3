from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlprompt.data.examples import Example
from rlprompt.tasks.answer_words import tokens
from rlprompt.tasks.metrics import METRICS, metric


def value(name: str, output: str, reference: str = "") -> float:
    return metric(name)([output], [reference])[0]


class TestSquad:
    # What evaluate-v1.1.py gives.
    @pytest.mark.parametrize(
        ("output", "reference", "exact", "f1"),
        [
            ("The Denver Broncos!", "denver broncos", 1.0, 1.0),
            ("Denver", "Denver Broncos", 0.0, 2 / 3),
            ("the Broncos of Denver", "Denver Broncos", 0.0, 0.8),
            ("a b b", "b b b", 0.0, 0.8),
            ("Santa Clara, California", "Levi's Stadium", 0.0, 0.0),
            ("an anthem", "anthem", 1.0, 1.0),
            ("U.S.", "us", 1.0, 1.0),
            ("", "gold", 0.0, 0.0),
        ],
    )
    def test_gives_the_published_values(
        self, output: str, reference: str, exact: float, f1: float
    ) -> None:
        assert value("exact_match", output, reference) == exact
        assert value("token_f1", output, reference) == pytest.approx(f1)

    def test_two_answers_of_nothing_agree(self) -> None:
        assert value("token_f1", "the", "") == 1.0
        assert value("exact_match", " ", "") == 1.0


class TestReferencesThatSquadEmpties:
    """SQuAD's normalisation takes articles and punctuation, which may be the answer."""

    @pytest.mark.parametrize(
        ("output", "reference", "exact", "held"),
        [
            ("", "A", 0.0, 0.0),
            ("The", "A", 0.0, 0.0),
            ("B", "A", 0.0, 0.0),
            ("Wrong: B", "A", 0.0, 0.0),
            ("This is a B", "A", 0.0, 0.0),
            ("a", "A", 1.0, 0.0),  # in a sentence that is an article
            ("(A).", "A", 1.0, 1.0),
            ("It is A.", "A", 0.0, 1.0),
            ("C", "A, C", 0.0, 0.0),
            ("C T", "C A T", 0.0, 0.0),
            ("A and the", "the", 0.0, 1.0),
            ("\u578b", "A\u578b", 0.0, 0.0),  # a blood group
            ("-", "+", 0.0, 0.0),
            ("<=", "<", 0.0, 0.0),
            ("", "+", 0.0, 0.0),
            ("-", "\u2212", 1.0, 1.0),
            ("\u2013 ", "-", 1.0, 1.0),
            (" + ", "+", 1.0, 1.0),
            ("the sign <=", "<=", 0.0, 1.0),
        ],
    )
    def test_are_compared_with_what_it_takes(
        self, output: str, reference: str, exact: float, held: float
    ) -> None:
        assert value("exact_match", output, reference) == exact
        assert value("contains", output, reference) == held

    def test_words_in_common_are_those_that_it_takes(self) -> None:
        found = [value("token_f1", output, "A") for output in ("", "The", "B", "a", "It is A.")]
        assert found == [0.0, 0.0, 0.0, 1.0, 0.5]

    @pytest.mark.parametrize(
        ("output", "reference", "worth"),
        [
            ("5", "-5", 0.0),
            ("-5", "5", 0.0),
            ("\u22125.", "-5", 1.0),
            ("\u20135", "-5", 1.0),
            ("+5", "5", 1.0),
            ("-$5", "$-5", 1.0),
            ("15", "1.5", 0.0),
            ("1.5", "15", 0.0),
            ("1,5", "15", 0.0),
            ("It is 1.5.", "it is 1.5", 1.0),
            ("1,000", "1000", 1.0),
            ("34", "3/4", 0.0),
            ("530", "5:30", 0.0),
            ("3/4!", "3/4", 1.0),
            ("555-1234", "5551234", 1.0),  # a hyphen is not a sign
            ("No. 5", "No 5", 1.0),
            (".5", "5", 0.0),
        ],
    )
    def test_a_number_is_not_robbed_of_sign_and_point(
        self, output: str, reference: str, worth: float
    ) -> None:
        for name in ("exact_match", "token_f1", "contains"):
            assert value(name, output, reference) == pytest.approx(worth)


class TestBeyondEnglish:
    @pytest.mark.parametrize(
        ("name", "output", "reference", "worth"),
        [
            ("exact_match", "\u5317\u4eac\u3002", "\u5317\u4eac", 1.0),
            ("exact_match", "\u201cParis\u201d", "Paris", 1.0),
            ("exact_match", "«Москва»", "москва", 1.0),
            ("exact_match", "Levi\u2019s Stadium\u2026", "Levi's Stadium", 1.0),
            ("exact_match", "1990\u20131995", "1990-1995", 1.0),
            ("exact_match", "cafe\u0301", "caf\u00e9", 1.0),
            ("exact_match", "gr er", "gr\u00f6\u00dfer", 0.0),
            ("exact_match", "\u4e0a\u6d77", "\u5317\u4eac", 0.0),
            ("contains", "\u9996\u90fd\u662f\u5317\u4eac\u3002", "\u5317\u4eac", 1.0),
            ("contains", "\u6211\u6709iPhone\u624b\u673a", "iPhone", 1.0),
            ("contains", "«Москва»", "Москва", 1.0),
            ("contains", "Москва-сити", "Моск", 0.0),
            ("contains", "\uff11\uff15", "\uff15", 0.0),  # wide digits are one number
            # Two characters of three are those of the two: 2 * 2 / (3 + 2).
            ("token_f1", "\u5317\u4eac\u5e02", "\u5317\u4eac", 0.8),
            ("rouge1", "gr er", "gr\u00f6\u00dfer", 0.0),
            ("rougeL", "мама мыла раму", "мама мыла раму", 1.0),
            ("rouge2", "мама мыла раму", "мама мыла окно", 0.5),
            ("rouge1", "\u5317\u4eac\u5e02", "\u5317\u4eac", 0.8),
            ("rougeL", "\u0915\u093f\u0924\u093e\u092c", "\u0915\u093f\u0924\u093e\u092c", 1.0),
            (
                "bleu",
                "\u6211\u4f4f\u5728\u5317\u4eac\u3002",
                "\u6211\u4f4f\u5728\u5317\u4eac\u3002",
                1.0,
            ),
            # 5 of 6 characters, 3 of 5 pairs, 1 of 4 threes; 0 of 3 fours, smoothed to half of one.
            (
                "bleu",
                "\u6211\u4f4f\u5728\u5357\u4eac\u3002",
                "\u6211\u4f4f\u5728\u5317\u4eac\u3002",
                (5 / 6 * 3 / 5 * 1 / 4 * 1 / 6) ** 0.25,
            ),
        ],
    )
    def test_words_are_those_of_the_script(
        self, name: str, output: str, reference: str, worth: float
    ) -> None:
        assert value(name, output, reference) == pytest.approx(worth, abs=1e-6)

    def test_a_tokeniser_of_bleu_may_be_named(self) -> None:
        by_words = metric({"name": "bleu", "tokenize": "13a"})
        by_characters = metric({"name": "bleu", "tokenize": "char"})
        one, other = Example({}, "\u3053\u308c\u306f\u672c"), "\u3053\u308c\u306f\u7d19"
        assert by_words.of([other], [one]) == [0.0]
        assert by_characters.of([other], [one]) == metric("bleu").of([other], [one])
        # 3 of 4 characters, 2 of 3 pairs, 1 of 2 threes, none of one four, smoothed to a half.
        (found,) = by_characters.of([other], [one])
        assert found == pytest.approx((3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25)
        assert by_words.fingerprint != by_characters.fingerprint

    @given(st.text(st.sampled_from("aB_Z 09.,'-\u2019\u201c\u2026\u00b2\n"), max_size=20))
    def test_tokens_without_other_letters_are_those_of_rouge_score(self, text: str) -> None:
        from rouge_score.tokenize import tokenize

        assert tokens(text) == tokenize(text, None)


class TestStrictMatch:
    def test_nothing_is_ignored_that_is_not_said(self) -> None:
        assert value("strict_match", " Paris\n", "Paris") == 1.0
        for output in ("paris", "Paris.", "The Paris", "Paris  X"):
            assert value("strict_match", output, "Paris") == 0.0

    @pytest.mark.parametrize(
        ("settings", "output", "reference", "worth"),
        [
            ({"ignore_case": True}, "PARIS", "Paris", 1.0),
            ({"ignore_case": True}, "Paris.", "Paris", 0.0),
            ({"ignore_punctuation": True}, "U.S.", "US", 1.0),
            ({"ignore_punctuation": True}, "us", "US", 0.0),
            ({"ignore_numbers": True}, "room 12", "room 7", 1.0),
            # GSM8K's of the harness.
            (
                {"ignore_case": True, "regexes_to_ignore": [",", r"\$", "(?s).*#### ", r"\.$"]},
                "$1,234.",
                "6 * 7\n#### 1234",
                1.0,
            ),
        ],
    )
    def test_what_is_said_is_ignored_on_both_sides(
        self, settings: dict[str, Any], output: str, reference: str, worth: float
    ) -> None:
        found = metric({"name": "strict_match", **settings})
        assert found.of([output], [Example({}, reference)]) == [worth]
        assert found.fingerprint != metric("strict_match").fingerprint


def test_contains_looks_for_whole_words() -> None:
    assert value("contains", "It was Paris, France.", "paris") == 1.0
    assert value("contains", "Comparison", "paris") == 0.0
    assert value("contains", "the new York times", "New York") == 1.0
    assert value("contains", "anything", "") == 1.0


def test_a_pattern_is_searched_for() -> None:
    assert value("regex:^[0-9]+$", "42") == 1.0
    assert value("regex:^[0-9]+$", "42 or so") == 0.0
    assert value("regex:a:b", "xa:by") == 1.0
    assert value("regex:z$", "a" * 5000 + "z") == 0.0  # only the first 2,000 characters count


class TestNumber:
    @pytest.mark.parametrize(
        ("output", "reference", "worth"),
        [
            ("42", "42.0", 1.0),
            ("It is 41, no: 42.", "42", 1.0),
            ("so 1,234,567 in all", "1234567", 1.0),
            ("-7", "7", 0.0),
            ("\u22127", "-7", 1.0),
            ("\u20137", "-7", 1.0),
            ("\u20107", "-7", 1.0),
            ("-7", "\u20117", 1.0),
            ("\u2012$7", "-$7", 1.0),
            ("3\u20137", "7", 1.0),
            ("$-7", "-$7", 1.0),
            ("3-7", "7", 1.0),  # no sign between numbers
            ("1.5e3 metres", "1500", 1.0),
            (".5", "0.50", 1.0),
            ("forty-two", "42", 0.0),
            ("", "0", 0.0),
            ("He has 5.\n#### 42 of 99", "6 * 7 = 42\n#### 42", 1.0),
            ("12,34", "34", 1.0),  # a comma stands before three digits
        ],
    )
    def test_the_last_number_counts_or_the_marked_one(
        self, output: str, reference: str, worth: float
    ) -> None:
        assert value("number", output, reference) == worth

    def test_the_first_one_where_that_is_asked_for(self) -> None:
        assert metric({"name": "number", "take": "first"}).of(
            ["42 of 99", "#### 42 of 99"], [Example({}, "42")] * 2
        ) == [1.0, 1.0]

    def test_a_tolerance_is_kept_to_the_last_digit(self) -> None:
        close = metric({"name": "number", "tolerance": 0.01})
        values = close.of(["3.15", "3.13", "3.151", "3.1399"], [Example({}, "3.14")] * 4)
        assert values == [1.0, 1.0, 0.0, 1.0]
        assert close.fingerprint != metric("number").fingerprint

    @pytest.mark.parametrize(
        ("output", "reference", "worth"),
        [
            ("0", "1 000 000", 0.0),
            ("1000000", "1 000 000", 1.0),
            ("1\u00a0000 000", "1000000", 1.0),
            ("so 1\u202f234,", "1234", 1.0),
            ("1\u2009234.5", "1234.5", 1.0),
            ("in 2020 100 came", "100", 1.0),  # no thousands
            ("1.234.567", "0.567", 0.0),
            ("3/4", "4", 0.0),
            ("at 10:30", "30", 0.0),
            ("5\u00bd", "5", 0.0),
            ("10^3", "3", 0.0),
            ("No.5", "5", 1.0),
        ],
    )
    def test_half_of_a_number_is_none(self, output: str, reference: str, worth: float) -> None:
        assert value("number", output, reference) == worth

    @pytest.mark.parametrize("reference", ["1,5", "3 of 4", "between 2 and 3/4", "10,000,00"])
    def test_a_reference_of_several_numbers_is_told(self, reference: str) -> None:
        said = "where neither `####` nor `take` (first or last) says which of its numbers counts"
        example = Example({}, reference)
        assert metric("number").check(example) == f"the reference {reference!r}, {said}"
        assert metric("number").of(["4", "5"], [example] * 2) == [0.0, 0.0]
        assert metric("number").check(Example({}, f"{reference}\n#### 7")) == ""

    def test_take_says_which_one_of_a_reference_counts(self) -> None:
        for take, worth in (("first", 0.0), ("last", 1.0)):
            found = metric({"name": "number", "take": take})
            assert found.check(Example({}, "3 of 4")) == ""
            assert found.of(["4"], [Example({}, "3 of 4")]) == [worth]

    @pytest.mark.parametrize("reference", ["3/4", "1.234.567", "1:30", "5\u00bd", "10\u00b2"])
    def test_a_reference_in_another_format_is_told(self, reference: str) -> None:
        said = f"the reference {reference!r}, which the metric number cannot read"
        assert metric("number").check(Example({}, reference)) == said
        named = metric({"name": "number", "take": "last"})
        assert named.check(Example({}, reference)) == said

    def test_a_number_that_comes_twice_is_one(self) -> None:
        assert metric("number").check(Example({}, "7 apples, 7.0 in all")) == ""

    def test_a_reference_without_a_number_is_told(self) -> None:
        assert "'two', which the metric number cannot read" in metric("number").check(
            Example({}, "two")
        )
        assert metric("number").check(Example({}, ["two", "2"])) == ""  # type: ignore[arg-type]


class TestJson:
    @pytest.fixture
    def schema(self, tmp_path: Path) -> Path:
        path = tmp_path / "schema.json"
        path.write_text(
            json.dumps(
                {
                    "type": "object",
                    "required": ["n"],
                    "properties": {"n": {"$ref": "#/$defs/n"}},
                    "$defs": {"n": {"type": "integer"}},
                }
            )
        )
        return path

    @pytest.mark.parametrize(
        ("output", "parses"),
        [('{"n": 1}', 1.0), (" null ", 1.0), ("{n: 1}", 0.0), ("", 0.0), ("NaN", 0.0)],
    )
    def test_json_parses(self, output: str, parses: float) -> None:
        assert value("json", output) == parses

    def test_nesting_without_end_is_no_json(self) -> None:
        assert value("json", "[" * 100_000) == 0.0

    @pytest.mark.parametrize(
        ("output", "valid"), [('{"n": 1}', 1.0), ('{"n": "1"}', 0.0), ("[]", 0.0), ("{", 0.0)]
    )
    def test_a_schema_is_kept(self, schema: Path, output: str, valid: float) -> None:
        assert value(f"json:{schema}", output) == valid

    def test_another_schema_is_another_metric(self, schema: Path) -> None:
        before = metric(f"json:{schema}").fingerprint
        schema.write_text("{}")
        assert metric(f"json:{schema}").fingerprint != before

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("{", "is not JSON"),
            ('{"type": "number of sheep"}', "is not a JSON schema"),
            ('{"items": {"$ref": "https://example.com/x.json"}}', "nothing is fetched while"),
        ],
    )
    def test_a_broken_schema_is_refused(self, schema: Path, content: str, message: str) -> None:
        schema.write_text(content)
        with pytest.raises(ValueError, match=message):
            metric(f"json:{schema}")


class TestFromPackages:
    def test_bleu_of_a_sentence(self) -> None:
        # Precisions 5/6, 3/5, 2/4 and 1/3; as long as the reference.
        found = value("bleu", "the cat sat on a mat", "the cat sat on the mat")
        assert found == pytest.approx((5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25, abs=1e-6)

    def test_chrf_of_a_sentence(self) -> None:
        assert value("chrf", "abc", "abc") == pytest.approx(1.0)
        # Letters of "ab" in "ac": one of two; no pair is the same: F2 0.5 and 0, their mean.
        assert value("chrf", "ab", "ac") == pytest.approx(0.25)

    def test_rouge(self) -> None:
        output, reference = "the cat was found", "the cat was under the bed"
        assert value("rouge1", output, reference) == pytest.approx(2 * 3 / (4 + 6))
        assert value("rouge2", output, reference) == pytest.approx(2 * 2 / (3 + 5))
        assert value("rougeL", "found the cat", reference) == pytest.approx(2 * 2 / (3 + 6))

    @pytest.mark.parametrize(
        ("name", "package"), [("bleu", "sacrebleu"), ("rougeL", "rouge_score.rouge_scorer")]
    )
    def test_a_missing_package_is_named_with_how_to_get_it(
        self, monkeypatch: pytest.MonkeyPatch, name: str, package: str
    ) -> None:
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ValueError, match=r"pip install 'rlprompt\[metrics\]'"):
            metric(name)


words = st.lists(st.sampled_from(["a", "the", "cat", "Cat!", "sat", "mat", "é", ""]), max_size=6)


@pytest.mark.parametrize("name", [n for n in METRICS if n not in ("regex", "judge")])
@given(st.lists(st.tuples(words, words), min_size=1, max_size=4))
def test_every_answer_is_valued_by_itself_within_0_and_1(
    name: str, pairs: list[tuple[list[str], list[str]]]
) -> None:
    found = metric(name)
    outputs, references = ([" ".join(words) for words in side] for side in zip(*pairs, strict=True))
    values = found(outputs, references)
    assert all(0 <= v <= 1 for v in values)
    assert found(outputs[::-1], references[::-1]) == values[::-1]


OTHERS: list[Any] = ["regex:[0-9]", "json:SCHEMA", {"name": "bleu", "tokenize": "char"}]


@pytest.mark.parametrize(
    "spec", [*(n for n in METRICS if n not in ("regex", "judge")), *OTHERS], ids=str
)
def test_every_metric_can_be_sent_to_another_process(spec: Any, tmp_path: Path) -> None:
    """As Ray sends a task, before and after it was used."""
    (schema := tmp_path / "schema.json").write_text('{"type": "object", "required": ["n"]}')
    made = metric(spec.replace("SCHEMA", str(schema)) if isinstance(spec, str) else spec)
    pairs = ["the cat 7", '{"n": 1}'], ["a cat 7", "{}"]
    for _ in range(2):
        again = cloudpickle.loads(cloudpickle.dumps(made))
        assert again(*pairs) == made(*pairs)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("exactmatch", "did you mean 'exact_match'"),
        ("rouge7", "did you mean 'rouge"),
        ("bleu:4", "bleu takes nothing after a colon"),
        ("regex", "needs a pattern"),
        ("regex:(", "not a regular expression"),
        ("json:/nowhere.json", "the schema cannot be read"),
        ("judge", "judge has no model; say which one judges"),
        ({"tolerance": 1}, "a metric has a name"),
        ({"name": "number", "tolerance": -0.1}, "tolerance is -0.1; give a number of 0 or more"),
        ({"name": "number", "tolerance": "1"}, "tolerance is '1'; give a number of 0 or more"),
        ({"name": "number", "take": "any"}, "take is 'any'; give last or first"),
        ({"name": "number", "tolerence": 1}, "no setting 'tolerence'; did you mean 'tolerance'"),
        ({"name": "chrf", "order": 2}, "chrf has no setting 'order'; it has none"),
        ({"name": "bleu", "tokenize": "zhh"}, "tokenize is 'zhh'; did you mean 'zh'"),
        ({"name": "strict_match", "ignore_case": "no"}, "ignore_case is 'no'; give true or false"),
        ({"name": "strict_match", "regexes_to_ignore": ","}, "is ','; give a list of texts"),
        ({"name": "strict_match", "regexes_to_ignore": [1]}, r"is \[1\]; give a list of texts"),
        ({"name": "strict_match", "regexes_to_ignore": ["("]}, "has no regular expression: miss"),
    ],
)
def test_a_metric_that_cannot_be_is_refused(name: str | dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metric(name)


class TestSeveralAnswers:
    """An answer is held against all references that are right."""

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("exact_match", 1.0),
            ("contains", 1.0),
            ("token_f1", 1.0),
            ("rouge1", 1.0),
            ("rougeL", 1.0),
            ("chrf", 1.0),
        ],
    )
    def test_the_best_counts(self, name: str, value: float) -> None:
        right = ("the City of Light", "Paris, France")
        assert metric(name)(["Paris, France"], [right]) == [pytest.approx(value)]

    def test_the_best_is_one_of_them_and_not_their_mean(self) -> None:
        # Against the first: 1 word of 2 and 1 in common, 2 / 3; against the second 2 / 4.
        (found,) = metric("token_f1")(["red"], [("red fox", "red fox jumps")])
        assert found == pytest.approx(2 / 3)

    def test_bleu_takes_all_references_together(self) -> None:
        """Each half of the answer stands in another reference: clipped counts are pooled."""
        answer = "the cat sat on the mat today"
        alone = metric("bleu")([answer], ["the cat sat"])[0]
        both = metric("bleu")([answer], [("the cat sat", "on the mat today")])[0]
        # 6 of 7 words (no reference has "the" twice), 5 of 6 pairs, 3 of 5 triples, 1 of 4 fours;
        # no reference is longer, so no penalty.
        assert both == pytest.approx((6 / 7 * 5 / 6 * 3 / 5 * 1 / 4) ** 0.25)
        assert both > alone
