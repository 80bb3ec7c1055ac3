"""The command that says what a machine and a model are, for oneself and for a report of a bug."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rlprompt.cli.options import Device, Dtype

if TYPE_CHECKING:
    from rlprompt.check.diagnosis import Diagnosis


def doctor(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="As in `model:` of an experiment file; left out: machine only."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for a bug report.")] = False,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Examine this machine and a model, and say what is wrong.

    Shows versions, devices, memory and speed; of a MODEL also how it is scored and why, how fast,
    and how its tokenizer splits text. Exit code 1 if something is wrong. Nothing is sent anywhere,
    and the home folder is written as ~.
    """
    from rlprompt.check.diagnosis import Diagnosis
    from rlprompt.check.machine import examine_machine

    found = examine_machine()
    if model is not None:
        of_model = _of_model(model, device or "auto", dtype or "auto")
        findings = (*found.findings, *of_model.findings)
        found = Diagnosis({**found.facts, **of_model.facts}, findings)
    typer.echo(found.json(indent=1) if as_json else "\n".join(found.lines()))
    if found.report.failed:
        raise typer.Exit(1)


def _of_model(name: str, device: str, dtype: str) -> Diagnosis:
    """What a model is, or why it cannot be loaded."""
    from rlprompt._utils.assets import AssetError
    from rlprompt.check.diagnosis import Diagnosis
    from rlprompt.check.model import examine_model
    from rlprompt.check.report import Finding
    from rlprompt.models.lm import FrozenLM

    try:
        lm = FrozenLM.load(name, device=device, dtype=dtype)
    except (ValueError, AssetError) as error:
        return Diagnosis({"model": {"name": name}}, (Finding("load", "fail", str(error)),))
    return examine_model(lm)
