"""What a person sees, on a terminal, which rich is told that it has, and elsewhere."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest
from command_line import rlprompt
from rich.console import Console

from rlprompt.cli import terminal
from rlprompt.reports.tables import Table

TABLE = Table(
    "runs",
    "Every run",
    ("method", "seed", "rows", "test", "prompt"),
    (("empty prompt", "-", "14", "0.500", ""), ("random", "0", "48", "0.750", " [red]it\x1b[31m")),
    code=(4,),
    notes=("A note.",),
)


def printed(width: int, *, is_terminal: bool) -> str:
    console = Console(
        force_terminal=is_terminal,
        width=width,
        markup=False,
        highlight=False,
        color_system=None,
        record=True,
    )
    with console.capture() as shown:
        terminal.print_table(console, TABLE)
    return shown.get()


def test_a_table_elsewhere_is_markdown_with_its_notes() -> None:
    shown = printed(120, is_terminal=False)
    assert "| random       |    0 |" in shown
    assert "Every run\n" in shown
    assert "\nA note.\n" in shown


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_prompt_is_shown_as_it_is_and_harmless(is_terminal: bool) -> None:
    shown = printed(120, is_terminal=is_terminal)
    assert r"' [red]it\x1b[31m'" in shown
    assert "\x1b" not in shown


def test_a_narrow_terminal_leaves_out_what_it_costs() -> None:
    assert "rows" in printed(120, is_terminal=True)
    narrow = printed(60, is_terminal=True)
    assert "rows" not in narrow
    assert all(len(line) <= 60 for line in narrow.splitlines())


def test_a_notice_is_shown_once_whatever_a_library_hangs_on_the_root_logger() -> None:
    def notice(text: str) -> None:
        logging.getLogger("rlprompt.studies.controls_and_references").info(text)
        logging.getLogger("rlprompt.search.space").warning(text)

    twice, root = io.StringIO(), logging.getLogger()
    handler = logging.StreamHandler(twice)
    console = Console(width=80)
    try:
        with console.capture() as shown, terminal.log_to(console):
            root.addHandler(handler)  # as absl does, which rouge-score imports
            notice("scored")
        assert (shown.get(), twice.getvalue()) == ("scored\nscored\n", "")
        # Whoever calls the library hears of it as of any other.
        notice("later")
        assert twice.getvalue() == "later\n"
    finally:
        root.removeHandler(handler)


class TestTerminal:
    """The same on a terminal, which rich is told that it has."""

    def see(self, monkeypatch: pytest.MonkeyPatch, width: int) -> list[str]:
        console = Console(
            force_terminal=True, width=width, markup=False, highlight=False, color_system=None
        )
        monkeypatch.setattr(terminal, "make_console", lambda quiet=False: console)
        result = rlprompt("compare", "small.yaml")
        assert result.exit_code == 0
        return result.stdout.replace("\r", "\n").splitlines()

    def test_a_bar_shows_rows_best_and_the_table(
        self, desk: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lines = self.see(monkeypatch, 120)
        assert any("1/2 random" in line and "48/48 rows" in line for line in lines)
        assert any(" seconds (LM) " in line for line in lines)
        assert not any("| --- |" in line for line in lines)

    def test_a_narrow_one_gets_a_narrow_table(
        self, desk: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lines = self.see(monkeypatch, 60)
        (header,) = [line for line in lines if line.startswith(" method")]
        assert header.split() == ["method", "seed", "train", "dev", "test", "typed", "prompt"]
        assert all(len(line) <= 60 for line in lines[lines.index(header) :])
