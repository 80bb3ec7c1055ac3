"""What `import rlprompt` and its rooms offer, and what that costs."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from types import FunctionType, ModuleType

import pytest

import rlprompt
import rlprompt.search.run

PRIVATE = {"_utils"}
ROOMS = sorted(module.name for module in pkgutil.iter_modules(rlprompt.__path__) if module.ispkg)
NAMES = [
    (package.__name__, name)
    for package in (rlprompt, *(importlib.import_module(f"rlprompt.{room}") for room in ROOMS))
    for name in getattr(package, "__all__", ())
]
# Files, figures and help need no model: what they load besides must not bring one in.
NEED_NO_TORCH = (
    "rlprompt",
    "rlprompt.cli.app",
    "rlprompt.config.yaml_file",
    "rlprompt.reports.html",
    "rlprompt.reports.study",
    "rlprompt.search.result",
    "rlprompt.statistics.verdict",
    "rlprompt.store.summary",
    "rlprompt.studies.inspection",
    "rlprompt.transfer.file",
    "rlprompt.transfer.matrix",
    *(f"rlprompt.{room}" for room in ROOMS),
)


@pytest.mark.parametrize(("package", "name"), NAMES)
def test_every_public_name_is_there(package: str, name: str) -> None:
    module = importlib.import_module(package)
    assert getattr(module, name) is not None
    assert name in dir(module)


def test_every_room_has_a_face() -> None:
    faces = {package for package, _ in NAMES} - {"rlprompt"}
    assert faces == {f"rlprompt.{room}" for room in ROOMS if room not in PRIVATE}


def test_a_function_is_not_hidden_by_its_room() -> None:
    assert isinstance(sys.modules["rlprompt.search"], ModuleType)
    assert isinstance(rlprompt.search, FunctionType)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="serach"):
        _ = rlprompt.serach  # type: ignore[attr-defined]


# In a fork for each module, so that none finds imported what another has. What we use of others
# is there before the forks.
WITHOUT_TORCH = """
import importlib, os, sys
import numpy, pydantic, typer
for module in sys.argv[1:]:
    child = os.fork()
    if not child:
        importlib.import_module(module)
        os._exit("torch" in sys.modules or "transformers" in sys.modules)
    print(module, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.fixture(scope="module")
def loads_torch() -> dict[str, int]:
    """For each module 0 where it imports and brings in no torch."""
    command = [sys.executable, "-c", WITHOUT_TORCH, *NEED_NO_TORCH]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {name: int(status) for name, status in map(str.split, done.stdout.splitlines())}


@pytest.mark.parametrize("module", NEED_NO_TORCH)
def test_it_loads_no_torch(module: str, loads_torch: dict[str, int]) -> None:
    assert loads_torch[module] == 0
