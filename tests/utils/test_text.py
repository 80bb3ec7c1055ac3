"""Text for sentences, names of files, and pages: what hostile, empty, one and many come out as."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlprompt._utils.text import (
    counted,
    error_line,
    fence,
    file_part,
    listed,
    listed_briefly,
    slugs,
    spans,
    visible,
)

HOSTILE = "a\u202eb\u200bc\x00d\u2028e\n\ufe0f\u3164"


class TestVisible:
    def test_what_cannot_be_seen_is_an_escape(self) -> None:
        assert visible(HOSTILE) == r"a\u202eb\u200bc\x00d\u2028e\n\ufe0f\u3164"

    def test_what_can_be_seen_stays(self) -> None:
        assert visible("") == ""
        assert visible(" <b>été 日本 🙂 ") == " <b>été 日本 🙂 "

    @given(st.text())
    def test_it_is_one_line_of_characters_with_ink(self, text: str) -> None:
        shown = visible(text)
        assert shown.isprintable()
        assert len(shown.splitlines()) <= 1

    @given(st.text())
    def test_spans_are_the_same_text_cut(self, text: str) -> None:
        found = spans(text)
        assert "".join(span.text for span in found) == visible(text)
        assert all(span.text.strip(" ") == "" for span in found if span.kind == "space")
        assert all(one.kind != other.kind for one, other in pairwise(found))


class TestErrorLine:
    @pytest.mark.parametrize(
        ("error", "line"),
        [
            (ValueError("no spread"), "ValueError: no spread"),
            (ValueError("no\n\n  spread\r\nat\tall "), "ValueError: no spread at all"),
            (KeyError("x"), "KeyError: 'x'"),
            (ZeroDivisionError(), "ZeroDivisionError:"),
        ],
    )
    def test_it_says_kind_and_message_on_one_line(self, error: Exception, line: str) -> None:
        assert error_line(error) == line


class TestListed:
    @pytest.mark.parametrize(
        ("names", "text"),
        [
            ([], ""),
            (["a"], "a"),
            (["a", "b"], "a and b"),
            (["a", "b", "c"], "a, b and c"),
        ],
    )
    def test_none_one_and_many(self, names: list[str], text: str) -> None:
        assert listed(names) == text
        assert listed(iter(names)) == text
        assert listed_briefly(iter(names)) == text

    def test_no_name_is_left_out_unless_it_is_brief(self) -> None:
        names = [f"n{i}" for i in range(40)]
        assert re.findall(r"n\d+", listed(names)) == names
        assert listed_briefly(names).endswith("n10, n11 and 28 more")

    def test_as_many_as_fit_are_all_there(self) -> None:
        assert listed_briefly("abc", most=3) == "a, b and c"
        assert listed_briefly("abcd", most=3) == "a, b, c and 1 more"


def test_one_thing_has_no_plural() -> None:
    assert [counted(n, "seed") for n in (0, 1, 2)] == ["0 seeds", "1 seed", "2 seeds"]


class TestNamesOfFiles:
    @given(st.text())
    def test_a_part_of_a_file_name_leads_to_no_other_folder(self, name: str) -> None:
        part = file_part(name)
        assert len(part) == len(name)
        assert not set(part) & set('/\\:*?"<>|\x00\n ')

    def test_what_is_plain_stays(self) -> None:
        assert file_part("ppo_soft-1.5=B") == "ppo_soft-1.5=B"
        assert file_part("") == ""

    @given(st.lists(st.text(), unique=True))
    def test_slugs_differ_and_are_plain(self, names: list[str]) -> None:
        found = slugs(names)
        assert list(found) == names
        assert len(set(found.values())) == len(names)
        assert all(re.fullmatch(r"[a-z0-9_-]+", slug) for slug in found.values())

    def test_a_slug_begins_with_its_parent(self) -> None:
        assert slugs(["SST 2", "日本"], "at") == {"SST 2": "at-sst-2", "日本": "at"}
        assert slugs(["", "!"]) == {"": "x", "!": "x-2"}


class TestFence:
    @pytest.mark.parametrize(
        ("text", "ticks"), [("", "`"), ("a", "`"), ("`", "``"), ("a``b`c", "```")]
    )
    def test_it_is_longer_than_any_run_in_the_text(self, text: str, ticks: str) -> None:
        assert fence(text) == ticks

    def test_it_has_a_least_length(self) -> None:
        assert fence("a`b", least=3) == "```"
        assert fence("a```b", least=3) == "````"
