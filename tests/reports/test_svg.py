"""Plots: exact at improvements, thinned to what a screen shows, colours that can be told."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlprompt.reports.svg import N_STYLES, Dots, Line, dot_plot, line_plot, thinned, value_range
from rlprompt.statistics.summaries import Band

NAN = float("nan")


def band(at: list[float], value: list[float], half: float = 0.1) -> Band:
    heights = np.array(value)
    return Band(np.array(at), heights, heights - half, heights + half)


def drawn(*lines: Line, **options: Any) -> ElementTree.Element:
    text = line_plot(
        "p",
        "title",
        "words",
        lines,
        [("empty", 0.5)],
        x_label="rows",
        y_label="reward",
        y_range=(0.0, 1.0),
        **options,
    )
    return ElementTree.fromstring(text)


def test_a_step_is_drawn_where_it_was_found() -> None:
    svg = drawn(Line("a", 0, band([0, 50, 100], [0.0, 0.5, 1.0])))
    (path,) = (one for one in svg.iter("path") if one.get("class") == "curve s0")
    # Plot area: 46 to 316 across, 228 down to 12.
    assert path.get("d") == "M46.0 228.0H181.0V120.0H316.0V12.0H316.0"


def test_a_curve_begins_where_every_seed_has_a_value() -> None:
    svg = drawn(Line("a", 0, band([0, 50, 100], [NAN, 0.5, 1.0])))
    (path,) = (one for one in svg.iter("path") if one.get("class") == "curve s0")
    assert str(path.get("d")).startswith("M181.0 120.0")


def test_a_band_goes_along_its_upper_edge_and_back_along_the_lower() -> None:
    svg = drawn(Line("a", 0, band([0, 50, 100], [0.2, 0.5, 0.8], half=0.1)))
    (path,) = (one for one in svg.iter("path") if one.get("class") == "band s0")
    assert path.get("d") == (
        "M46.0 163.2H181.0V98.4H316.0V33.6H316.0L316.0 141.6H181.0V206.4H46.0Z"
    )


def test_names_are_at_the_ends_and_never_on_each_other() -> None:
    lines = [Line(f"method-{i}", i, band([0, 100], [0.1, 0.5 + i / 1000])) for i in range(8)]
    svg = drawn(*lines)
    labels = [one for one in svg.iter("text") if "label s" in str(one.get("class"))]
    assert {one.text for one in labels} == {line.name for line in lines}
    heights = sorted(float(str(one.get("y"))) for one in labels)
    assert min(np.diff(heights)) >= 13.9


@pytest.mark.parametrize("legend", [False, True])
def test_a_plot_has_room_for_the_names_of_many_methods(legend: bool) -> None:
    names = [f"cma-es dimension=null population=null alpha=0.{i:02}" for i in range(40)]
    lines = [Line(name, i, band([0, 100], [0.1, 0.5])) for i, name in enumerate(names)]
    svg = drawn(*lines, legend=legend)
    width, height = map(float, str(svg.get("viewBox")).split()[2:])
    labels = [one for one in svg.iter("text") if str(one.get("class")).startswith("label s")]
    if legend:
        labels = [one for one in svg.iter("text") if one.get("class") == "label"]
    assert len({one.text for one in labels}) == 40
    assert {one.findtext("title") for one in labels} == set(names)
    heights = sorted(float(str(one.get("y"))) for one in labels)
    assert heights[0] > 0
    assert heights[-1] < height
    assert min(np.diff(heights)) >= 13.9
    assert all(float(str(one.get("x"))) + 7 * len(str(one.text)) <= width for one in labels)


def test_rows_have_room_for_long_names() -> None:
    rows = [Dots("ppo-edit start=hand edits=8 clip=0.2", 0, (0.5,), 0.5, None, None)]
    svg = ElementTree.fromstring(dot_plot("d", "t", "w", rows, x_label="test"))
    (label,) = (one for one in svg.iter("text") if one.get("class") == "label")
    assert label.text == "ppo-edit start=…its=8 clip=0.2"
    assert float(str(label.get("x"))) >= 7 * 28


def test_text_stays_text() -> None:
    svg = drawn(Line("</svg><script>\u202e", 0, band([0, 100], [0.1, 0.5])))
    assert not list(svg.iter("script"))
    assert any(str(one.text).startswith("</svg>") for one in svg.iter("text"))


def test_one_value_everywhere_still_has_a_plot() -> None:
    drawn(Line("a", 0, band([0.0], [0.5])))
    text = dot_plot("d", "t", "w", [Dots("a", 0, (0.5,), 0.5, None, None)], x_label="test")
    assert "nan" not in text


@given(
    st.lists(st.floats(0, 1e6), min_size=1, max_size=300),
    st.integers(1, 50),
)
def test_thinning_keeps_the_last_of_each_place_and_both_ends(
    costs: list[float], places: int
) -> None:
    given_costs = np.array(costs)
    end = float(given_costs.max())
    kept = thinned(given_costs, end, places)
    assert len(kept) <= places + 1
    assert kept[-1] == end
    assert set(kept) <= {*costs, end}
    assert (np.diff(kept) > 0).all()


def test_a_million_points_are_thinned_to_a_screen() -> None:
    assert len(thinned(np.arange(1e6), 1e6)) == 801


@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), max_size=20))
def test_edges_leave_room(values: list[float | None]) -> None:
    low, high = value_range(values)
    assert low < high
    assert all(low <= value <= high for value in values if value is not None)


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_line_stands_out_from_the_paper(scheme: int) -> None:
    """WCAG 2.2, 1.4.11: 3:1 for graphics; 1.4.3: 4.5:1 for text."""
    style = resources.files("rlprompt.reports").joinpath("page.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", style.split("@media")[scheme]))
    paper = luminance(colours["paper"])
    limits = {f"s{i}": 3.0 for i in range(N_STYLES)}
    limits |= dict.fromkeys(("ink", "soft", "accent", "struck", "caution", "fine"), 4.5)
    for name, limit in limits.items():
        high, low = sorted((luminance(colours[name]), paper), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= limit, name
