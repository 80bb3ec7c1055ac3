"""`rlprompt score`: a prompt of one's own, typed."""

from __future__ import annotations

import re
from pathlib import Path

from command_line import rlprompt, summary


class TestScore:
    def test_test_stays_closed_unless_asked_for(self, desk: Path) -> None:
        result = rlprompt("score", "it was", "small.yaml")
        assert result.exit_code == 0
        assert re.search(r"^train +4 +\d\.\d{3} +-?\d+\.\d\d$", result.stdout, re.MULTILINE)
        assert re.search(r"^dev ", result.stdout, re.MULTILINE)
        assert not re.search(r"^test ", result.stdout, re.MULTILINE)
        assert "Test was not scored; add --split test" in result.stdout
        result = rlprompt("score", "it was", "small.yaml", "--split", "test")
        assert re.search(r"^test +6 ", result.stdout, re.MULTILINE)
        assert "closed" not in result.stdout

    def test_a_typed_prompt_follows_the_space_of_the_template(self, desk: Path) -> None:
        both = [rlprompt("score", text, "small.yaml").stdout for text in ("it was", " it was")]
        assert both[0] == both[1]
        assert both[0].startswith("prompt     ' it was'")
        exact = rlprompt("score", "it was", "small.yaml", "--exact").stdout
        assert exact.startswith("prompt     'it was'")

    def test_arguments_the_other_way_round_are_told(self, desk: Path) -> None:
        result = rlprompt("score", "small.yaml", "it was")
        assert result.exit_code == 2
        assert result.stderr == (
            "error: the prompt comes first, then the file: rlprompt score 'it was' small.yaml\n"
        )

    def test_it_agrees_with_the_control(self, desk: Path) -> None:
        rlprompt("compare", "small.yaml", "--budget", "4")
        control = summary(desk / "runs" / "small")["controls"][2]
        shown = rlprompt("score", "it was", "small.yaml").stdout
        assert re.search(rf"^dev +4 +{control['dev']:.3f} ", shown, re.MULTILINE)
