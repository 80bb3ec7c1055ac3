from __future__ import annotations

from pathlib import Path

import pytest

from rlprompt._utils.own_source import imported_files


def write(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        path = folder / f"{name.replace('__', '/').replace('/init', '/__init__')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_a_loose_file_is_made_of_what_it_imports_beside_it(tmp_path: Path) -> None:
    write(tmp_path, a="import b, numpy", b="from pack import c, d", pack__init="", pack__c="", z="")
    assert list(imported_files(tmp_path / "a.py")) == ["b", "pack", "pack.c"]


def test_files_that_import_each_other_come_once(tmp_path: Path) -> None:
    write(tmp_path, a="import b", b="import a\nimport b")
    assert imported_files(tmp_path / "a.py") == {"b": tmp_path / "b.py"}


def test_a_module_of_a_package_is_made_of_that_package_alone(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "site-packages",
        own__init="",
        own__a="from . import b\nfrom .deep import c\nimport numpy, own.d",
        own__b="import own.a",
        own__d="",
        own__e="",
        own__deep__init="from .. import d",
        own__deep__c="from ..e import anything",
        numpy="import own.b",
    )
    found = imported_files(folder / "own" / "a.py")
    assert list(found) == ["own", "own.b", "own.d", "own.deep", "own.deep.c", "own.e"]


def test_a_file_in_a_folder_that_is_a_package_is_made_of_what_lies_beside_it_too(
    tmp_path: Path,
) -> None:
    write(tmp_path / "own", init="", a="import b\nfrom own import c", b="", c="", d="")
    (tmp_path / "own" / "__init__.py").write_text("")
    assert list(imported_files(tmp_path / "own" / "a.py")) == ["b", "own", "own.c"]


@pytest.mark.parametrize("place", ["site-packages", "dist-packages"])
def test_a_loose_file_among_those_of_others_is_itself_alone(tmp_path: Path, place: str) -> None:
    folder = write(tmp_path / place, a="import numpy", numpy="")
    assert imported_files(folder / "a.py") == {}


def test_what_cannot_be_read_as_python_imports_nothing(tmp_path: Path) -> None:
    write(tmp_path, a="import b", b="import c (", c="")
    assert list(imported_files(tmp_path / "a.py")) == ["b"]
