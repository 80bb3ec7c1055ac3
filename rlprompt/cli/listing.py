"""What `rlprompt ls` prints: the optimisers, tasks and models that there are."""

from __future__ import annotations

import textwrap
from inspect import Parameter

import typer

from rlprompt._utils.assets import ASSETS, cache_folder, is_cached
from rlprompt.config import registry
from rlprompt.config.registry import settings_of, summary_of
from rlprompt.config.schema import DEFAULT_DATA
from rlprompt.types import RegistryKind


def list_optimisers() -> None:
    """Print the search methods with their settings."""
    _list_entries("optimiser")
    typer.echo("")
    typer.echo(
        "Your own: `class: FILE:CLASS` in an experiment; see docs/optimisers-of-your-own.md."
    )


def list_tasks() -> None:
    """Print the tasks that come with packages, and what else a task may be."""
    _list_entries("task")
    asset = ASSETS[DEFAULT_DATA]
    typer.echo("")
    typer.echo(
        f"{DEFAULT_DATA}, data that needs no hub: {asset.description} ({asset.licence}; "
        f"{_state(DEFAULT_DATA)})\n    {asset.source}"
    )
    typer.echo("")
    typer.echo(
        "Your own: a file and label words, a function, or a class; see docs/tasks-from-*.md.\n"
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
        "folder made by save_pretrained, or a .gguf file; or {url: ...} for one on a server, as\n"
        f"docs/served-models.md says. Cache: {cache_folder()}"
    )


def _list_entries(kind: RegistryKind) -> None:
    for name, point in registry.entries(kind).items():
        package = f"{point.dist.name} {point.dist.version}" if point.dist else "unknown package"
        try:
            made = registry.load(kind, name)
        except ValueError as error:  # the others can be listed all the same
            typer.echo(f"{name}: {error}")
            continue
        typer.echo(f"{name}: {summary_of(made)}")
        typer.echo(f"    {point.value}, from {package}")
        settings = [
            setting if default is Parameter.empty else f"{setting}={default!r}"
            for setting, default in settings_of(made).items()
        ]
        if settings:
            said = f"settings: {', '.join(settings)}"
            typer.echo(textwrap.fill(said, 100, initial_indent="    ", subsequent_indent=" " * 8))


def _state(asset: str) -> str:
    return "in the cache" if is_cached(asset) else "not fetched yet"
