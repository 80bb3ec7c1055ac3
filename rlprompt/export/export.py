"""Puts the prompt that a search picked into a folder, with an adapter for PEFT and a card."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
import yaml
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.repocard import metadata_load
from numpy.typing import NDArray

from rlprompt._utils.assets import ASSETS
from rlprompt._utils.text import file_part
from rlprompt.export.card import CARD, card
from rlprompt.export.facts import (
    CALLED,
    FORMAT,
    SCORED,
    TENSOR,
    VECTORS,
    Facts,
    ModelFacts,
    ScoreFacts,
    SearchFacts,
    TaskFacts,
    Usage,
    model_facts,
)
from rlprompt.export.folder import ExportedPrompt, load_prompt
from rlprompt.export.peft_adapter import write_adapter
from rlprompt.models.fingerprint import ADDED, SERVED
from rlprompt.models.lm import FrozenLM
from rlprompt.models.scorer import embed
from rlprompt.prompt import FACTS, FedPrompt, PrefixPrompt, Prompt, SoftPrompt, TokenPrompt
from rlprompt.search.evaluation import describe
from rlprompt.search.result import Candidate, Result, Score
from rlprompt.statistics.summaries import share_interval, summarise
from rlprompt.store.store import StoredRun
from rlprompt.tasks.base import Task
from rlprompt.tasks.completed import as_task
from rlprompt.tasks.wording import Wording
from rlprompt.template import Template
from rlprompt.types import Ids

UNKNOWN_LICENCE = "unknown: see the model's page"


def pick_run(
    runs: Sequence[StoredRun],
    name: str | None = None,
    task: str | None = None,
    model: str | None = None,
    titles: Collection[str] = (),
) -> StoredRun:
    """The finished run whose picked prompt scores best on dev; test decides nothing.

    By what its task picks prompts by, reward or metric (`Score.worth`).

    Args:
        runs: Of a study.
        name: The run to take, whatever it scores.
        task: The task to look at; needed where there are several, whose scores are not comparable.
        model: The model, likewise.
        titles: What the study calls its tasks, where they do not go by names of their own.

    Raises:
        ValueError: There is no such run, task or model, none has finished, or which one is meant
            must be said.
    """
    done = {run.name: run for run in runs if run.state == "finished" and run.result is not None}
    listed = ", ".join(done) or "none"
    if name is not None:
        if name not in done:
            raise ValueError(f"no finished run is called {name!r}; there are: {listed}")
        return done[name]
    found = [(run, run.result) for run in done.values() if run.result and run.result.candidates]
    if not found:
        raise ValueError("no search of this study has finished, so no prompt was picked yet")
    for what, given in (("task", task), ("model", model)):
        names = [_called(what, *pair, titles) for pair in found]
        listed = ", ".join(dict.fromkeys(names))
        if given is None and len(set(names)) > 1:
            raise ValueError(
                f"the study has several {what}s, whose scores cannot be compared: give --{what} "
                f"with one of {listed}, or --run with the name of a run"
            )
        if given is not None and given not in names:
            raise ValueError(f"no finished run has the {what} {given!r}; there are: {listed}")
        found = [pair for pair, own in zip(found, names, strict=True) if given in (None, own)]
    if len({result.task_fingerprint for _, result in found}) > 1:
        raise ValueError(
            f"several tasks of the study are called {_called('task', *found[0], titles)}: give "
            f"--run with one of {', '.join(run.name for run, _ in found)}"
        )
    return max(found, key=lambda pair: _worth(pair[1]))[0]


def pick_options(runs: Sequence[StoredRun], titles: Collection[str] = ()) -> dict[str, str] | None:
    """Options of `rlprompt export` that a study needs, for one part of it; see `pick_run`.

    Args:
        runs: Of a study.
        titles: As for `pick_run`.

    Returns:
        Empty where it needs none; None where no prompt was picked yet.
    """
    done = [run for run in runs if run.state == "finished"]
    found = [(run, run.result) for run in done if run.result and run.result.candidates]
    if not found:
        return None
    options = dict[str, str]()
    for what in ("task", "model"):
        names = [_called(what, *pair, titles) for pair in found]
        if len(set(names)) > 1:
            options[what] = names[0]
        found = [pair for pair, own in zip(found, names, strict=True) if own == names[0]]
    marks = [result.task_fingerprint for _, result in found]
    if len(set(marks)) == 1:
        return options
    alike = [pair for pair, mark in zip(found, marks, strict=True) if mark == marks[0]]
    return {"run": max(alike, key=lambda pair: _worth(pair[1]))[0].name}


def _called(what: str, run: StoredRun, result: Result, titles: Collection[str]) -> str:
    """What tables call the task or the model of a run."""
    return task_title(run, result, titles) if what == "task" else result.model


def task_title(run: StoredRun, result: Result, titles: Collection[str] = ()) -> str:
    """What the task of a run is called in its study.

    Args:
        run: The run, whose name begins with its task where there are several.
        result: What it found.
        titles: As for `pick_run`.
    """
    first = run.name.partition("/")[0]
    own = (one for one in titles if len(titles) == 1 or file_part(one) == first)
    return next(own, result.task)


def _worth(result: Result) -> tuple[float, float]:
    dev = result.best.dev
    return dev.worth(result.select_by) if dev else (-np.inf, -np.inf)


def export_prompt(
    result: Result, folder: str | Path, lm: FrozenLM, task: Task | None = None, *, run: str = ""
) -> ExportedPrompt:
    """Write the picked prompt of a search to a folder.

    Args:
        result: What the search found.
        folder: New or empty.
        lm: The model that it was found on, in the same dtype.
        task: The task that it was found for; without it, the export says nothing of template and
            label words.
        run: Name of the search in its study.

    Returns:
        What `load_prompt` reads there.

    Raises:
        ValueError: Nothing was found, model or task are not those of the search, or the folder is
            not empty.
        OSError: A file cannot be written.

    >>> import tempfile
    >>> from rlprompt.agents.random_search import RandomSearch
    >>> from rlprompt.check.toy import ToyTask, toy_lm
    >>> from rlprompt.search.run import search
    >>> task, lm = ToyTask(), toy_lm()
    >>> found = search(task, lm, RandomSearch(), budget=40)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     exported = export_prompt(found, folder, lm, task)
    ...     sorted(path.name for path in Path(folder).glob("prompt.*"))
    ['prompt.json', 'prompt.safetensors']
    >>> exported.prompt == found.best.prompt
    True
    """
    candidate = result.best
    _refuse_others(result, lm, task)
    folder = check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    prompt: Prompt = candidate.prompt
    if task is not None:
        task = as_task(task)
        prompt = task.shortened(lm, prompt)
    vectors, sha256 = np.zeros((0, 0), np.float32), ""
    if not lm.served:
        vectors = _vectors(lm, lm.fed(prompt))
        content = safetensors.numpy.save({TENSOR: vectors})
        sha256 = hashlib.sha256(content).hexdigest()
        (folder / VECTORS).write_bytes(content)
    model = model_facts(lm, licence(lm.fingerprint.model), _place(lm.fingerprint.model, folder))
    facts = _facts(result, lm, task, prompt, run, vectors.shape, sha256, model)
    if model.kind != SERVED and (facts.before_ids or len(vectors)):
        rows = vectors
        if not isinstance(prompt, PrefixPrompt):
            rows = np.concatenate([_embedded(lm, facts.before_ids or ()), vectors])
        write_adapter(folder, rows, model.kind, model.place or model.model, model.revision)
    (folder / CARD).write_text(card(facts, lm), "utf-8")
    # Last: a folder without it is no exported prompt.
    text = json.dumps(facts.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / FACTS).write_text(text + "\n", "utf-8")
    return load_prompt(folder)


def check_folder(folder: str | Path) -> Path:
    """A folder that a prompt can be written to.

    Raises:
        ValueError: There is something in it, or it is a file.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there and not empty; give a new folder for the prompt")
    return folder


def _refuse_others(result: Result, lm: FrozenLM, task: Task | None) -> None:
    here = lm.fingerprint
    for name in ("weights", "tokenizer", *ADDED):
        # An older version did not record all of them.
        if getattr(here, name) != result.fingerprint.get(name, getattr(here, name)):
            raise ValueError(
                f"{lm.name} in {here.dtype} is not the model that this prompt was found on, "
                f"{result.model} in {result.fingerprint['dtype']}: its {CALLED[name]} "
                f"{'are others' if CALLED[name].endswith('s') else 'is another'}. Restore "
                "the model's files, or have its server serve it, to export the prompt"
            )
    if task is not None and task.fingerprint != result.task_fingerprint:
        raise ValueError(
            f"task {task.name!r} is not what it was when this prompt was found for it (template, "
            "label words, reward or examples differ)"
        )


def _facts(
    result: Result,
    lm: FrozenLM,
    task: Task | None,
    prompt: Prompt,
    run: str,
    shape: tuple[int, ...],
    sha256: str,
    model: ModelFacts,
) -> Facts:
    candidate, usage = result.best, None if task is None else usage_of(task, lm, prompt)
    text, retypable = describe(as_task(task) if task else Wording(), lm, prompt)
    metric = "" if task is None else task.metric
    read = lm.fed(prompt)
    before = None if usage is None or lm.served else _before(usage.made, lm)
    if isinstance(prompt, PrefixPrompt):
        before = ()
    return Facts(
        format=FORMAT,
        kind="token" if prompt.kind == "tokens" else prompt.kind,
        ids=read.ids if isinstance(read, TokenPrompt) and not lm.served else None,
        text=text,
        retypable=retypable,
        digest=prompt.digest,
        shape=shape,
        sha256=sha256,
        before_ids=before,
        task=TaskFacts(
            name=result.task, fingerprint=result.task_fingerprint, metric=metric, usage=usage
        ),
        model=model,
        search=SearchFacts(
            run=run,
            optimiser=result.optimiser,
            settings=dict(result.settings),
            seed=result.seed,
            budget_rows=result.budget_rows,
            rows=result.rows,
            found_at_rows=candidate.found_at_rows,
            n_prompts=result.n_prompts,
        ),
        scores=_scores(result, candidate, task, metric),
        test_prompts=result.test_prompts,
    )


def usage_of(task: Task, lm: FrozenLM, prompt: Prompt) -> Usage | None:
    """How a prompt of a task is put to work, or None where only the task itself knows."""
    task = as_task(task)
    found = task.usage()
    if found is None:
        return None
    usage = Usage.model_validate({**found, "prior": task.class_prior(lm, prompt)})
    read, fields = task.splits.columns, usage.made.fields
    told: dict[str, Any] = {
        "on_long_text": task.splits.on_long_text,
        "cut_for": task.splits.cut_for,
    }
    if read is not None:
        told["columns"] = {name: read.text[name] for name in fields if name in read.text}
        told |= {"label": read.label or "", "labels": read.aliases, "numbered": read.numbered}
    return Usage.model_validate({**dict(usage), **told})


def _place(model: str, folder: Path) -> str:
    """Where a model lies, seen from a folder, if its name is a path that says so from here only."""
    path = Path(model).expanduser()
    if model in ASSETS or Path(model).is_absolute() or not path.exists():
        return ""
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def _before(template: Template, lm: FrozenLM) -> Ids | None:
    """Ids before the prompt, if no field of the example stands there."""
    own = template.on(lm)
    return own.query(dict.fromkeys(own.fields, "x"), lm).head_ids if own.head_is_fixed else None


def _vectors(lm: FrozenLM, prompt: FedPrompt) -> NDArray[np.float32]:
    return prompt.vectors if isinstance(prompt, SoftPrompt) else _embedded(lm, prompt.ids)


@torch.no_grad()
def _embedded(lm: FrozenLM, ids: Ids) -> NDArray[np.float32]:
    """What the model's layers are fed for these tokens, (L, H) float32."""
    where = torch.tensor(ids, dtype=torch.long, device=lm.device)
    found: NDArray[np.float32] = embed(lm.model, where, None).float().cpu().numpy()
    return found


def _scores(
    result: Result, candidate: Candidate, task: Task | None, metric: str
) -> dict[str, ScoreFacts]:
    sizes: dict[str, int | None] = dict.fromkeys(SCORED)
    if task is not None:
        sizes |= {name: len(part) for name, part in task.splits.parts().items()}
    sizes["dev"] = candidate.dev_examples
    sizes["test"] = len(result.test_metrics) or sizes["test"]
    found: dict[str, ScoreFacts] = {}
    for split in SCORED:
        score: Score | None = getattr(candidate, split)
        if score is None:
            continue
        each = result.test_metrics if split == "test" else ()
        interval = _interval(score.metric, sizes[split], each, metric)
        found[split] = ScoreFacts(
            reward=score.reward, metric=score.metric, n=sizes[split] or None, interval=interval
        )
    return found


def _interval(
    mean: float, n: int | None, each: Sequence[float], metric: str
) -> tuple[float, float] | None:
    """95 % interval of a mean metric over examples, or None where there is too little to tell.

    Of yes or no on each example it is Wilson's, which stays in [0, 1]; of other numbers Student's,
    which takes the number on each example.
    """
    if n and (metric == "accuracy" or (each and set(each) <= {0.0, 1.0})):
        return share_interval(round(mean * n), n)
    if not each:
        return None
    found = summarise(np.array(each, dtype=np.float64))
    return None if found.low is None or found.high is None else (found.low, found.high)


def licence(model: str) -> str:
    """The licence of a model, from what is known without a network."""
    if model in ASSETS:
        return ASSETS[model].licence
    page: object = Path(model).expanduser() / "README.md"
    try:
        if not Path(model).expanduser().is_dir():
            page = try_to_load_from_cache(model, "README.md")
        if not isinstance(page, str | Path) or not Path(page).is_file():
            return UNKNOWN_LICENCE
        stated = (metadata_load(page) or {}).get("license")
    # A path is no name on the hub, and anybody may have written the page.
    except (HFValidationError, ValueError, yaml.YAMLError):
        return UNKNOWN_LICENCE
    return str(stated) if stated else UNKNOWN_LICENCE
