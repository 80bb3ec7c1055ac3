"""What a check found, as a person and as pytest see it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rlprompt.check.report import Finding, Report, Stop, collect, verdict

FINE = Finding("shape", "pass", "(4, 3)")
DOUBT = Finding("cost", "warn", "slow")
WRONG = Finding("finite", "fail", "nan", "Traceback:\n  here")


def test_a_report_has_a_line_a_finding_and_tracebacks_below() -> None:
    assert Report("mine", (FINE, DOUBT, WRONG)).lines() == [
        "ok    shape   (4, 3)",
        "WARN  cost    slow",
        "FAIL  finite  nan",
        "      Traceback:",
        "        here",
    ]


def test_only_failures_raise() -> None:
    Report("mine", (FINE, DOUBT)).raise_if_failed()
    with pytest.raises(
        AssertionError, match=r"mine failed its check:\nFAIL  finite  nan\n +Traceback:\n +here"
    ):
        Report("mine", (FINE, DOUBT, WRONG)).raise_if_failed()


def test_problems_are_failures_and_warnings() -> None:
    report = Report("mine", (FINE, DOUBT, WRONG))
    assert report.failed == (WRONG,)
    assert report.problems == (DOUBT, WRONG)


def test_a_name_is_told_once_by_its_worst() -> None:
    worse = Finding("shape", "warn", "odd")
    assert collect(lambda: [FINE, worse, DOUBT], lambda: [FINE]) == (worse, DOUBT)


def test_a_stop_ends_its_series_and_no_other() -> None:
    def stopping() -> Iterator[Finding]:
        yield FINE
        raise Stop(WRONG)

    assert collect(stopping, lambda: [DOUBT]) == (FINE, WRONG, DOUBT)


def test_a_verdict_passes_without_a_problem() -> None:
    assert verdict("shape", "", "(4, 3)") == FINE
    assert verdict("cost", "slow", "quick", "warn") == DOUBT
