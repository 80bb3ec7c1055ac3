"""What gets installed is what is in the tree, under the name rlprompt and no other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
MAPPED = ("envs", "agents")
# What is in the package beside Python.
DATA = (
    *(f"export/{name}.md.j2" for name in ("card", "card_parts", "served_card")),
    "reports/page.css",
    "reports/page.html.j2",
    "py.typed",
)
HEAVY = ("torch", "transformers", "gymnasium", "stable_baselines3", "matplotlib")
HELP = "import sys; from rlprompt.cli.app import main; sys.argv = ['rlprompt', '--help']; main()"
LIMIT = 0.5  # seconds


def python(
    *arguments: str | Path, cwd: Path, executable: Path | str = sys.executable
) -> subprocess.CompletedProcess[str]:
    """Run Python with nothing of this process's import path but what is installed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def succeeded(finished: subprocess.CompletedProcess[str]) -> str:
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by way of the source archive, from a copy of the tree."""
    # A copy, because setuptools reuses what an earlier build left in build/.
    copy = tmp_path_factory.mktemp("source") / "rlprompt"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("rlprompt", *MAPPED):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignore)
    # Without isolation, so with the pinned setuptools and without the network.
    succeeded(python("-m", "build", "--no-isolation", "--outdir", copy / "dist", cwd=copy))
    (built,) = (copy / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment that holds the wheel, and our own dependencies."""
    folder = tmp_path_factory.mktemp("environment")
    succeeded(python("-m", "venv", "--without-pip", folder, cwd=folder))
    paths = sysconfig.get_paths("venv", vars={"base": str(folder), "platbase": str(folder)})
    interpreter = Path(paths["scripts"]) / Path(sys.executable).name
    install = ["install", "-q", "--no-deps", "--no-index", str(wheel)]
    succeeded(python("-m", "pip", "--python", interpreter, *install, cwd=folder))
    # A path in a .pth file is only added: the .pth files inside it, an editable install of this
    # checkout among them, are not read.
    dependencies = sysconfig.get_path("purelib")
    (Path(paths["purelib"]) / "dependencies.pth").write_text(dependencies + "\n")
    return interpreter


def test_no_message_and_no_docstring_points_to_a_file_that_is_not_installed() -> None:
    """Neither docs/ nor experiments/ comes with the wheel: pages are named by their titles."""
    sources = [path for name in ("rlprompt", *MAPPED) for path in (ROOT / name).rglob("*")]
    texts = {path: path.read_text("utf-8") for path in sources if path.suffix in (".py", ".j2")}
    pointing = re.compile(r"\b(?:docs/[\w*-]+\.md|experiments/[\w*-]+\.yaml)")
    found = {path: pointing.findall(text) for path, text in texts.items()}
    assert len(texts) > 100
    assert {path: names for path, names in found.items() if names} == {}
    titles = {path.read_text("utf-8").partition("\n")[0][2:] for path in ROOT.glob("docs/*.md")}
    named = ("A task from a file", "A task from a function", "A task from a class", "Models")
    assert titles.issuperset((*named, "Optimisers of your own", "Search on a served model"))


@pytest.mark.wheel
class TestWheel:
    def test_the_only_name_on_top_is_rlprompt(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            tops = {name.split("/")[0] for name in archive.namelist()}
        version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
        assert tops == {"rlprompt", f"rlprompt-{version}.dist-info"}

    def test_it_holds_the_modules_of_the_tree_and_no_others(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            inside = {name for name in archive.namelist() if name.startswith("rlprompt/")}
        # A room that pyproject.toml does not list imports fine from the checkout. os.walk follows
        # no links, so that the mapped folders are walked where they are.
        expected = set[str]()
        for top in ("rlprompt", *MAPPED):
            for path, _, files in os.walk(ROOT / top):
                below = Path(path).relative_to(ROOT)
                place = below if top == "rlprompt" else Path("rlprompt", below)
                expected |= {str(place / name) for name in files if name.endswith((".py", ".pyi"))}
        assert inside == expected | {f"rlprompt/{name}" for name in DATA}

    def test_it_imports_outside_the_checkout(self, installed: Path, tmp_path: Path) -> None:
        code = "import rlprompt, rlprompt.envs, rlprompt.agents as a; print(a.__file__)"
        file = Path(succeeded(python("-c", code, cwd=tmp_path, executable=installed)).strip())
        assert file.is_relative_to(installed.parents[1])

    @pytest.mark.parametrize("name", MAPPED)
    def test_it_installs_no_bare_name(self, installed: Path, tmp_path: Path, name: str) -> None:
        finished = python("-c", f"import {name}", cwd=tmp_path, executable=installed)
        assert f"ModuleNotFoundError: No module named '{name}'" in finished.stderr

    def test_every_optimiser_of_its_entry_points_loads(
        self, installed: Path, tmp_path: Path
    ) -> None:
        code = (
            "from importlib.metadata import distribution\n"
            "points = distribution('rlprompt').entry_points\n"
            "for point in points.select(group='rlprompt.optimisers'):\n"
            "    point.load(); print(point.name)\n"
        )
        names = succeeded(python("-c", code, cwd=tmp_path, executable=installed)).split()
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert sorted(names) == sorted(project["entry-points"]["rlprompt.optimisers"])

    def test_its_command_runs(self, installed: Path, tmp_path: Path) -> None:
        (command,) = installed.parent.glob("rlprompt*")
        finished = subprocess.run([command, "--help"], cwd=tmp_path, capture_output=True, text=True)
        assert "compare" in succeeded(finished)


def test_a_release_is_tried_on_every_version_that_is_named() -> None:
    """And its commands are targets of the Makefile."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [one.rpartition(" ")[2] for one in project["classifiers"] if "Python :: 3." in one]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    jobs = workflow["jobs"]
    assert jobs["install"]["strategy"]["matrix"]["python"] == named
    assert project["requires-python"] == f">={named[0]}"
    commands = [step.get("run", "") for step in jobs["build"]["steps"]]
    assert "make dist" in commands
    assert "\ndist: " in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("name", MAPPED)
class TestCheckout:
    def test_the_link_is_kept_as_a_link(self, name: str) -> None:
        if not (ROOT / ".git").exists():
            pytest.skip("not a git checkout")
        listing = subprocess.run(
            ["git", "ls-files", "-s", f"rlprompt/{name}"], cwd=ROOT, capture_output=True, text=True
        )
        assert succeeded(listing).startswith("120000 ")
        assert (ROOT / "rlprompt" / name).readlink() == Path("..") / name

    def test_the_bare_name_is_refused_with_advice(self, name: str) -> None:
        finished = python("-c", f"import {name}", cwd=ROOT)
        assert f"ImportError: import rlprompt.{name}, not {name}" in finished.stderr


class TestStart:
    """What a user waits for before anything happens."""

    @pytest.mark.parametrize("code", ["import rlprompt", HELP], ids=["import", "help"])
    def test_it_takes_less_than_half_a_second(self, code: str) -> None:
        # Time on the processor, which does not count what others do there. The best of several: a
        # busy machine slows single runs down, nothing speeds one up.
        best = float("inf")
        for _ in range(10):
            before = os.times()
            succeeded(python("-c", code, cwd=ROOT))
            after = os.times()
            user = after.children_user - before.children_user
            best = min(best, user + after.children_system - before.children_system)
            if best < LIMIT:
                return
        pytest.fail(f"the best of 10 runs took {best:.2f} s; the limit is {LIMIT} s")

    @pytest.mark.parametrize("code", ["import rlprompt", HELP], ids=["import", "help"])
    def test_it_imports_nothing_heavy(self, code: str) -> None:
        report = f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])"
        program = f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\n{report}"
        assert "HEAVY []" in succeeded(python("-c", program, cwd=ROOT))
