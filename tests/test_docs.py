"""The documentation site, as far as it can be told without its generator: `make docs` builds it."""

from __future__ import annotations

import ast
import re
import runpy
import shutil
from collections.abc import Callable, Iterator
from inspect import Parameter
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlprompt.config.registry import load, settings_of
from rlprompt.config.schema import (
    Config,
    ModelConfig,
    PromptConfig,
    RayConfig,
    SelectionConfig,
    StopConfig,
)
from rlprompt.config.tasks import ClassificationConfig, StrictModel
from rlprompt.config.yaml_file import load_config
from rlprompt.data.settings import DRAW
from rlprompt.studies.loading import load_task
from rlprompt.studies.references import REFERENCES
from rlprompt.tasks.base import Task

ROOT = Path(__file__).parents[1]
BUILD = runpy.run_path(str(ROOT / "docs" / "build.py"))
PAGES = BUILD["pages"]()  # refuses names without a docstring, and links to nothing
TROUBLE = (ROOT / "docs" / "if-it-goes-wrong.md").read_text("utf-8")
FILE_PAGE = (ROOT / "docs" / "experiment-file.md").read_text("utf-8")
# Characters of a message that stand in the source as they are; below that anything would do.
LEAST = 16


def test_every_page_is_made_and_every_public_name_is_on_one() -> None:
    for room, name, *_ in BUILD["public_names"]():
        assert f"[`{name}`]" in PAGES[f"api/{room.rpartition('.')[2]}.md"]
    api = "".join(text for name, text in PAGES.items() if name.startswith("api/"))
    assert api.count("::: rlprompt.tasks.ClassificationTask\n") == 1
    assert "::: rlprompt.agents.Greedy\n" in PAGES["methods/greedy.md"]


def test_every_page_is_in_the_navigation_once() -> None:
    def leaves(node: object) -> Iterator[str]:
        if isinstance(node, str):
            yield node
        for one in node.values() if isinstance(node, dict) else node if type(node) is list else ():
            yield from leaves(one)

    assert sorted(leaves(BUILD["navigation"](PAGES))) == sorted(PAGES)


@pytest.mark.parametrize(
    ("link", "turned"),
    [
        ("[a](docs/gpu.md#memory)", "[a](gpu.md#memory)"),
        ("[a](experiments/LOG.md)", "[a](results.md)"),
        ("[a](docs/a-study.ipynb)", "[a](a-study.md)"),
        ("[a](https://example.org/docs/gpu.md)", "[a](https://example.org/docs/gpu.md)"),
        ("```\n[a](nowhere.md)\n```", "```\n[a](nowhere.md)\n```"),
        ("```yaml a.yaml\nb: 1\n```", '```yaml title="a.yaml"\nb: 1\n```'),
    ],
)
def test_links_lead_to_the_same_thing_on_the_site(link: str, turned: str) -> None:
    assert BUILD["on_site"](link, "README.md", "index.md") == turned


def test_a_link_to_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^docs/gpu.md links to nowhere.md, which is not there$"):
        BUILD["on_site"]("[a](nowhere.md)", "docs/gpu.md", "gpu.md")


def test_a_heading_that_has_gone_is_refused() -> None:
    with pytest.raises(ValueError, match=r"README.md has no heading '## B' any more"):
        BUILD["part"]("# A\n", "# A", "## B")


def test_a_name_has_the_docstring_of_its_definition_or_none(tmp_path: Path) -> None:
    code = tmp_path / "room.py"
    code.write_text('A = 1\n"""One."""\nB = 2\n\ndef c() -> None:\n    """Three."""\n', "utf-8")
    assert [BUILD["docstring"](code, name) for name in "ABcd"] == ["One.", "", "Three.", ""]


def messages() -> set[tuple[str, ...]]:
    """The texts of the source, each in the pieces between which something is put in."""
    found = set()
    for path in (ROOT / "rlprompt").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            pieces = tuple(
                piece.strip()
                for one in parts
                if isinstance(one, ast.Constant) and isinstance(one.value, str)
                for piece in re.split(r"%[.\d]*[dfs]", one.value)
            )
            if sum(map(len, pieces)) >= LEAST:
                found.add(pieces)
    return found


def is_in(pieces: tuple[str, ...], line: str) -> bool:
    """Whether a line has all the pieces, one behind the other."""
    end = 0
    for piece in pieces:
        start = line.find(piece, end)
        if start < 0:
            return False
        end = start + len(piece)
    return True


def test_the_messages_that_are_quoted_are_those_of_the_source() -> None:
    blocks = re.findall(r"^```text\n(.*?)\n```$", TROUBLE, re.MULTILINE | re.DOTALL)
    quoted, known = [line for block in blocks for line in block.splitlines()], messages()
    assert len(quoted) > 20
    assert [line for line in quoted if not any(is_in(one, line) for one in known)] == []


@pytest.mark.parametrize("page", ["concepts"])
def test_the_examples_of_a_page_run(page: str, tmp_path: Path) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text("utf-8")
    for number, code in enumerate(re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)):
        file = tmp_path / f"{number}.py"
        file.write_text(code, "utf-8")
        runpy.run_path(str(file))


@pytest.mark.parametrize(
    ("heading", "section"),
    [
        ("At the top", Config),
        ("`model`", ModelConfig),
        ("`task`", ClassificationConfig),
        ("`prompt`", PromptConfig),
    ],
)
def test_every_key_of_an_experiment_file_is_on_its_page_with_its_default(
    heading: str, section: type[StrictModel]
) -> None:
    text = FILE_PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    cells = {key: row[1].replace("`", "") for row in rows for key in re.findall(r"`(\w+)`", row[0])}
    for name, field in section.model_fields.items():
        default = field.default
        assert name in cells or (name == "ray" and "`ray:`" in text), name
        if isinstance(default, str | int | float) and default:
            said = f"{default:g}" if isinstance(default, float) else str(default)
            assert said in cells[name].split(", "), name
    if section is Config:
        for part in (StopConfig, SelectionConfig, RayConfig):
            assert [name for name in part.model_fields if f"`{name}`" not in text] == []


def settings_on_page(heading: str, kind: str = "") -> dict[str, Any]:
    """The settings in the table below a heading, of one kind where there are several.

    Returns:
        Their defaults, None where no value stands there.
    """
    found: dict[str, Any] = {}
    for line in FILE_PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0].splitlines():
        cells = [re.findall(r"`([^`]+)`", cell) for cell in line.split("|")[1:4]]
        if not line.startswith("| `") or (kind and kind not in cells.pop(0)):
            continue
        defaults = [yaml.safe_load(one) for one in cells[1]] or [None] * len(cells[0])
        found |= zip(cells[0], defaults, strict=True)
    return found


SECTIONS: list[tuple[str, str, Callable[..., Any]]] = [
    *(("`references`", kind, made) for kind, made in REFERENCES.items()),
    ("Task `generation`", "", load("task", "generation")),
    ("Task `compression`", "", load("task", "compression")),
    ("Task `style-transfer`", "", load("task", "style-transfer")),
    ("Tasks of instruction induction", "", load("task", "antonyms")),
]


@pytest.mark.parametrize(("heading", "kind", "made"), SECTIONS)
def test_settings_of_what_has_no_section_of_its_own_are_there_with_their_defaults(
    heading: str, kind: str, made: Callable[..., Any]
) -> None:
    found = settings_on_page(heading, kind)
    own = {name: one for name, one in settings_of(made).items() if name not in DRAW}
    assert sorted(found) == sorted(own)
    for name, default in own.items():
        if default in (Parameter.empty, "", None) or name in ("template", "hand_prompt"):
            continue  # these are said in words
        assert found[name] == (list(default) if isinstance(default, tuple) else default), name


def test_the_examples_of_the_page_on_files_load(tmp_path: Path) -> None:
    for data in (*ROOT.glob("docs/*.csv"), *ROOT.glob("docs/*.jsonl")):
        shutil.copy(data, tmp_path)
    blocks = re.findall(r"^```yaml(?: \S+)?\n(.*?)^```$", FILE_PAGE, re.M | re.S)
    tasks = list[Task]()
    for number, text in enumerate(blocks):
        file = tmp_path / f"{number}.yaml"
        file.write_text(text, "utf-8")
        tasks += [load_task(section) for _, _, section in load_config(file).split_tasks]
    kinds = [type(task).__name__.removesuffix("Task") for task in tasks]
    assert kinds == ["Classification", "Compression", "StyleTransfer"]
