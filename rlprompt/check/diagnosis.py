"""What a machine and a model were found to be, for a person and for a report of a bug."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlprompt._utils.text import visible
from rlprompt.check.report import Finding, Report

Facts = Mapping[str, Any]
"""What is known of a thing: name to a JSON value."""


@dataclass(frozen=True)
class Diagnosis:
    r"""Facts, and what is wrong.

    >>> found = Diagnosis({"machine": {"cores": 2, "GPU": None}}, ())
    >>> print("\n".join(found.lines()))
    machine
      cores  2
      GPU    none
    <BLANKLINE>
    nothing is wrong that is known of
    >>> found.json()
    '{"machine": {"cores": 2, "GPU": null}, "findings": []}'

    Attributes:
        facts: Section, such as `machine`, to what is known of it.
        findings: What was looked at for troubles; each that is no `pass` says what to do.
    """

    facts: Mapping[str, Facts]
    findings: tuple[Finding, ...]

    @property
    def report(self) -> Report:
        """The findings."""
        return Report("this machine", self.findings)

    def lines(self) -> list[str]:
        """All of it, a fact a line, as a person reads it."""
        found = list[str]()
        for section, facts in self.facts.items():
            width = max(map(len, facts), default=0)
            found.append(section)
            for name, value in facts.items():
                told = _without_home(value)
                each = list(told) if isinstance(told, list) and told else [told]
                found += (
                    f"  {name if i == 0 else '':{width}}  {visible(_shown(one))}"
                    for i, one in enumerate(each)
                )
            found.append("")
        problems = Report(self.report.subject, self.report.problems).lines()
        return found + (
            [_without_home(line) for line in problems] or ["nothing is wrong that is known of"]
        )

    def json(self, indent: int | None = None) -> str:
        """All of it as JSON; the home folder is `~` there."""
        findings = [
            {"name": one.name, "status": one.status, "text": one.text} for one in self.findings
        ]
        return json.dumps(_without_home({**self.facts, "findings": findings}), indent=indent)


def _shown(value: Any) -> str:
    """A value in a line.

    >>> _shown(None), _shown(True), _shown({"a": 1.5, "b": [1, 2]}), _shown([]), _shown({})
    ('none', 'yes', 'a 1.5, b 1 2', 'none', 'none')
    """
    if value is None or value in ([], {}):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(_shown, value))
    return str(value)


def _without_home(value: Any) -> Any:
    """A value in which the home folder, and with it who it is of, is `~`."""
    if isinstance(value, Mapping):
        return {name: _without_home(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_home(one) for one in value]
    home = str(Path.home())
    return value.replace(home, "~") if isinstance(value, str) and len(home) > 1 else value


def warned(*found: tuple[str, str]) -> Iterator[Finding]:
    """A warning for each name whose text is not ""."""
    yield from (Finding(name, "warn", text) for name, text in found if text)
