"""What a study cost, what it ran with, and how to run it again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from rlprompt._utils.text import cut_short
from rlprompt.models.noise import largest_noise
from rlprompt.reports.study_data import RunData, StudyData
from rlprompt.reports.tables import NONE, Table, count, number
from rlprompt.store.summary import ModelEntry, Summary, control_title

# Characters of a control's prompt; train examples in context are long, and in summary.json whole.
SHOWN = 240
PROPOSER = (
    "Proposer: tokens that a model, perhaps another one, read and wrote to propose prompts. They "
    "cost no rows; their seconds are among the method's own."
)
EMPTY: tuple[Any, ...] = (None, "", [], {})


def total_rows(study: StudyData) -> int:
    """Rows of searches, of what came beside them, of controls and of references."""
    return (
        sum(run.entry.rows + sum(_outside(run).values()) for run in study.runs)
        + sum(control.rows for control in study.summary.controls)
        + sum(reference.rows for reference in study.summary.references)
    )


def tokens(runs: Sequence[RunData]) -> float | None:
    """Tokens of searches' rows; None where a run does not know how long its rows are."""
    return _total(
        run.result.tokens_per_row * run.entry.rows
        if run.result and run.result.tokens_per_row is not None
        else None
        for run in runs
    )


def own_tokens(runs: Sequence[RunData]) -> float | None:
    """Tokens that the model read for the methods themselves; None where a run has no result."""
    return _total(run.result.own_tokens if run.result else None for run in runs)


def proposer_tokens(runs: Sequence[RunData]) -> tuple[int, int]:
    """Tokens of what models were asked to propose, and of what they wrote."""
    results = [run.result for run in runs if run.result]
    return sum(one.proposer_read for one in results), sum(one.proposer_written for one in results)


def judge_tokens(runs: Sequence[RunData]) -> int:
    """Tokens that models which judge answers read in searches."""
    return sum(run.result.judge_tokens for run in runs if run.result)


def _total(parts: Iterable[float | None]) -> float | None:
    """A sum of one part or more, if each is known."""
    found = list(parts)
    known = [part for part in found if part is not None]
    return sum(known) if known and len(known) == len(found) else None


def total_seconds(study: StudyData) -> float:
    """Seconds of searches, of what came beside them, and of references; controls have none."""
    return (
        sum(run.entry.total_seconds for run in study.runs)
        + sum(run.result.outside_seconds for run in study.runs if run.result)
        + sum(reference.seconds for reference in study.summary.references)
    )


def ledger(study: StudyData) -> Iterator[Table]:
    """What was spent, by method, and on what no search did."""
    yield _searches(study)
    summary = study.summary
    if bill := _bill(summary):
        yield bill
    controls = [
        (
            one.task,
            one.model,
            control_title(one.name),
            cut_short(one.prompt, SHOWN),
            yes_or_no(one.retypable),
            count(one.rows),
            one.note or NONE,
        )
        for one in summary.controls
    ]
    if controls:
        yield Table(
            "controls",
            "Controls: prompts that no search found",
            ("task", "model", "control", "prompt", "retypable", "rows", "note"),
            tuple(controls),
            text=(0, 1, 2, 4, 6),
            code=(3,),
            notes=("rows: to choose and score it, outside every budget; 0 where not counted.",),
        )
    references = [
        (
            one.task, one.model, one.name, one.kind, count(one.trainable), count(one.rows),
            number(one.seconds, 1), number(one.test), one.note or NONE,
        )
        for one in summary.references
    ]  # fmt: skip
    if references:
        yield Table(
            "references",
            "References: training of the same model on the same examples",
            ("task", "model", "name", "kind", "numbers", "rows", "seconds", "test", "note"),
            tuple(references),
            text=(0, 1, 2, 3, 8),
            notes=("rows: 3 for an example seen in training, 1 for one scored.",),
        )


def bill_line(model: ModelEntry) -> str:
    """What a server's answers came to, in a line; "" for a model that was here.

    >>> from rlprompt.store.summary import BillEntry
    >>> bill = BillEntry(requests=1200, tokens_in=90000, tokens_out=1200, untold=0)
    >>> fields = {"kind": "causal", "parameters": 0, "fingerprint": {}, "device": "", "noise": {}}
    >>> bill_line(ModelEntry(name="m", bill=bill, **fields))
    'bill of m: 1,200 requests, 90,000 tokens read, 1,200 written'
    """
    bill = model.bill
    if bill is None:
        return ""
    parts = [
        f"{bill.requests:,} requests",
        f"{bill.tokens_in:,} tokens read",
        f"{bill.tokens_out:,} written",
    ]
    if bill.untold:
        parts.append(f"tokens of {bill.untold:,} not reported")
    if bill.cost is not None:
        prices = f"{bill.input_price:g} and {bill.output_price:g} for a million tokens"
        parts.append(f"{bill.cost:,.4f} in all at {prices}")
    return f"bill of {model.name}: {', '.join(parts)}"


def _bill(summary: Summary) -> Table | None:
    """What servers were asked, None where there are none."""
    billed = [(one, one.bill) for one in summary.models if one.bill]
    if not billed:
        return None
    return Table(
        "bill",
        "Requests to servers, for controls and selection as well",
        ("model", "server", "requests", "tokens read", "tokens written", "not reported", "money"),
        tuple(
            (
                one.name,
                one.device,
                count(bill.requests),
                count(bill.tokens_in),
                count(bill.tokens_out),
                count(bill.untold),
                number(bill.cost, 4),
            )
            for one, bill in billed
        ),
        text=(0, 1),
        notes=(
            "As the servers count, each answer once however often it was used; not reported: "
            "requests whose tokens the server does not report. Answers that never arrived are not "
            "counted.",
        ),
    )


def setup(summary: Summary) -> Iterator[Table]:
    """Models, tasks and versions, with what tells them from all others."""
    yield Table(
        "models",
        "Models",
        ("model", "kind", "parameters", "device", "noise, nats", "spread, nats", "fingerprint"),
        tuple(
            (
                one.name,
                one.kind,
                count(one.parameters or None),
                one.device,
                NONE if (noise := largest_noise(one.noise)) is None else f"{noise:.1e}",
                number(one.noise.get("spread")),
                ", ".join(f"{key} {value}" for key, value in one.fingerprint.items() if value),
            )
            for one in summary.models
        ),
        text=(0, 1, 3, 6),
        notes=(
            "noise: the largest difference of a log-likelihood computed in another way; spread: "
            "the median difference between two prompts.",
        ),
    )
    yield Table(
        "tasks",
        "Tasks",
        (
            "task",
            "metric",
            "reward",
            "template",
            "train",
            "dev",
            "test",
            "label words",
            "fingerprint",
        ),
        tuple(
            (
                heading,
                one.metric,
                one.reward or NONE,
                one.template or NONE,
                *(count(one.examples.get(split)) for split in ("train", "dev", "test")),
                "; ".join(f"{k}: {' '.join(words)}" for k, words in one.label_words.items())
                or NONE,
                one.fingerprint,
            )
            for task in summary.tasks
            for heading, one in task.headed("fingerprint").items()
        ),
        text=(0, 1, 2, 3, 7, 8),
    )
    versions = [("started", summary.started or NONE), ("platform", summary.platform or NONE)]
    yield Table(
        "environment",
        "Environment",
        ("what", "which"),
        (*versions, *summary.versions.items()),
        text=(0, 1),
    )


def requirements(summary: Summary) -> str:
    """A command that installs what it ran with, at first; "" where that is unknown."""
    # The first of several, without the build, such as +cpu, which the package index does not have.
    packages = [
        f"{name}=={version.partition(', ')[0].partition('+')[0]}"
        for name, version in summary.versions.items()
        if name != "python"
    ]
    return f"pip install {' '.join(packages)}" if packages else ""


def config_text(summary: Summary) -> str:
    """The experiment file; "" for a study made in Python."""
    if not summary.config:
        return ""
    return str(yaml.safe_dump(_filled(summary.config), sort_keys=False, allow_unicode=True))


def _filled(part: Mapping[str, Any]) -> dict[str, Any]:
    written = {key: _written(value) for key, value in part.items()}
    return {key: value for key, value in written.items() if value not in EMPTY}


def _written(part: Any) -> Any:
    """A part of a config as a person writes it: settings beside the name, and no empty defaults."""
    if isinstance(part, list):
        return [_written(one) for one in part]
    if not isinstance(part, Mapping) or "class" in part:
        return part
    if "name" in part:
        # What a person set is kept, empty or not: only a model's revision is empty by default.
        named = {**part, **part.get("settings", {})}
        kept = {
            key: value
            for key, value in named.items()
            if key != "settings" and (key, value) != ("revision", None)
        }
        return kept["name"] if len(kept) == 1 else kept
    return _filled(part)


def yes_or_no(value: bool) -> str:
    """A truth value as a word."""
    return "yes" if value else "no"


def _searches(study: StudyData) -> Table:
    purposes = list(dict.fromkeys(key for run in study.runs for key in _outside(run)))
    proposed = any(proposer_tokens(study.runs))
    judged = judge_tokens(study.runs) > 0
    rows = []
    for model, budget in study.sections:
        runs = study.section(model, budget)
        for name in dict.fromkeys(run.entry.optimiser for run in runs):
            own = [run for run in runs if run.entry.optimiser == name]
            lm = sum(run.entry.lm_seconds for run in own)
            total = sum(run.entry.total_seconds for run in own)
            after = sum(run.result.outside_seconds for run in own if run.result)
            rows.append(
                (
                    name,
                    model,
                    count(budget),
                    str(len(own)),
                    count(sum(run.entry.rows for run in own)),
                    count(sum(run.entry.n_prompts for run in own)),
                    count(sum(run.entry.n_prompts + run.entry.n_partial for run in own)),
                    count(tokens(own)),
                    count(own_tokens(own)),
                    *(map(count, proposer_tokens(own)) if proposed else ()),
                    *([count(judge_tokens(own))] if judged else []),
                    number(lm, 1),
                    number(total - lm, 1),
                    *(count(sum(_outside(run).get(key, 0) for run in own)) for key in purposes),
                    number(after, 1),
                )
            )
    return Table(
        "ledger",
        "What the searches cost, all tasks and seeds together",
        (
            "method", "model", "budget", "runs", "rows", "prompts", "prompts seen", "tokens",
            "own tokens", *(("proposer read", "proposer wrote") if proposed else ()),
            *(["judge tokens"] if judged else []), "LM seconds", "own seconds",
            *(f"rows: {key}" for key in purposes), "seconds after",
        ),
        tuple(rows),
        text=(0, 1),
        notes=(
            "A row is one prompt scored on one example; a gradient costs three. Prompts: those "
            "scored on all train examples, repeats counted; seen: with the different ones that "
            "were scored on only a part of them. Tokens: of text, prompt and answer in all rows; "
            "own tokens: what the model read for the method itself, such as a policy's states, "
            "which costs no rows. "
            + ("Judge tokens: what models that judge answers read. " if judged else "")
            + "LM seconds: "
            "rewards and gradients; own seconds: the method's own work. The columns after it are "
            "outside the budget; seconds after is the time that they took.",
            *([PROPOSER] if proposed else []),
        ),
    )  # fmt: skip


def _outside(run: RunData) -> dict[str, int]:
    return dict(run.result.outside_rows) if run.result else {}
