"""What `rlprompt ls` prints: the optimisers, tasks, models and references that there are.

To see the settings of a search method its module is imported, and PyTorch with it, which takes
seconds. What was seen is kept in the cache until a file of its package is another one.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import sys
import textwrap
from collections.abc import Callable
from importlib.metadata import EntryPoint
from inspect import Parameter
from pathlib import Path
from typing import Any

import typer

from rlprompt._utils.assets import ASSETS, cache_folder, is_cached
from rlprompt._utils.files import write_atomically
from rlprompt.config import registry
from rlprompt.config.registry import settings_of, summary_of
from rlprompt.config.titles import shown
from rlprompt.data.load import MOVIE_REVIEWS
from rlprompt.types import RegistryKind


def list_optimisers() -> None:
    """Print the search methods with their settings."""
    _list_entries("optimiser")
    typer.echo("")
    typer.echo(
        'Your own: `class: FILE.py:CLASS` in an experiment; see "Optimisers of your own" in the '
        "documentation."
    )


def list_tasks() -> None:
    """Print the tasks that come with packages, and what else a task may be."""
    _list_entries("task")
    asset = ASSETS[MOVIE_REVIEWS]
    typer.echo("")
    typer.echo(
        f"{MOVIE_REVIEWS}, data that needs no hub: {asset.description} ({asset.licence}; "
        f"{_state(MOVIE_REVIEWS)})\n    {asset.source}"
    )
    typer.echo("")
    typer.echo(
        'Your own: a file and label words, a function, or a class; see "A task from a file" and\n'
        "the pages after it in the documentation.\n"
        "`data:` takes a file with a column for each field of the template and one for the label,\n"
        "of which train, dev and test are drawn; or a folder with train, dev and test files."
    )


def list_models() -> None:
    """Print the models that need no hub, and what else a model may be."""
    for name, asset in ASSETS.items():
        if asset.member.endswith(".gguf"):
            typer.echo(f"{name}: {asset.description} ({asset.licence}; {_state(name)})")
            typer.echo(f"    {asset.source}")
    typer.echo("")
    typer.echo(
        "`model:` also takes a name on the Hugging Face hub (causal, masked, encoder-decoder), a\n"
        "folder made by save_pretrained, or a .gguf file; or {url: ...} for one on a server: see\n"
        f'"Search on a served model" in the documentation. Cache: {cache_folder()}'
    )


def list_references() -> None:
    """Print what a study may train beside its searches, with the settings of each."""
    from rlprompt.studies.references import REFERENCES

    for name, made in REFERENCES.items():
        summary, settings = _said_of(made)
        typer.echo(f"{name}: {summary}")
        _echo_settings(settings)
    typer.echo("\nAll but fine-tuning need another package: pip install 'rlprompt[references]'")


def _list_entries(kind: RegistryKind) -> None:
    kept = cache_folder() / f"{kind}s.json"
    seen: dict[str, list[str]] = {}
    with contextlib.suppress(OSError, ValueError):
        seen = json.loads(kept.read_text(encoding="utf-8"))
    known = dict(seen)
    for name, point in registry.entries(kind).items():
        stamp = f"{sys.version_info[:2]} {point.value} {_stamp(point.module.partition('.')[0])}"
        if seen.get(name, [""])[0] != stamp:
            try:
                seen[name] = [stamp, *_said_of(registry.load(kind, name))]
            except ValueError as error:  # the others can be listed all the same
                typer.echo(f"{name}: {error}")
                continue
        _, summary, settings = seen[name]
        typer.echo(f"{name}: {summary}")
        typer.echo(f"    {point.value}, from {_package(point)}")
        _echo_settings(settings)
    if seen != known:
        with contextlib.suppress(OSError):  # it is only quicker with it
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(kept, json.dumps(seen).encode())


def _said_of(made: Callable[..., Any]) -> tuple[str, str]:
    """A line about something that is made with settings, and these."""
    settings = [
        setting if default is Parameter.empty else f"{setting}={shown(default)}"
        for setting, default in settings_of(made).items()
    ]
    return summary_of(made), ", ".join(settings)


def _echo_settings(settings: str) -> None:
    if settings:
        said = f"settings: {settings}"
        typer.echo(textwrap.fill(said, 100, initial_indent="    ", subsequent_indent=" " * 8))


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "unknown package"


@functools.cache
def _stamp(package: str) -> str:
    """A hash of when the files of a package were changed; nothing of it is imported."""
    spec = importlib.util.find_spec(package)
    digest = hashlib.blake2b(digest_size=16)
    if spec is not None:
        for place in spec.submodule_search_locations or [str(Path(spec.origin or "").parent)]:
            for folder, folders, files in os.walk(place, followlinks=True):
                folders.sort()
                for file in sorted(one for one in files if one.endswith(".py")):
                    about = Path(folder, file).stat()
                    digest.update(f"{folder}/{file} {about.st_mtime_ns} {about.st_size}".encode())
    return digest.hexdigest()


def _state(asset: str) -> str:
    return "in the cache" if is_cached(asset) else "not fetched yet"
