"""Whether a study is the one that was begun, and in what it is another: JSON values compared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

# In the spec of a run: hashes of the files of a person's own that its method is made of, by name.
SOURCE = "source"
# Characters of a value that a message shows.
SHOWN = 160


def refusal(there: dict[str, Any], now: dict[str, Any]) -> str:
    """Why a study is not gone on with, to follow the file's name; "" if nothing has changed.

    Args:
        there: What it was begun with: `config`, and `runs` by name.
        now: The same of today.
    """
    runs = now["runs"]
    if any(lacks_config(run, runs[name]) for name, run in there["runs"].items() if name in runs):
        return (
            "was begun by an older rlprompt, which hashed a model's weights and tokenizer and not "
            "its config, its special and end tokens and its chat template, so its answers may be "
            "those of a model that differs in them; run the study again with this version "
            "(--restart starts in a new folder), or go on with the version that began it. Nothing "
            "was changed"
        )
    lines = list(dict.fromkeys(differences(there["config"], now["config"])))
    if not lines:
        lines = _run_differences(there["runs"], runs)
    elif _adds_seeds(there["config"], now["config"]):  # they may be added: what else is it?
        again = {name: run for name, run in runs.items() if name in there["runs"]}
        lines = _run_differences(there["runs"], again) or lines
    if not lines:
        return ""
    return (
        "holds a study with other settings:\n  "
        + "\n  ".join(lines)
        + "\nUndo the change to go on with it, or start again in a new folder with --restart; "
        "nothing was changed"
    )


def differences(
    there: Any, now: Any, path: str = "", words: tuple[str, str] = ("before", "now")
) -> list[str]:
    """Where two JSON values differ, a line each; `words` say which is which.

    >>> differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2})
    ['a.b: 1 before, 3 now']
    """
    if isinstance(there, dict) and isinstance(now, dict):
        keys = dict.fromkeys((*there, *now))
        prefix = f"{path}." if path else ""
        return [
            line
            for key in keys
            for line in differences(there.get(key), now.get(key), f"{prefix}{key}", words)
        ]
    if there == now:
        return []
    old, new = _shortened(json.dumps(there), json.dumps(now))
    return [f"{path}: {old} {words[0]}, {new} {words[1]}"]


def _shortened(*texts: str) -> Iterator[str]:
    """Two texts that are long, around where they begin to differ."""
    pairs = enumerate(zip(*texts, strict=False))
    same = next((place for place, (a, b) in pairs if a != b), min(map(len, texts)))
    start = max(0, same - SHOWN // 4) if max(map(len, texts)) > SHOWN else 0
    for text in texts:
        before, after = "..." * (start > 0), "..." * (start + SHOWN < len(text))
        yield f"{before}{text[start : start + SHOWN]}{after}"


def lacks_config(there: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a run was planned by a version that told a model by less than this one does.

    Args:
        there: What decided its result.
        now: The same of this version.
    """
    return "config" not in there.get("model", {}) and "config" in now.get("model", {})


def has_more_seeds(there: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether one study is another with seeds or split seeds added, and nothing else."""
    runs = now["runs"]
    kept = all(
        name in runs and not _changes(run, runs[name]) for name, run in there["runs"].items()
    )
    adds = _adds_seeds(there["config"], now["config"])
    if not there["config"] and not now["config"]:  # made in Python: its runs say which there are
        old, new = (_but_for_seeds(one["runs"]) for one in (there, now))
        adds = old == new and there["runs"].keys() < runs.keys()
    return kept and adds


def _but_for_seeds(runs: dict[str, Any]) -> set[str]:
    """What searches are by their names, without their seeds."""
    return {
        f"{name.removesuffix(str(run.get('seed')))} {json.dumps({**run, 'seed': None})}"
        for name, run in runs.items()
    }


def _adds_seeds(there: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether one config is another with seeds or split seeds added, and nothing else."""
    kinds = ("seeds", "split_seeds")
    old, new = ({**config, **dict.fromkeys(kinds)} for config in (there, now))
    seeds = [
        {(kind, seed) for kind in kinds for seed in config.get(kind, ())} for config in (there, now)
    ]
    return old == new and seeds[0] < seeds[1]


def _run_differences(there: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """How two grids differ; what is the same for many runs is said once."""
    lines = [f"run {name} was in the study and is not now" for name in there if name not in now]
    lines += [f"run {name} is new" for name in now if name not in there]
    for name in there:
        lines += _changes(there[name], now.get(name, there[name]))
    return list(dict.fromkeys(lines))


def _changes(there: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """How a run is another than it was."""
    lines = differences({**there, SOURCE: None}, {**now, SOURCE: None})
    old, new = there.get(SOURCE, {}), now.get(SOURCE, {})
    method = now.get("optimiser")
    for file in dict.fromkeys((*old, *new)):
        if file not in new:
            lines.append(f"{file} is no part of {method} any more")
        elif file not in old:
            lines.append(f"{file} is a part of {method} now and was not")
        elif old[file] != new[file]:
            lines.append(f"{file}, which {method} is made of, has changed since")
    return lines
