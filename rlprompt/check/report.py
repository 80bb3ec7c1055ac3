"""What a check found: a name, a verdict and a plain sentence for each thing looked at.

>>> Report("my task", (Finding("shape", "fail", "got (3, 4)"),)).lines()
['FAIL  shape  got (3, 4)']
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

Status = Literal["pass", "warn", "fail"]

SEVERITY: tuple[Status, ...] = ("pass", "warn", "fail")
SHOWN: dict[Status, str] = {"pass": "ok", "warn": "WARN", "fail": "FAIL"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    >>> Finding("signal", "warn", "one train example says nothing about others").status
    'warn'

    Attributes:
        name: What it is called, the same in every version.
        status: `fail` for what makes results wrong, `warn` for what makes them doubtful or dear.
        text: What was seen, what was expected, what to do.
        detail: The traceback of whoever raised, or "".
    """

    name: str
    status: Status
    text: str
    detail: str = ""


@dataclass(frozen=True)
class Report:
    """All that a check found.

    >>> seen = (Finding("shape", "pass", "(3, 4)"), Finding("purity", "fail", "0.5 and not 0.4"))
    >>> report = Report("my task", seen)
    >>> [finding.name for finding in report.failed]
    ['purity']
    >>> report.raise_if_failed()
    Traceback (most recent call last):
    AssertionError: my task failed its check:
    FAIL  purity  0.5 and not 0.4

    Attributes:
        subject: What was checked.
        findings: In the order in which they were looked at.
    """

    subject: str
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> tuple[Finding, ...]:
        """What makes results wrong."""
        return tuple(finding for finding in self.findings if finding.status == "fail")

    @property
    def problems(self) -> tuple[Finding, ...]:
        """What failed, and what is to be warned of."""
        return tuple(finding for finding in self.findings if finding.status != "pass")

    def lines(self) -> list[str]:
        """A line a finding, and the tracebacks below theirs."""
        width = max((len(finding.name) for finding in self.findings), default=0)
        lines = []
        for finding in self.findings:
            lines.append(f"{SHOWN[finding.status]:4}  {finding.name:{width}}  {finding.text}")
            lines += [f"      {line}" for line in finding.detail.splitlines()]
        return lines

    def raise_if_failed(self) -> None:
        """For tests.

        Raises:
            AssertionError: Something failed; the message has the finding and its traceback.
        """
        if self.failed:
            lines = Report(self.subject, self.failed).lines()
            raise AssertionError("\n".join([f"{self.subject} failed its check:", *lines]))


class Stop(Exception):  # noqa: N818  # not an error: how a series of checks ends
    """What was found leaves nothing to go on with.

    Attributes:
        finding: What was found.
    """

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.text)
        self.finding = finding


def collect(*series: Callable[[], Iterable[Finding]]) -> tuple[Finding, ...]:
    """The findings of series of checks, each up to its own end or `Stop`.

    A name that comes up again, such as for another kind of prompt, is told once, by its worst.
    """
    worst: dict[str, Finding] = {}

    def note(finding: Finding) -> None:
        known = worst.setdefault(finding.name, finding)
        if SEVERITY.index(finding.status) > SEVERITY.index(known.status):
            worst[finding.name] = finding

    for findings in series:
        try:
            for finding in findings():
                note(finding)
        except Stop as stop:
            note(stop.finding)
    return tuple(worst.values())


def verdict(name: str, problem: str, fine: str, status: Status = "fail") -> Finding:
    """A finding that passes where there is no problem."""
    return Finding(name, status, problem) if problem else Finding(name, "pass", fine)
