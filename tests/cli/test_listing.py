"""`rlprompt ls`: what there is."""

from __future__ import annotations

import re

import pytest
from command_line import rlprompt

from rlprompt.config import registry


class TestList:
    def test_optimisers_have_origin_and_settings(self) -> None:
        shown = rlprompt("ls", "optimisers").stdout
        assert re.search(r"^greedy: \w", shown, re.MULTILINE)
        assert "    rlprompt.agents.greedy:Greedy, from rlprompt " in shown
        assert "    settings: pool=" in shown

    def test_one_that_cannot_be_imported_hides_no_other(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        known = registry.entries("optimiser")
        broken = type(known["greedy"])("broken", "no.such.module:Nothing", "rlprompt.optimisers")
        monkeypatch.setattr(registry, "entries", lambda kind: {"broken": broken, **known})
        shown = rlprompt("ls", "optimisers").stdout
        assert "broken: optimiser broken (no.such.module:Nothing) cannot be imported" in shown
        assert "\ngreedy: " in shown

    def test_models_and_tasks(self) -> None:
        assert "smollm2-135m: " in rlprompt("ls", "models").stdout
        assert "movie-reviews" in rlprompt("ls", "tasks").stdout
