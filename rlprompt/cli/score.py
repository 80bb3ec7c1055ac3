"""The command that scores a prompt that one has: a text, or a folder that `export --best` wrote."""

from __future__ import annotations

import os.path
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlprompt.cli.options import FILES, ConfigPath, Device, Dtype, Split

if TYPE_CHECKING:
    from rich.console import Console

    from rlprompt.export.folder import ExportedPrompt
    from rlprompt.models.lm import FrozenLM
    from rlprompt.prompt import Prompt
    from rlprompt.tasks.base import Task
    from rlprompt.types import Floats


def score(
    prompt: Annotated[
        str,
        typer.Argument(
            metavar="PROMPT", help="Text of the prompt, or a folder of `rlprompt export --best`."
        ),
    ],
    config: ConfigPath,
    split: Annotated[
        list[Split] | None,
        typer.Option(
            metavar="SPLIT",
            help="train, dev or test; repeat it for more. Default: train and dev.",
        ),
    ] = None,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            help="Score PROMPT exactly as typed, without the template's leading space.",
        ),
    ] = False,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Score a prompt of yours: metric, reward, token ids.

    An exported prompt is scored only on its own model. On the task that it was found for, the
    scores are compared with the exported ones; exit code 1 if they differ.

    Test is not scored unless you add --split test. Every look at it that is followed by another try
    makes its figures a little too good.
    """
    if Path(prompt).suffix in FILES and os.path.isfile(prompt) and not os.path.isfile(config):
        given = shlex.join([str(config), prompt])
        raise ValueError(f"the prompt comes first, then the file: rlprompt score {given}")
    from rlprompt.cli import terminal
    from rlprompt.config.yaml_file import load_config
    from rlprompt.export.folder import is_exported, load_prompt
    from rlprompt.models.fingerprint import SERVED
    from rlprompt.prompt import TokenPrompt
    from rlprompt.studies.loading import load_model, load_task, longest, settle
    from rlprompt.tasks.fitting import fitted

    chosen = load_config(config, device=device, dtype=dtype)
    at_most = longest(chosen)
    exported = load_prompt(prompt) if is_exported(prompt) else None
    splits = split or [Split.train, Split.dev]
    console = terminal.make_console()
    verified, refused = True, list[str]()
    with terminal.log_to(console):
        tasks = [
            (title if split is None else f"{title or one.name}, split {split}", one, load_task(one))
            for split, title, one in chosen.split_tasks
        ]
        for model, section in chosen.all_models:
            wanted = chosen.dtype
            if exported and wanted == "auto" and exported.facts.model.kind != SERVED:
                wanted = exported.facts.model.dtype
            lm = load_model(section, chosen.device, wanted)
            if exported and (refusal := _refusal(console, exported, lm)):
                refused.append(refusal)
                continue
            for title, one, task in tasks:
                if len(tasks) * len(chosen.all_models) > 1:
                    console.print(f"{title or task.name}, {model}:")
                settled = settle(one, task, lm, at_most)
                tokens = exported.prompt if exported else _typed(settled, lm, prompt, exact)
                read = lm.fed(tokens)
                if isinstance(read, TokenPrompt):  # it may be longer than those of a search
                    settled = fitted(settled, lm, at_most, [read])
                scores = _print_scores(console, settled, lm, tokens, splits)
                if exported:
                    verified &= _print_verdict(console, exported, settled, lm, scores)
    if len(refused) == len(chosen.all_models):
        raise ValueError("\n".join(refused))
    for refusal in refused:
        console.print(f"not scored: {refusal}")
    if Split.test not in splits:
        console.print("Test was not scored; add --split test to score it.")
    if not verified:
        raise typer.Exit(1)


def _typed(task: Task, lm: FrozenLM, text: str, exact: bool) -> Prompt:
    return task.spelt(lm, text) if exact else task.written(lm, text)


def _refusal(console: Console, exported: ExportedPrompt, lm: FrozenLM) -> str:
    """Why the prompt is not scored on a model, or ""."""
    from rlprompt.export.facts import check_model

    try:
        note = check_model(exported.facts, lm)
    except ValueError as error:
        return str(error)
    if note:
        console.print(f"note: {note}")
    return ""


def _print_scores(
    console: Console, task: Task, lm: FrozenLM, prompt: Prompt, splits: Sequence[Split]
) -> dict[str, Floats]:
    """A prompt and what it scores on one task and model; its rewards (E,) by split."""
    from rlprompt.cli.terminal import print_columns
    from rlprompt.prompt import TokenPrompt
    from rlprompt.search.evaluation import Evaluator, describe, naming, scores_of
    from rlprompt.tasks.base import what_it_writes

    evaluator, examples = Evaluator(task, lm), task.splits.parts()
    some = task.splits.train[:3]
    with naming(task):
        measured = {str(part): evaluator.measure([prompt], part) for part in splits}
        outputs = what_it_writes(task, lm, [prompt], some)
    text, retypable = describe(task, lm, prompt)
    read = lm.fed(prompt)
    if isinstance(read, TokenPrompt):
        again = "" if retypable else "  (typing it gives other tokens)"
        console.print(f"prompt     {text!r}{again}")
        if not lm.served:  # whose tokens are not known
            console.print(f"token ids  {' '.join(map(str, read.ids)) or '(none)'}")
    else:
        unit = "positions" if prompt.kind == "prefix" else "vectors"
        console.print(f"prompt     {len(prompt)} {unit}, {text!r}")
    console.print()
    rows = [("split", "examples", task.metric, "mean reward")]
    for part, one in measured.items():
        (found,), count = scores_of(task, one, examples[part]), str(len(examples[part]))
        rows.append((part, count, f"{found.metric:.3f}", f"{found.reward:.2f}"))
    print_columns(console, rows, numeric=len(rows[0]) - 1)
    if outputs:
        for example, output in zip(some, outputs[0], strict=True):
            wanted = f" (reference {example.label!r})" if example.label else ""
            console.print(f"the model wrote {output!r}{wanted}", markup=False)
    for note in task.splits.notes:
        console.print(f"note: {note}")
    console.print()
    return {part: one.rewards[0] for part, one in measured.items()}


def _print_verdict(
    console: Console,
    exported: ExportedPrompt,
    task: Task,
    lm: FrozenLM,
    scores: Mapping[str, Floats],
) -> bool:
    """Compare with the scores of the export; whether they agree, as far as they can be compared."""
    import numpy as np

    from rlprompt.studies.verification import PRIOR, Gap, gap_of, rounding

    facts, dtypes = exported.facts, (exported.facts.model.dtype, lm.fingerprint.dtype)
    dtype = next((one for one in dtypes if one != "float32"), "float32")  # the coarser of the two
    if task.fingerprint != facts.task.fingerprint:
        console.print(
            f"This is not the task that the prompt was found for ({facts.task.name} with the same "
            "template, label words, reward and examples), so its scores are not compared."
        )
        return True
    gaps = list[Gap]()
    for part, rewards in scores.items():
        if stored := facts.scores.get(part):
            where = f"mean reward on {part}"
            gaps.append(gap_of(task, dtype, np.array([stored.reward]), rewards, where))
            console.print(
                f"{part}: exported with {facts.task.metric or 'metric'} {stored.metric:.3f}, mean "
                f"reward {stored.reward:.2f}"
            )
    if not gaps:
        console.print("The prompt was exported without scores on these splits.")
        return True
    usage, what = facts.task.usage, "mean rewards"
    if usage and usage.prior and (prior := task.class_prior(lm, exported.prompt)):
        # In nats of a class, so that another train, or another number in the file, shows at once.
        shift = max(abs(prior[label] - kept) for label, kept in usage.prior.items())
        console.print(f"prior of the classes: {shift:.2g} nats from the exported one")
        gaps.append(Gap(shift, rounding(PRIOR, dtype), "the prior, nats"))
        what = "mean rewards or the prior"
    worst = max(gaps, key=lambda gap: (gap.excess, gap.size))
    holds = worst.excess <= 1
    console.print(
        f"{'Verified' if holds else 'NOT verified'}: {what} differ by {worst.size:.2g} at most, "
        f"and rounding explains up to {worst.tolerance:.2g} ({worst.where})."
    )
    return holds
