"""Plots as inline SVG: colours and text sizes come from the page's style sheet.

A line has a colour and a dash pattern of its own and its name at its end, so that it is told apart
in greyscale and with any colour vision. Each plot says in words what it shows (`title`, `desc`),
and the page puts its figures into a table below it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from rlprompt._utils.text import visible
from rlprompt.statistics.summaries import Band
from rlprompt.types import Floats

# Of a plot, in units of its view box, which the page scales to 0.8 to 1.3 pixels; one with long
# names is wider, and one with many is higher.
WIDTH, HEIGHT = 420.0, 268.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 104.0, 12.0, 40.0
# Least distance between two labels, the width of a character, and the longest label in characters,
# that of "hand-written prompt, calibrated".
LABEL_GAP, CHARACTER, LABEL_LENGTH = 14.0, 7.0, 31
# Colours and dash patterns in the style sheet; the ninth method has the first colour again.
N_STYLES = 8
# Places across a plot that can be told apart on a screen of twice the usual density.
PLACES = 800
ROW_HEIGHT = 22.0


@dataclass(frozen=True)
class Line:
    """A curve of a plot.

    Attributes:
        name: What to write at its end.
        style: Which colour and dash pattern.
        band: Its heights, drawn as steps.
        each: Heights of the runs that it is the mean of, where they are drawn and no band.
    """

    name: str
    style: int
    band: Band
    each: tuple[Floats, ...] = ()


@dataclass(frozen=True)
class Dots:
    """A row of a plot of single values.

    Attributes:
        name: What to write in front of it.
        style: Which colour; None for what no search found.
        values: One each run.
        mean: Of the runs.
        low: Lower end of its interval, if it has one.
        high: The upper end.
    """

    name: str
    style: int | None
    values: tuple[float, ...]
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Points:
    """Prompts of one method on a plot of one score against another.

    Attributes:
        name: What to write beside the plot.
        style: Which colour; None for what no search found.
        hollow: (n, 2) places across and upward, drawn as circles.
        filled: (n, 2) places of dots.
    """

    name: str
    style: int | None
    hollow: Floats
    filled: Floats


@dataclass(frozen=True)
class _Frame:
    """Where values lie on a plot, with names beside its right edge."""

    x: tuple[float, float]
    y: tuple[float, float]
    names: tuple[str, ...]

    @property
    def right(self) -> float:
        return WIDTH - RIGHT

    @property
    def width(self) -> float:
        return self.right + max(RIGHT, 30 + _room(self.names))

    @property
    def height(self) -> float:
        return max(HEIGHT, TOP + 8 + (LABEL_GAP + 2) * len(self.names))

    @property
    def bottom(self) -> float:
        return self.height - BOTTOM

    def across(self, values: Floats | float) -> Floats:
        low, high = self.x
        return LEFT + (np.asarray(values) - low) / (high - low) * (self.right - LEFT)

    def up(self, values: Floats | float) -> Floats:
        low, high = self.y
        return self.bottom - (np.asarray(values) - low) / (high - low) * (self.bottom - TOP)


def line_plot(
    name: str,
    title: str,
    description: str,
    lines: Sequence[Line],
    levels: Sequence[tuple[str, float]] = (),
    *,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float],
    x_start: float = 0.0,
    legend: bool = False,
    until: float | None = None,
) -> str:
    """Step curves with their bands, and levels to hold them against.

    Args:
        name: Tells the plot from all others of the page.
        title: What it is.
        description: What it shows, for those who do not see it.
        lines: The curves.
        levels: Names and heights of horizontal lines.
        x_label: What is across.
        y_label: What is upward.
        y_range: Heights at the lower and upper edge; bands are cut there.
        legend: List the names, where the ends of curves do not tell them apart.
        x_start: Where the horizontal axis begins; it ends with the longest curve.
        until: Where a vertical line parts what was seen from what is fitted.
    """
    end = max((float(line.band.at[-1]) for line in lines), default=x_start)
    x_range = x_start, end if end > x_start else x_start + max(1.0, abs(x_start))
    names = (*(line.name for line in lines), *(name for name, _ in levels))
    frame = _Frame(x_range, y_range, names)
    svg = _begin(name, title, description, frame.width, frame.height)
    clip = SubElement(SubElement(svg, "clipPath", id=f"{name}-clip"), "rect")
    clip.attrib.update(
        _numbers(x=LEFT, y=TOP - 2, width=frame.right - LEFT, height=frame.bottom - TOP + 4)
    )
    _axes(svg, frame, x_label, y_label)
    inside = SubElement(svg, "g", {"clip-path": f"url(#{name}-clip)"})
    for line in lines:
        _band(inside, frame, line)
    for _, height in levels:
        y = float(frame.up(height))
        place = _numbers(x1=LEFT, x2=frame.right, y1=y, y2=y)
        SubElement(inside, "line", {"class": "level", **place})
    if until is not None:
        x = float(frame.across(until))
        place = _numbers(x1=x, x2=x, y1=TOP, y2=frame.bottom)
        SubElement(inside, "line", {"class": "level", **place})
    for line in lines:
        for heights in line.each:
            _curve(inside, frame, line, heights, "run")
        _curve(inside, frame, line, line.band.value, "curve")
    if legend:
        _legend(svg, frame, lines)
    else:
        _end_labels(svg, frame, lines, levels)
    return _text(svg)


def scatter_plot(
    name: str,
    title: str,
    description: str,
    points: Sequence[Points],
    *,
    x_label: str,
    y_label: str,
) -> str:
    """One score against another, a mark a prompt, with the names of methods beside."""
    places = np.concatenate([part for one in points for part in (one.hollow, one.filled)])
    x_range, y_range = (value_range(places[:, axis].tolist()) for axis in (0, 1))
    frame = _Frame(x_range, y_range, tuple(one.name for one in points))
    svg = _begin(name, title, description, frame.width, frame.height)
    _axes(svg, frame, x_label, y_label)
    for i, one in enumerate(points):
        look = "control" if one.style is None else f"s{one.style % N_STYLES}"
        group = SubElement(svg, "g", {"class": f"row {look}"})
        for mark, part in (("ring", one.hollow), ("dot", one.filled)):
            for x, y in zip(frame.across(part[:, 0]), frame.up(part[:, 1]), strict=True):
                SubElement(group, "circle", {"class": mark, **_numbers(cx=x, cy=y, r=3)})
        edge, y = frame.right + 8, TOP + 8 + i * (LABEL_GAP + 2)
        SubElement(group, "circle", {"class": "dot", **_numbers(cx=edge + 6, cy=y, r=3)})
        _name(group, one.name, edge + 14, y + 4, "start")
    return _text(svg)


def dot_plot(name: str, title: str, description: str, rows: Sequence[Dots], *, x_label: str) -> str:
    """A row each method: its runs as dots, its mean as a bar, its interval as a line."""
    height = TOP + BOTTOM + ROW_HEIGHT * len(rows)
    low, high = _dot_range(rows)
    left = 20 + _room([row.name for row in rows])
    right = left + WIDTH - LEFT - RIGHT
    svg = _begin(name, title, description, right + 14, height)

    def across(value: float) -> float:
        return left + (value - low) / (high - low) * (right - left)

    for tick, text in _ticks(low, high):
        x = across(tick)
        bounds = _numbers(x1=x, x2=x, y1=TOP, y2=height - BOTTOM)
        SubElement(svg, "line", {"class": "grid", **bounds})
        _label(svg, text, x, height - BOTTOM + 15, "middle")
    _label(svg, x_label, (left + right) / 2, height - 6, "middle", "axis")
    for i, row in enumerate(rows):
        y = TOP + ROW_HEIGHT * (i + 0.5)
        look = "control" if row.style is None else f"s{row.style % N_STYLES}"
        group = SubElement(svg, "g", {"class": f"row {look}"})
        _name(group, row.name, left - 10, y + 4, "end")
        if row.low is not None and row.high is not None:
            ends = _numbers(
                x1=across(max(row.low, low)), x2=across(min(row.high, high)), y1=y, y2=y
            )
            SubElement(group, "line", {"class": "interval", **ends})
        for value in row.values:
            SubElement(group, "circle", {"class": "dot", **_numbers(cx=across(value), cy=y, r=3)})
        x = across(row.mean)
        SubElement(group, "line", {"class": "mean", **_numbers(x1=x, x2=x, y1=y - 7, y2=y + 7)})
    return _text(svg)


def _dot_range(rows: Sequence[Dots]) -> tuple[float, float]:
    """Edges around all runs; with two seeds an interval may be many times as wide, and is cut."""
    low, high = value_range([value for row in rows for value in (*row.values, row.mean)])
    room = high - low
    lows = [row.low for row in rows if row.low is not None]
    highs = [row.high for row in rows if row.high is not None]
    return max(min([low, *lows]), low - room), min(max([high, *highs]), high + room)


def effect_bar(value: float, largest: float) -> str:
    """A small bar to the left or right of a line in the middle, for the cell of a table."""
    svg = Element("svg", {"class": "effect", "viewBox": "0 0 120 14", "aria-hidden": "true"})
    length = 58 * abs(value) / largest if largest else 0.0
    look = "gain" if value >= 0 else "loss"
    x = 60.0 if value >= 0 else 60 - length
    SubElement(svg, "rect", {"class": look, **_numbers(x=x, y=2, width=length, height=10)})
    SubElement(svg, "line", {"class": "zero", **_numbers(x1=60, x2=60, y1=0, y2=14)})
    return _text(svg)


def thinned(costs: Floats, end: float, places: int = PLACES) -> Floats:
    """Ascending costs, the last one of each place across a plot that ends at `end`, and `end`."""
    costs = np.unique(np.append(costs, end))
    column = np.minimum(costs / (end or 1.0) * places, places).astype(np.int64)
    kept: Floats = costs[np.append(column[1:] != column[:-1], True)]
    return kept


def value_range(values: Sequence[float | None]) -> tuple[float, float]:
    """Edges with a little room around values; around one value, room for a tick or two."""
    known = np.array([value for value in values if value is not None and np.isfinite(value)])
    if not len(known):
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    room = (high - low) * 0.06 or max(abs(high) * 0.1, 0.05)
    return low - room, high + room


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Ascending places moved apart by at least `gap`, each group staying around its middle.

    >>> spread([1.0, 1.0, 5.0], 1.0)
    [0.5, 1.5, 5.0]
    """
    groups: list[list[float]] = []
    for place in wanted:
        groups.append([place])
        # Two groups that touch become one, centred on the mean of what its members wanted.
        while len(groups) > 1 and _top(groups[-2], gap) + gap > _bottom(groups[-1], gap):
            last = groups.pop()
            groups[-1] += last
    return [_bottom(group, gap) + gap * i for group in groups for i in range(len(group))]


def _bottom(group: Sequence[float], gap: float) -> float:
    return sum(group) / len(group) - gap * (len(group) - 1) / 2


def _top(group: Sequence[float], gap: float) -> float:
    return sum(group) / len(group) + gap * (len(group) - 1) / 2


def _begin(name: str, title: str, description: str, width: float, height: float) -> Element:
    svg = Element(
        "svg",
        {
            "class": "plot wide" if width > WIDTH else "plot",
            "viewBox": f"0 0 {width:g} {height:g}",
            "role": "img",
            "aria-labelledby": f"{name}-title {name}-desc",
        },
    )
    SubElement(svg, "title", id=f"{name}-title").text = visible(title)
    SubElement(svg, "desc", id=f"{name}-desc").text = visible(description)
    return svg


def _axes(svg: Element, frame: _Frame, x_label: str, y_label: str) -> None:
    bottom, right = frame.bottom, frame.right
    for tick, text in _ticks(*frame.y):
        y = float(frame.up(tick))
        SubElement(svg, "line", {"class": "grid", **_numbers(x1=LEFT, x2=right, y1=y, y2=y)})
        _label(svg, text, LEFT - 7, y + 4, "end")
    for tick, text in _ticks(*frame.x, most=4):
        x = float(frame.across(tick))
        SubElement(svg, "line", {"class": "tick", **_numbers(x1=x, x2=x, y1=bottom, y2=bottom + 4)})
        _label(svg, text, x, bottom + 16, "middle")
    edge = _numbers(x1=LEFT, x2=right, y1=bottom, y2=bottom)
    SubElement(svg, "line", {"class": "axis-line", **edge})
    _label(svg, x_label, (LEFT + right) / 2, frame.height - 6, "middle", "axis")
    _label(svg, y_label, LEFT + 4, TOP + 2, "start", "axis")


# From here on a figure is written with a power of ten.
LONGEST = 1e16
# Steps between the values on an axis, in powers of ten.
_ROUND = (0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 2.5, 5.0, 10.0)


def _ticks(low: float, high: float, most: int = 5) -> Iterator[tuple[float, str]]:
    """Round values between two edges, and how they read."""
    least = (high - low) / most
    scale = 10.0 ** np.floor(np.log10(least))
    steps = [scale * part for part in _ROUND]
    # The first that gives no more values than wanted, or a finer one where it gives fewer than two.
    place = next(i for i, step in enumerate(steps) if step >= least)
    for step in steps[place::-1]:
        first, last = math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6)
        if last > first:
            break
    digits = max(0, -int(np.floor(np.log10(step) + 1e-9)))
    digits += not math.isclose(step * 10**digits, round(step * 10**digits))
    for value in (step * i for i in range(first, last + 1)):
        # + 0: no negative zero
        plain = f"{round(float(value), 10) + 0:,.{digits}f}"
        yield float(value), plain if abs(value) < LONGEST else f"{value:.3g}"


def _curve(group: Element, frame: _Frame, line: Line, heights: Floats, look: str) -> None:
    there = np.isfinite(heights)
    x, y = frame.across(line.band.at[there]), frame.up(heights[there])
    if len(x):
        style = f"{look} s{line.style % N_STYLES}"
        SubElement(group, "path", {"class": style, "d": "M" + _steps(x, y)})


def _band(group: Element, frame: _Frame, line: Line) -> None:
    there = np.isfinite(line.band.low)
    if not there.any():
        return
    x = frame.across(line.band.at[there])
    low, high = frame.up(line.band.low[there]), frame.up(line.band.high[there])
    # There along the upper edge and back along the lower one, where a step comes before its run.
    back = _steps(np.append(x[:0:-1], x[0]), np.append(low[-2::-1], low[0]))
    style = f"band s{line.style % N_STYLES}"
    SubElement(group, "path", {"class": style, "d": f"M{_steps(x, high)}L{back}Z"})


def _steps(x: Floats, y: Floats) -> str:
    """A path through steps, without points that do not move."""
    parts = [f"{x[0]:.1f} {y[0]:.1f}"]
    for i in range(1, len(x)):
        if abs(y[i] - y[i - 1]) >= 0.05:
            parts.append(f"H{x[i]:.1f}V{y[i]:.1f}")
    return "".join([*parts, f"H{x[-1]:.1f}"])


def _end_labels(
    svg: Element, frame: _Frame, lines: Sequence[Line], levels: Sequence[tuple[str, float]]
) -> None:
    """Names beside the right edge, joined to their lines, moved apart where they would overlap."""
    low, high = frame.y
    wanted: list[tuple[float, float, str, str]] = []
    for line in lines:
        there = np.isfinite(line.band.value)
        if there.any():
            end = float(frame.across(line.band.at[there][-1]))
            height = float(frame.up(line.band.value[there][-1]))
            wanted.append((height, end, line.name, f"s{line.style % N_STYLES}"))
    for name, height in levels:
        if low <= height <= high:
            wanted.append((float(frame.up(height)), frame.right, name, "control"))
    wanted.sort()
    places = spread([height for height, *_ in wanted], LABEL_GAP)
    # The whole column is moved inside where it would hang out at the bottom or the top.
    shift = min(0.0, frame.height - 6 - places[-1]) if places else 0.0
    shift = max(shift, TOP - 2 - places[0]) if places and places[0] + shift < TOP - 2 else shift
    for place, (height, end, name, look) in zip(places, wanted, strict=True):
        place += shift
        edge = frame.right
        path = f"M{end:.1f} {height:.1f}H{edge:.1f}L{edge + 10:.1f} {place:.1f}"
        SubElement(svg, "path", {"class": f"leader {look}", "d": path})
        _name(svg, name, edge + 13, place + 4, "start", f"label {look}")


def _legend(svg: Element, frame: _Frame, lines: Sequence[Line]) -> None:
    """Names beside the right edge, each behind a piece of its line."""
    edge = frame.right + 8
    for i, line in enumerate(lines):
        y = TOP + 8 + i * (LABEL_GAP + 2)
        style = f"curve s{line.style % N_STYLES}"
        SubElement(svg, "path", {"class": style, "d": f"M{edge:g} {y:g}h18"})
        _name(svg, line.name, edge + 22, y + 4, "start")


def _label(
    parent: Element, text: str, x: float, y: float, anchor: str, look: str = "tick-label"
) -> Element:
    label = SubElement(parent, "text", {"class": look, "text-anchor": anchor, **_numbers(x=x, y=y)})
    label.text = visible(text)
    return label


def _name(parent: Element, name: str, x: float, y: float, anchor: str, look: str = "label") -> None:
    """A name, of a long one the beginning and the end, which tell methods by their settings."""
    short = _short(name)
    label = _label(parent, short, x, y, anchor, look)
    if short != name:
        SubElement(label, "title").text = visible(name)


def _short(name: str) -> str:
    """A name as a plot has room for it.

    >>> _short("cma-es dimension=null population=null alpha=0.3")
    'cma-es dimensio…null alpha=0.3'
    """
    half = LABEL_LENGTH // 2
    return name if len(name) <= LABEL_LENGTH else f"{name[:half]}…{name[1 - half :]}"


def _room(names: Sequence[str]) -> float:
    """Width of the longest of them as they are written."""
    return CHARACTER * max((len(_short(name)) for name in names), default=0)


def _numbers(**values: float) -> dict[str, str]:
    return {key: f"{value:.1f}".removesuffix(".0") for key, value in values.items()}


def _text(svg: Element) -> str:
    return ElementTree.tostring(svg, encoding="unicode")
