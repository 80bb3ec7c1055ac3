"""What the methods of a file are called."""

from __future__ import annotations

from typing import Any

import pytest

from rlprompt.config.schema import Config

FILE = {"name": "small", "model": "m", "task": "sst2", "budget": 8}
GREEDY = {"name": "greedy"}


def titles(*methods: dict[str, Any], begun: tuple[str, ...] = ()) -> list[str]:
    return list(Config.model_validate({**FILE, "optimisers": methods}).titled(begun))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "null"),
        (True, "true"),
        ([64, None], "64+null"),
        ([], "[]"),
        ({}, "{}"),
        ("", '""'),
        (1 / 3, "0.3333"),
        (2e-5, "2e-05"),
        (12345.0, "12345.0"),
        (1.0, "1.0"),
        (10**9, "1000000000"),
        ({"net_arch": [64], "ortho": False}, "net_arch:[64],ortho:false"),
        ({"kwargs": {"net_arch": [64]}}, 'kwargs:{"net_arch": [64]}'),
        ({"url": "http://a:8000/v1", "name": "org/it"}, "url:http://a:8000/v1,name:org/it"),
        ("in the/middle", "in the/middle"),
        ("/far/mine.py:Mine", "mine.py:Mine"),
        ({"found": "runs/best"}, "found:best"),
    ],
)
def test_a_setting_reads_as_in_a_file(value: Any, said: str) -> None:
    assert titles({**GREEDY, "x": value}) == [f"greedy x={said}"]


def test_two_that_differ_are_told_apart_by_as_much_as_it_takes() -> None:
    found = [{**GREEDY, "start": {"found": place}} for place in ("a/best", "b/best", "c/other")]
    assert titles(*found) == [
        "greedy start=found:a/best",
        "greedy start=found:b/best",
        "greedy start=found:other",
    ]
    deep = [{**GREEDY, "start": ["hand", {"found": f"/{x}/runs/best"}]} for x in "ab"]
    assert titles(*deep) == [f"greedy start=hand+found:{x}/runs/best" for x in "ab"]
    assert (
        titles({**GREEDY, "pool": 1 / 3}, {**GREEDY, "pool": 0.33333})[1] == "greedy pool=0.33333"
    )
    classes = [{"class": f"{x}/mine.py:Mine"} for x in "ab"]
    assert titles(*classes) == ["a/mine.py:Mine", "b/mine.py:Mine"]
    served = [{"name": "instructions", "proposer": {"url": f"http://{x}:8000/v1"}} for x in "ab"]
    assert titles(*served) == [f"instructions proposer=url:http://{x}:8000/v1" for x in "ab"]


@pytest.mark.parametrize("start", ["hand", {"found": "a/best"}])
def test_one_that_is_given_twice_is_refused(start: Any) -> None:
    with pytest.raises(ValueError, match=r"greedy start=.* is given twice"):
        titles(*[{**GREEDY, "start": start}] * 2)


def test_a_study_that_goes_on_keeps_the_titles_that_it_began_with() -> None:
    methods = (
        {"name": "cma-es", "dimension": None},
        {**GREEDY, "pool": 1 / 3},
        {"name": "instructions", "proposer": {"url": "http://a:8000/v1"}},
    )
    begun = (
        "books/split-1/cma-es-dimension=None-seed0",
        "greedy-pool=0.3333-seed0",
        "instructions-proposer=url-v1-seed12",
    )
    assert titles(*methods, begun=begun) == [
        "cma-es dimension=None",
        "greedy pool=0.3333",
        "instructions proposer=url:v1",
    ]
