from __future__ import annotations

import math
from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from rlprompt.data.values import canonical, class_name, is_code, plain, text_of, texts_of


class TestText:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("as it is ", "as it is "),
            ("", ""),
            (None, ""),
            (math.nan, ""),
            (np.float32("nan"), ""),
            (Decimal("nan"), ""),
            (np.datetime64("NaT"), ""),
            (0, "0"),
            (1.5, "1.5"),
            (44.0, "44"),
            (np.float32(-3), "-3"),
            ("44.0", "44.0"),
            (1e22, "1e+22"),
            (math.inf, "Infinity"),
            (True, "true"),
            (np.bool_(True), "true"),
            (["a", 1], '["a", 1]'),
            (np.array(["a"]), '["a"]'),
            ({"a": None}, '{"a": null}'),
            (np.int64(3), "3"),
            (np.str_("a"), "a"),
            (date(2024, 2, 29), "2024-02-29"),
        ],
    )
    def test_values_become_text(self, value: Any, text: str) -> None:
        assert text_of(value) == text

    def test_bytes_are_no_text(self) -> None:
        with pytest.raises(TypeError, match="bytes, not text"):
            text_of(b"ab")

    def test_what_pandas_has_for_missing_values_is_missing(self) -> None:
        pandas = pytest.importorskip("pandas")
        assert [plain(value) for value in (pandas.NA, pandas.NaT)] == [None, None]

    @pytest.mark.parametrize(
        ("value", "texts"),
        [
            ("Paris", ("Paris",)),
            (["Paris", " paris ", "Paris"], ("Paris", "paris")),
            (np.array(["Paris", "paris"], dtype=object), ("Paris", "paris")),
            (["Paris", None, math.nan, ""], ("Paris",)),
            ((1, 2.5), ("1", "2.5")),
            ({"text": ["Paris"], "answer_start": [3]}, ("Paris",)),
            ([], ()),
            (None, ()),
        ],
    )
    def test_a_list_is_several_texts(self, value: Any, texts: tuple[str, ...]) -> None:
        assert texts_of(value) == texts


class TestClassNames:
    @pytest.mark.parametrize(
        ("value", "name"),
        [
            *((one, "1") for one in (1, 1.0, np.int64(1), np.uint8(1), np.float32(1), "1")),
            *((true, "true") for true in (True, np.bool_(True))),
            (-1, "-1"),
            (1.5, "1.5"),
            (" good ", "good"),
            (math.nan, ""),
        ],
    )
    def test_a_class_has_one_name_whatever_its_type(self, value: Any, name: str) -> None:
        assert class_name(value) == name

    def test_the_type_of_a_column_changes_no_label(self) -> None:
        labels = ["1.0", "-2.00", "TRUE", "False", "1.5", "fine", "1e3", "007"]
        assert [canonical(label) for label in labels] == [
            *("1", "-2", "true", "false", "1.5", "fine", "1e3", "007")
        ]

    def test_numbers_and_truth_values_are_codes(self) -> None:
        labels = ["1", "1.0", "True", "-1", "1.5", "one", "", "1 star"]
        assert [is_code(label) for label in labels] == [True] * 4 + [False] * 4
