"""`rlprompt ls`: what there is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import rlprompt

from rlprompt.config import registry


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("RLPROMPT_CACHE", str(tmp_path))
    return tmp_path


class TestList:
    def test_optimisers_have_origin_and_settings(self) -> None:
        shown = rlprompt("ls", "optimisers").stdout
        assert re.search(r"^greedy: \w", shown, re.MULTILINE)
        assert "    rlprompt.agents.greedy:Greedy, from rlprompt " in shown
        assert "    settings: pool=0.3333, batch=16, halving=null\n" in shown  # as in a file

    def test_one_that_cannot_be_imported_hides_no_other(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        known = registry.entries("optimiser")
        broken = type(known["greedy"])("broken", "no.such.module:Nothing", "rlprompt.optimisers")
        monkeypatch.setattr(registry, "entries", lambda kind: {"broken": broken, **known})
        shown = rlprompt("ls", "optimisers").stdout
        assert "broken: optimiser broken (no.such.module:Nothing) cannot be imported" in shown
        assert "\ngreedy: " in shown

    @pytest.mark.parametrize("what", ["optimisers", "tasks"])
    def test_what_was_seen_is_listed_again_without_torch(self, what: str, cache: Path) -> None:
        first = rlprompt("ls", what).stdout
        code = "import sys; from rlprompt.cli.app import app; app(standalone_mode=False); "
        code += "assert 'torch' not in sys.modules"
        command = [sys.executable, "-c", code, "ls", what]
        again = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert again == first
        assert len(first.splitlines()) > 40

    def test_what_was_seen_of_other_files_is_looked_at_again(self, cache: Path) -> None:
        first = rlprompt("ls", "optimisers").stdout
        kept = cache / "optimisers.json"
        seen = json.loads(kept.read_text())
        seen["greedy"] = ["another day", "Nothing.", ""]
        kept.write_text(json.dumps(seen))
        assert rlprompt("ls", "optimisers").stdout == first
        assert json.loads(kept.read_text())["greedy"][1] != "Nothing."
        kept.write_text("no JSON")
        assert rlprompt("ls", "optimisers").stdout == first

    def test_a_cache_that_cannot_be_written_is_no_matter(self, cache: Path) -> None:
        (cache / "optimisers.json").mkdir()
        assert "greedy: " in rlprompt("ls", "optimisers").stdout

    def test_references_have_their_settings_and_what_they_need(self) -> None:
        shown = rlprompt("ls", "references").stdout
        assert "logistic-head: A logistic regression on what the frozen model has" in shown
        assert "    settings: inverse_strengths=0.0001+0.001+0.01+0.1+1.0\n" in shown
        assert "    settings: rank=8, alpha=8, learning_rates=0.0002+0.001, epochs=20" in shown
        assert "lora+soft: Low-rank" not in shown  # its own line
        assert "pip install 'rlprompt[references]'" in shown

    def test_models_and_tasks(self) -> None:
        assert "smollm2-135m: " in rlprompt("ls", "models").stdout
        assert "movie-reviews" in rlprompt("ls", "tasks").stdout
