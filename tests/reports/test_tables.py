"""Tables: what is text stays text in every form."""

from __future__ import annotations

import csv
import io
import re

from rlprompt.reports.tables import Table, as_csv, latex_text, markdown


def test_spreadsheets_run_no_cell() -> None:
    cells = ("=1+1", "+1", "-1", "@A1", "plain", "-")
    one = Table("x", "x", ("=name", "value"), tuple((cell, "-0.5") for cell in cells))
    rows = list(csv.reader(io.StringIO(as_csv(one))))
    assert rows[0][0] == "'=name"
    assert [row[0] for row in rows[1:]] == ["'=1+1", "'+1", "'-1", "'@A1", "plain", ""]
    assert {row[1] for row in rows[1:]} == {"-0.5"}


def test_a_lone_carriage_return_ends_no_row_of_csv() -> None:
    one = Table("x", "x", ("a\rtask", "value"), (("two\rlines", "0.5"),))
    assert as_csv(one) == '"a\rtask","value"\ntwo\\rlines,0.5\n'


def test_markdown_is_not_made_of_text() -> None:
    one = Table("x", "x", ("a|b", "prompt"), (("*x*|<b>", "a`|`b"), ("[l](u)", "")), code=(1,))
    lines = markdown(one).splitlines()
    assert lines[2].startswith(r"| \*x\*\|&lt;b&gt;")
    assert r"``'a`\|`b'``" in lines[2]
    assert lines[3].startswith(r"| \[l\](u)")
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in lines)


def test_latex_acts_on_no_text() -> None:
    assert latex_text(r"50% of $x_1 & #{}~^\<") == (
        r"50\% of \$x\_1 \& \#\{\}\textasciitilde{}\textasciicircum{}"
        r"\textbackslash{}\textless{}"
    )
