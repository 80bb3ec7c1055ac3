"""Studies that are parts of one, run on machines that share no folder: their summaries as one."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rlprompt._utils.files import write_atomically
from rlprompt._utils.text import slugs
from rlprompt.store.changes import differences
from rlprompt.store.summary import (
    FILE,
    BillEntry,
    ModelEntry,
    PartEntry,
    RunEntry,
    ScoredEntry,
    Summary,
    SummaryError,
    TaskEntry,
    read_summary,
)

T = TypeVar("T")
Scored = TypeVar("Scored", bound=ScoredEntry)

# Settings of an experiment that say which part of the grid it covers.
COVERED = ("tasks", "models", "optimisers", "seeds", "split_seeds", "budgets", "references")

# What has a task's label words found for each model, or its examples fitted to it.
OF_MODELS = re.compile(
    r'"label_words": "auto"|"on_bad_rows": "skip"|"on_long_text": "(skip|truncate-\w+)"'
)

# Where and under which name a part ran is no part of what it measures.
APART = ("name", "device")


def combine(folders: Sequence[Path], out: Path) -> Summary:
    """Write a folder with the summary and the searches of several studies, see `combined`.

    It goes by the folder's name, and can be reported and opened like theirs; they stay as they
    are. It has no answers to go on from, so that only its parts go on.

    Args:
        folders: Two or more.
        out: Where to; made if it is not there. What was combined there before is replaced.

    Raises:
        SummaryError: One has no summary, they are not parts of one study, or two have a part in
            common.
        ValueError: There are fewer than two, or `out` holds something else.
        OSError: The folder cannot be written to.
    """
    given = {folder.resolve(): folder for folder in reversed(folders)}
    if len(given) < 2:
        raise ValueError(f"give two or more studies to combine, got {len(given)}")
    parts = {str(folder): read_summary(folder) for folder in folders if folder in given.values()}
    _check_apart(parts)
    if out.exists() and not (out.is_dir() and _may_be_replaced(out)):
        raise ValueError(
            f"{out} exists and is not a combined study, so it is not overwritten; give another "
            "folder with --out"
        )
    summary, files = combined(parts)
    summary = summary.model_copy(update={"name": out.resolve().name})
    for file, (home, there) in files.items():
        folder = Path(home).resolve()
        path = (folder / there).resolve()
        # A file that is missing or lies elsewhere is a caveat of the page, as in its own study.
        if path.is_relative_to(folder) and path.is_file():
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(out / file, path.read_bytes())
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / FILE, summary.to_json().encode())
    return summary


def _check_apart(parts: Mapping[str, Summary]) -> None:
    """Refuse studies that have a part in common, whose cost would be counted twice.

    Raises:
        SummaryError: There are two.
    """
    homes: dict[Hashable, str] = {}
    for name, summary in parts.items():
        for one in _parts(name, summary):
            # Folders of two machines may go by one name.
            home = homes.setdefault((Path(one.name).resolve(), one.started, one.platform), name)
            if home != name:
                raise SummaryError(
                    f"{home} and {name} both have the study {one.name} in them, which would be "
                    "counted twice; combine studies that share none"
                )


def _may_be_replaced(out: Path) -> bool:
    return not any(out.iterdir()) or ((out / FILE).exists() and bool(read_summary(out).parts))


def combined(parts: Mapping[str, Summary]) -> tuple[Summary, dict[str, tuple[str, str]]]:
    """One summary of several studies that differ in what they cover alone.

    Tasks, models, budgets, optimisers, seeds and splits are those of all parts, and the grid that
    is expected is all of them with each other. What several parts have, a control or a search, is
    taken from the first of them that has scored it.

    Args:
        parts: One or more, by what to call them in messages, such as their folders.

    Returns:
        The summary, whose runs and their files have names of their own; and where each file is: by
        its name here, the part and the name there.

    Raises:
        SummaryError: They are not parts of one study: a setting, also one of a method that goes
            by the same name in both, a task's examples or a model's weights differ, or the same
            search has come to different ends.
    """
    summaries = list(parts.values())
    for name, one in parts.items():
        if not one.config:
            raise SummaryError(
                f"{name} was run from Python, so its settings are not recorded; only studies of "
                "experiment files can be combined"
            )
    (first, one), *others = parts.items()
    config = _spelt_out(first, one)
    for name, other in others:
        config = _config(first, config, name, _spelt_out(name, other))
    config["optimisers"] = list(config["optimisers"].values())
    _check_settings(parts)
    optimisers = _once(name for one in summaries for name in one.optimisers)
    seeds = tuple(sorted({seed for one in summaries for seed in one.seeds}))
    split_seeds = _once(seed for one in summaries for seed in one.split_seeds)
    budgets = _once(rows for one in summaries for rows in one.budgets)
    tasks = _tasks(parts, config["tasks"])
    models = _joined(parts, lambda one: one.models, lambda model: model.name, _one_model)
    found = _found(parts, lambda one: one.runs, _cell, _one_search)
    names = _names(run for run, _ in found)
    runs = tuple(_renamed(run, names) for run, _ in found)
    grid = tasks, models, budgets, optimisers, split_seeds or (None,), seeds
    expected = math.prod(map(len, grid))
    earliest = min(summaries, key=lambda one: one.started)
    files = {new.file: (home, run.file) for new, (run, home) in zip(runs, found, strict=True)}
    summary = Summary(
        name=summaries[0].name,
        complete=expected == sum(run.status == "finished" for run in runs),
        expected_runs=expected,
        optimisers=optimisers,
        seeds=seeds,
        split_seeds=split_seeds,
        budgets=budgets,
        tasks=tasks,
        models=models,
        controls=_joined(parts, lambda one: one.controls, _place, _one_scored),
        references=_joined(parts, lambda one: one.references, _place, _one_scored),
        runs=runs,
        config=config,
        started=earliest.started,
        platform=earliest.platform,
        versions=earliest.versions,
        parts=tuple(part for name, one in parts.items() for part in _parts(name, one)),
    )
    return summary, files


def _parts(name: str, one: Summary) -> Iterable[PartEntry]:
    """What a summary is made of: itself, or, where it was combined, its own parts."""
    whole = PartEntry(
        name=name,
        runs=len(one.runs),
        started=one.started,
        platform=one.platform,
        versions=one.versions,
    )
    return one.parts or (whole,)


def _config(
    first: str, there: Mapping[str, Any], name: str, now: Mapping[str, Any]
) -> dict[str, Any]:
    """The experiment that has what two have.

    Raises:
        SummaryError: They differ in more than what they cover.
    """
    merged, lines = {**there}, list[str]()
    for key in [key for key in _once((*there, *now)) if key not in APART]:
        old, new = there.get(key), now.get(key)
        if key in COVERED and (key != "split_seeds" or bool(old) == bool(new)):
            a, b = _keyed(old), _keyed(new)
            both = {**a, **b}
            values = list(both.values())
            merged[key] = both if isinstance(old, dict) else values
            if key == "seeds":
                merged[key] = sorted(values)
            old, new = ({k: one[k] for k in a if k in b} for one in (a, b))
        lines += differences(old, new, key, words=(f"in {first}", f"in {name}"))
    if lines:
        raise SummaryError(
            f"{first} and {name} are not parts of one study, since these settings differ:\n  "
            + "\n  ".join(lines)
        )
    return merged


def _spelt_out(folder: str, summary: Summary) -> dict[str, Any]:
    """Its experiment with tasks, models and methods by name and budgets in a list.

    Who has one task has it under another key than who has two. Methods are told apart by the names
    that their searches are joined by, which leave out folders: what goes by one must be one.

    Raises:
        SummaryError: It was combined of several methods of one name.
    """
    config = dict(summary.config)
    methods, names = config.get("optimisers", ()), summary.optimisers
    if len(methods) != len(names):
        raise SummaryError(
            f"{folder} has {len(methods)} methods under {len(names)} names ({', '.join(names)}), "
            "so nobody can say which search is whose; combine its parts again"
        )
    config["optimisers"] = dict(zip(names, methods, strict=True))
    for one, named in (("task", summary.tasks), ("model", summary.models)):
        listed = config.get(f"{one}s") or [config.get(one)]
        if not isinstance(listed, Mapping):
            listed = dict(zip((entry.name for entry in named), listed, strict=True))
        config |= {one: None, f"{one}s": listed}
    return config | {"budget": None, "budgets": config.get("budgets") or [config.get("budget")]}


def _keyed(listed: Mapping[str, Any] | Sequence[Any] | None) -> dict[Any, Any]:
    """By name; what is only listed, such as training to compare with, by all that it says."""
    if isinstance(listed, Mapping):
        return dict(listed)
    return {json.dumps(one, sort_keys=True): one for one in listed or ()}


def _check_settings(parts: Mapping[str, Summary]) -> None:
    """Refuse a method that ran otherwise in another part, such as with the defaults of its version.

    No setting depends on a task, a model or a seed: one optimiser searches on all of them.

    Raises:
        SummaryError: There is one; it says what differs.
    """
    first: dict[str, tuple[str, RunEntry]] = {}
    for name, summary in parts.items():
        for run in summary.runs:
            home, other = first.setdefault(run.optimiser, (name, run))
            words = (f"in {home}", f"in {name}")
            lines = differences(other.settings, run.settings, words=words)
            if other.source and run.source:  # an older version looked at none
                lines += differences(other.source, run.source, "files", words)
            if home != name and lines:
                raise SummaryError(
                    f"{home} and {name} ran {run.optimiser} with other settings, so it is not one "
                    "method:\n  " + "\n  ".join(lines)
                )


def _cell(run: RunEntry) -> tuple[Any, ...]:
    """What tells a search from all others; its name does so within its own study alone."""
    place = run.task, run.split_seed, run.model, run.budget_rows
    return *place, run.optimiser, run.seed


def _names(runs: Iterable[RunEntry]) -> dict[str, str]:
    """What tasks, models and optimisers are called in the names of files."""
    return slugs(_once(name for run in runs for name in (run.task, run.model, run.optimiser)))


def _renamed(run: RunEntry, names: Mapping[str, str]) -> RunEntry:
    """A search by a name that says all that tells it from others."""
    split = () if run.split_seed is None else (f"split-{run.split_seed}",)
    place = (names[run.task], *split, names[run.model], f"{run.budget_rows}-rows")
    name = "/".join((*place, f"{names[run.optimiser]}-seed{run.seed}"))
    return run.model_copy(update={"name": name, "file": f"runs/{name}.json"})


def _joined(
    parts: Mapping[str, Summary],
    of: Callable[[Summary], Sequence[T]],
    key: Callable[[T], Hashable],
    one_of: Callable[[T, T, str], T],
) -> tuple[T, ...]:
    """The entries of all parts, those with the same key made one."""
    return tuple(entry for entry, _ in _found(parts, of, key, one_of))


def _found(
    parts: Mapping[str, Summary],
    of: Callable[[Summary], Sequence[T]],
    key: Callable[[T], Hashable],
    one_of: Callable[[T, T, str], T],
) -> list[tuple[T, str]]:
    """The same, each with the part that it is of."""
    found: dict[Hashable, tuple[T, str]] = {}
    for name, summary in parts.items():
        for entry in of(summary):
            kept, home = found.get(key(entry), (entry, name))
            made = entry if kept is entry else one_of(kept, entry, f"{home} and {name}")
            found[key(entry)] = made, name if made is entry else home
    return list(found.values())


def _place(entry: ScoredEntry) -> tuple[Hashable, ...]:
    return entry.task, entry.split_seed, entry.model, entry.name


def _one_scored(kept: Scored, other: Scored, homes: str) -> Scored:
    """What two parts have: the first, unless the second alone has its score on test."""
    return other if kept.test is None and other.test is not None else kept


def _tasks(parts: Mapping[str, Summary], sections: Mapping[str, Any]) -> tuple[TaskEntry, ...]:
    """The tasks of all parts, on the draws and with the models of all.

    Raises:
        SummaryError: A draw is not the same in two parts, for one model, or for two where nothing
            in the task's section has a model decide it.
    """
    found: dict[str, dict[int | None, dict[str, tuple[TaskEntry, str]]]] = {}
    for name, summary in parts.items():
        scored = {_place(one)[:3] for one in (*summary.controls, *summary.runs)}
        for task in summary.tasks:
            text = json.dumps(sections[task.name])
            # A named task skips or not as it was made, which its section does not tell.
            untold = '"class"' not in text and '"on_bad_rows"' not in text
            fitted = untold or OF_MODELS.search(text) is not None
            for split in task.splits:
                place = task.name, split.split_seed
                models = [one.name for one in summary.models]
                known = found.setdefault(task.name, {}).setdefault(split.split_seed, {})
                # One that is combined may lack a model on a draw.
                for model in [m for m in models if (*place, m) in scored] or models:
                    entry = split.by_model.get(model, split)
                    others = [] if fitted else [one for one in known.values() if one[1] != name]
                    kept, home = known.get(model) or next(iter(others), (entry, name))
                    _check_same(kept, entry, f"{home} and {name}")
                    if model not in known or not kept.draw:  # an older version did not say it
                        known[model] = entry, name
    return tuple(
        TaskEntry.joined({model: one for model, (one, _) in own.items()} for own in draws.values())
        for draws in found.values()
    )


def _check_same(kept: TaskEntry, other: TaskEntry, homes: str) -> None:
    """Refuse a task whose examples or settings are not the same."""
    if (kept.fingerprint, kept.examples) != (other.fingerprint, other.examples):
        split = "" if other.split_seed is None else f", split {other.split_seed}"
        raise SummaryError(
            f"{homes} have different examples or settings of the task {other.name}{split} "
            f"(fingerprints {kept.fingerprint} and {other.fingerprint}), so their scores cannot be "
            "compared; combine studies on the same data"
        )


def _one_model(kept: ModelEntry, other: ModelEntry, homes: str) -> ModelEntry:
    """A model with what both paid for it, refused where it is not the same."""
    # An older version did not write fields of which there is nothing to say.
    one, two = ({k: v for k, v in e.fingerprint.items() if v} for e in (kept, other))
    if one != two:
        lines = differences(one, two, words=("in one", "in the other"))
        if ("config" in one) != ("config" in two):
            lines.append(
                "one was run by an older rlprompt, which hashed less of a model: run it again with "
                "this version"
            )
        raise SummaryError(
            f"{homes} have different models called {kept.name}:\n  " + "\n  ".join(lines)
        )
    device = " and ".join(_once((kept.device, other.device)))
    return kept.model_copy(update={"device": device, "bill": _sum(kept.bill, other.bill)})


def _sum(a: BillEntry | None, b: BillEntry | None) -> BillEntry | None:
    if a is None or b is None:
        return a or b
    added = {
        name: getattr(a, name) + getattr(b, name)
        for name in ("requests", "tokens_in", "tokens_out", "untold")
    }
    cost = None if a.cost is None or b.cost is None else a.cost + b.cost
    return a.model_copy(update={**added, "cost": cost})


def _one_search(kept: RunEntry, other: RunEntry, homes: str) -> RunEntry:
    """A search that two parts have: that which finished.

    Raises:
        SummaryError: Both did, with different results, and nobody can say which one counts.
    """
    ended = [one for one in (kept, other) if one.status == "finished"]
    if len(ended) == 2:
        same = (kept.prompt, kept.rows) == (other.prompt, other.rows)
        # Vectors are told by their scores: two soft prompts may go by the same nearest tokens.
        typed = kept.retypable and other.retypable
        what = _unlike(kept, other) if same and not typed else ""
        if what or not same:
            raise SummaryError(
                f"{homes} both have the search {kept.name}, with different results "
                f"({kept.prompt!r} after {kept.rows:,} rows and {other.prompt!r} after "
                f"{other.rows:,}{what}); leave one study out"
            )
    return ended[0] if ended else kept


def _unlike(kept: RunEntry, other: RunEntry) -> str:
    """Where one has another score than the other by more than two machines differ, or ""."""
    for name in ("best_train_reward", "train", "dev", "test"):
        old, new = getattr(kept, name), getattr(other, name)
        if None not in (old, new) and not math.isclose(old, new, rel_tol=1e-3, abs_tol=1e-6):
            return f", {name.replace('_', ' ')} {old:.4g} and {new:.4g}"
    return ""


def _once(values: Iterable[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(values))
