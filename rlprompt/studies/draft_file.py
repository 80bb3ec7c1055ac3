"""A draft as the text of an experiment file, with a remark behind each line that has a reason.

>>> content = {"name": "films", "task": {"label_words": {"good": "yes"}}, "optimisers": ["random"]}
>>> print(draft_text(content, {("name",): "of its file", ("task", "label_words"): "a token each"}))
name: films                         # of its file
task:
  label_words:                      # a token each
    good: 'yes'
optimisers: [random]
<BLANKLINE>
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

# The column that remarks begin in, and where those end that go on in another line.
COLUMN, WIDTH = 36, 120
# Keys whose values have a line each.
SPREAD = ("task", "template", "label_words", "text", "prompt")


def draft_text(
    content: Mapping[str, Any], why: Mapping[tuple[str, ...], str], heading: str = ""
) -> str:
    """The text of a file.

    Args:
        content: Key to value.
        why: Place of a value, its keys, to a remark.
        heading: Lines before all others.
    """
    lines = [f"# {line}".rstrip() for line in heading.splitlines()]
    return "\n".join([*lines, *_section(content, why, ())]) + "\n"


def _section(
    content: Mapping[str, Any], why: Mapping[tuple[str, ...], str], above: tuple[str, ...]
) -> Iterator[str]:
    for key, value in content.items():
        place = (*above, str(key))
        spread = isinstance(value, Mapping) and key in SPREAD
        line = f"{'  ' * len(above)}{_flow(key)}:{'' if spread else ' ' + _flow(value)}"
        yield _remarked(line, why.get(place, ""))
        if spread:
            yield from _section(value, why, place)


def _remarked(line: str, remark: str) -> str:
    """A line with a remark, which stands above it where there is no room behind."""
    remark = " ".join(remark.split())
    if not remark:
        return line
    if len(line) >= COLUMN or COLUMN + len(f"# {remark}") > WIDTH:
        indent = len(line) - len(line.lstrip())
        return "\n".join([*_wrapped(remark, indent), line])
    return f"{line:<{COLUMN}}# {remark}"


def _wrapped(remark: str, indent: int) -> list[str]:
    start = " " * indent + "# "
    return textwrap.wrap(remark, WIDTH, initial_indent=start, subsequent_indent=start)


def _flow(value: Any) -> str:
    """A value in one line."""
    if isinstance(value, str) and any(c in value for c in "{}\n#"):
        value = _Quoted(value)
    dumped = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=1 << 30,
        sort_keys=False,
    )  # fmt: skip
    return dumped.removesuffix("\n").removesuffix("\n...")


class _Quoted(str):
    """A text in double quotes, in which a line break is readable."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(
    _Quoted,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style='"'),
)
