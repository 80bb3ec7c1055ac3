"""Writes the pages of the documentation site into build/docs, and its navigation beside them.

`make docs` runs it and the site's generator after it. Nothing is kept twice: pages lie in docs/ as
they are read in the repository, the first one is the beginning of README.md, results are
experiments/LOG.md, and the pages of methods and of rooms name what is public, whose docstrings the
generator reads. Links are written for the repository; here they are turned to where the same thing
is on the site, and a link to nothing is an error.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import tomllib
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "build"
GROUP = "rlprompt.optimisers"

# Pages in order; one in docs/ that is not named here comes last among the how-tos.
START = ("index.md", "from-a-file-to-predictions.md")
CONCEPTS = ("concepts.md", "what-is-equal.md")
HOW_TO = (
    "tasks-from-a-file.md",
    "tasks-from-a-function.md",
    "tasks-from-a-class.md",
    "what-is-searched-for.md",
    "search-a-system-prompt.md",
    "instructions.md",
    "use-models.md",
    "served-models.md",
    "studies.md",
    "read-the-report.md",
    "kill-and-resume.md",
    "gpu.md",
    "cluster.md",
    "use-a-prompt.md",
    "optimisers-of-your-own.md",
    "reinforcement-learning.md",
)
REFERENCE = (
    "methods.md",
    "experiment-file.md",
    "architecture.md",
    "models.md",
    "if-it-goes-wrong.md",
)
# From README.md: a page, the heading that it begins with, and the one before which it ends.
PARTS = {
    "index.md": ("# rlprompt", "## Use the prompt"),
}
# What the theme is told of a page.
ASIDE = {
    "index.md": "hide: [navigation]",
    "if-it-goes-wrong.md": "hide: [navigation]",
    "results.md": "search: {boost: 0.3}",
    "changes.md": "search: {boost: 0.3}",
}
# Whole files from elsewhere in the repository, by what they are on the site.
ELSEWHERE = {"experiments/LOG.md": "results.md", "CHANGELOG.md": "changes.md"}

_FENCED = re.compile(r"^(```.*?^```$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
_TITLED = re.compile(r"^```(\w+) (\S+)$", re.MULTILINE)
_ROW = re.compile(r"^\| `([\w-]+)` \| (.*) \|$", re.MULTILINE)


class Public(NamedTuple):
    """A public name.

    Attributes:
        room: Package that gives it, such as `rlprompt.tasks`.
        name: What it is called there.
        module: Module that defines it, seen from the room, such as `tasks.base` or `base`.
        summary: First line of its docstring, or "".
    """

    room: str
    name: str
    module: str
    summary: str


def main() -> None:
    """Write everything anew."""
    docs = OUT / "docs"
    shutil.rmtree(docs, ignore_errors=True)
    made = pages()
    for name, text in made.items():
        path = docs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    for source, target in files().items():
        path = docs / target
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / source, path)
    config = {"INHERIT": "../docs/properdocs.yml", "nav": navigation(made)}
    (OUT / "properdocs.yml").write_text(json.dumps(config, indent=1), "utf-8")


def pages() -> dict[str, str]:
    """Every page of the site by its path, as Markdown.

    Raises:
        ValueError: A link leads nowhere, a heading of README.md is gone, a public name has no
            docstring, or a method no row in docs/methods.md.
    """
    if bare := [f"{one.room}.{one.name}" for one in public_names() if not one.summary]:
        raise ValueError(f"no docstring: {', '.join(bare)}")
    made = {
        path.name: on_site(path.read_text("utf-8"), f"docs/{path.name}", path.name)
        for path in sorted((ROOT / "docs").glob("*.md"))
    }
    for path in sorted((ROOT / "docs").glob("*.ipynb")):
        made[f"{path.stem}.md"] = on_site(notebook(path), f"docs/{path.name}", f"{path.stem}.md")
    readme = (ROOT / "README.md").read_text("utf-8")
    for name, (begin, end) in PARTS.items():
        made[name] = on_site(part(readme, begin, end), "README.md", name)
    for source, name in ELSEWHERE.items():
        made[name] = on_site((ROOT / source).read_text("utf-8"), source, name)
    made["methods.md"] = _ROW.sub(r"| [`\1`](methods/\1.md) | \2 |", made["methods.md"])
    for name, said in ASIDE.items():
        made[name] = f"---\n{said}\n---\n\n{made[name]}"
    return made | methods() | rooms()


def part(text: str, begin: str, end: str) -> str:
    r"""Lines of a text from one heading to before another, the first made the page's title.

    >>> part("# A\n\n## B\n\n### C\n\n## D\n", "## B", "## D")
    '# B\n\n## C\n'
    """
    lines = text.splitlines()
    for heading in (begin, end):
        if heading not in lines:
            raise ValueError(
                f"README.md has no heading {heading!r} any more; say in docs/build.py where the "
                "site's pages of it begin and end"
            )
    kept = "\n".join(lines[lines.index(begin) : lines.index(end)])
    levels = begin.index(" ") - 1
    return re.sub(rf"^#{{{levels}}}(?=#+ )", "", kept, flags=re.MULTILINE).rstrip() + "\n"


def notebook(path: Path) -> str:
    """The cells of a notebook one after the other, without what they printed."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    texts = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    return "\n\n".join(
        text if kind == "markdown" else f"```python\n{text}\n```" for kind, text in texts
    )


def on_site(text: str, source: str, target: str) -> str:
    """A page of the repository as one of the site: its links, and the names of its files.

    Args:
        text: Markdown.
        source: Where it lies in the repository.
        target: Where it goes on the site.

    Raises:
        ValueError: A link leads nowhere.
    """

    def turned(link: re.Match[str]) -> str:
        there = os.path.normpath(PurePosixPath(source).parent / link[1])
        if not (ROOT / there).exists():
            raise ValueError(f"{source} links to {link[1]}, which is not there")
        if there == source == "README.md":
            return link[0]
        place = site_path(there)
        return os.path.relpath(place, PurePosixPath(target).parent) + (link[2] or "")

    pieces = _FENCED.split(text)
    # Every other piece is a block of code.
    pieces[::2] = [_LINK.sub(turned, piece) for piece in pieces[::2]]
    return _TITLED.sub(r'```\1 title="\2"', "".join(pieces))


def site_path(path: str) -> str:
    """Where a file of the repository is on the site."""
    if path in ELSEWHERE:
        return ELSEWHERE[path]
    if path == "README.md":
        return "index.md"
    return re.sub(r"\.ipynb$", ".md", path.removeprefix("docs/"))


def files() -> dict[str, str]:
    """Files that are no pages, repository path to site path: data, pictures, experiments."""
    docs = [
        path
        for path in (ROOT / "docs").rglob("*.*")
        if path.suffix not in (".md", ".ipynb", ".py", ".yml", ".pyc")
    ]
    found = [*docs, *(ROOT / "experiments").glob("*.yaml")]
    names = [path.relative_to(ROOT).as_posix() for path in sorted(found)]
    return {name: site_path(name) for name in names}


def public_names() -> Iterator[Public]:
    """All names of `rlprompt` and of its rooms, in the order of `__all__`."""
    package = ROOT / "rlprompt"
    for stub in (package / "__init__.pyi", *sorted(package.glob("*/__init__.pyi"))):
        room = ".".join(("rlprompt", *stub.parent.relative_to(package).parts))
        for node in ast.parse(stub.read_text("utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.module:
                code = stub.parent / (node.module.replace(".", "/") + ".py")
                for alias in node.names:
                    summary = docstring(code, alias.name).partition("\n")[0]
                    yield Public(room, alias.name, node.module, summary)


def docstring(code: Path, name: str) -> str:
    """Docstring of a class or a function, or the text below a value; "" where there is none."""
    body = parsed(code)
    for node, below in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return ast.get_docstring(node) or ""
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(one, ast.Name) and one.id == name for one in targets):
            text = below.value if isinstance(below, ast.Expr) else None
            said = text.value if isinstance(text, ast.Constant) else ""
            return said if isinstance(said, str) else ""
    return ""


@cache
def parsed(code: Path) -> list[ast.stmt]:
    """The statements of a module, read once: many names are in one."""
    return ast.parse(code.read_text("utf-8")).body


def short_names() -> Mapping[str, str]:
    """Short names of optimisers to their classes."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return {name: point.partition(":")[2] for name, point in project["entry-points"][GROUP].items()}


def methods() -> dict[str, str]:
    """A page for each optimiser that has a short name."""
    points = short_names()
    rows = dict(_ROW.findall((ROOT / "docs" / "methods.md").read_text("utf-8")))
    if lacking := points.keys() ^ rows.keys():
        raise ValueError(
            f"the table of docs/methods.md and the optimisers of pyproject.toml differ in "
            f"{', '.join(sorted(lacking))}"
        )
    made = {}
    for name, point in points.items():
        after, searches, costs, when = rows[name].split(" | ")
        lead = f"It is {after}." if after.startswith("a control") else f"After {after}."
        made[f"methods/{name}.md"] = (
            f"# {name}\n\n{lead} It searches **{searches}**. A step costs {costs}.\n\n"
            f"**When:** {when}\n\n"
            f"```yaml\noptimisers: [{name}]   # or {{name: {name}, ...}} with settings\n```\n\n"
            f"::: rlprompt.agents.{point}\n"
        )
    return made


def rooms() -> dict[str, str]:
    """A page for each room; what has a page of its own, or a room, is only named."""
    names = list(public_names())
    methods_of = {point: name for name, point in short_names().items()}
    homes = {one.name: one.room for one in names if one.room != "rlprompt"}
    made = {}
    for room in dict.fromkeys(one.room for one in names):
        short = room.rpartition(".")[2]
        listed, shown = [], []
        for one in sorted((one for one in names if one.room == room), key=lambda one: one.name):
            if room == "rlprompt" and one.name in homes:
                there = f"{homes[one.name].rpartition('.')[2]}.md#{homes[one.name]}.{one.name}"
                if one.name in methods_of:
                    there = f"../methods/{methods_of[one.name]}.md"
            elif room == "rlprompt.agents" and one.name in methods_of:
                there = f"../methods/{methods_of[one.name]}.md"
            else:
                there = f"#{room}.{one.name}"
                shown.append(f"::: {room}.{one.name}\n")
            listed.append(f"| [`{one.name}`]({there}) | {one.summary} |")
        code = ROOT.joinpath(*room.split("."), "__init__.py").read_text("utf-8")
        about = ast.get_docstring(ast.parse(code)) or ""
        table = "\n".join(["| | |", "|---|---|", *listed])
        made[f"api/{short}.md"] = "\n\n".join([f"# {room}", about, table, *shown])
    return made


def navigation(made: Collection[str]) -> list[dict[str, object]]:
    """The site's sections, and the pages of each."""
    named = {*START, *CONCEPTS, *HOW_TO, *REFERENCE, *ELSEWHERE.values()}
    others = [name for name in made if "/" not in name and name not in named]

    def those(*names: str) -> list[str]:
        return [name for name in names if name in made]

    by_folder = {
        folder: [name for name in made if name.startswith(f"{folder}/")]
        for folder in ("methods", "api")
    }
    return [
        {"Start": those(*START)},
        {"Concepts": those(*CONCEPTS)},
        {"How-to": those(*HOW_TO, *others)},
        {"Methods": ["methods.md", *by_folder["methods"]]},
        {"If it goes wrong": "if-it-goes-wrong.md"},
        {
            "Reference": [
                *those("experiment-file.md", "architecture.md", "models.md"),
                {"API": by_folder["api"]},
                {"Results": "results.md"},
                {"Changes": "changes.md"},
            ]
        },
    ]


if __name__ == "__main__":
    main()
