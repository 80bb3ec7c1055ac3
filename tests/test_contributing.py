"""What contributors are told holds: the example keeps its promises, hooks use what is pinned."""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path

import yaml

from rlprompt.check.optimiser import check_optimiser

ROOT = Path(__file__).parents[1]


def test_the_optimiser_of_ten_minutes_keeps_its_promises(tmp_path: Path) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    found = re.search(r"^```python agents/hill_climbing.py\n(.*?)^```$", text, re.M | re.S)
    assert found
    file = tmp_path / "hill_climbing.py"
    file.write_text(found[1], "utf-8")
    made = runpy.run_path(str(file))
    check_optimiser(made["HillClimbing"]()).raise_if_failed()


def test_the_paths_that_are_named_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    places = re.findall(r"\]\((\S+?)\)", text) + re.findall(r"`((?:tests|experiments)/\S+)`", text)
    assert len(places) > 5
    for place in places:
        assert (ROOT / place).exists(), place


def test_hooks_run_tools_that_are_pinned() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    tools = {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in repository["hooks"]}
    assert tools == {"ruff", "lint-imports", "mypy"}
    pinned = (ROOT / "constraints.txt").read_text()
    for package in ("ruff", "import-linter", "mypy"):
        assert re.search(rf"^{package}==", pinned, re.M)


def test_the_citation_is_of_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])


def test_the_form_for_bugs_asks_for_the_doctor() -> None:
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    read = {form.stem: yaml.safe_load(form.read_text()) for form in forms}
    assert set(read) == {"bug", "idea"}
    asked = [field["attributes"]["label"] for field in read["bug"]["body"]]
    assert "`rlprompt doctor MODEL --json`" in asked
