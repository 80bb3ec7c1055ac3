"""A study's folder made from code: what `compare` leaves, with figures from a seed and no model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlprompt.prompt import Prompt, SoftPrompt, TokenPrompt
from rlprompt.search.result import (
    SOFT_MARK,
    Analysis,
    Candidate,
    Incumbent,
    Neighbour,
    Piece,
    Projection,
    Result,
    Score,
)
from rlprompt.store.summary import (
    FILE,
    ControlEntry,
    ExampleEntry,
    ModelEntry,
    ReferenceEntry,
    RunEntry,
    Summary,
    TaskEntry,
)

N_DEV, N_TEST = 32, 200
MODEL = "smollm2-135m"
# Of each method: how good it is, and whether its prompts are vectors.
METHODS: dict[str, tuple[float, bool]] = {
    "random": (0.66, False),
    "greedy": (0.74, False),
    "cma-es": (0.68, True),
    "ppo": (0.70, False),
    "ppo-soft": (0.69, True),
    "soft-prompt": (0.76, True),
}
TASKS = ("movie-reviews", "sst-2", "capitals")
SCRIPT = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"
WORDS = [" It", " was", " walk", "ing", " verb", "itics", " looking", " foot", "ed", " Gi", "|`|"]
FINGERPRINT = {"name": MODEL, "weights": "5b7c", "tokenizer": "91ae", "dtype": "float32"}


@dataclass(frozen=True)
class Plan:
    """What the folder is to hold.

    Attributes:
        methods: Their names.
        tasks: The last of three writes text.
        seeds: How many.
        budgets: Rows.
        points: Prompts scored in a run.
        test: Whether there are test examples.
    """

    methods: tuple[str, ...] = tuple(METHODS)
    tasks: tuple[str, ...] = TASKS
    seeds: int = 5
    budgets: tuple[int, ...] = (9600,)
    points: int = 300
    test: bool = True


def make_study(
    folder: Path,
    plan: Plan | None = None,
    *,
    change_run: Callable[[RunEntry, Result], tuple[RunEntry, Result]] | None = None,
    **changed: Any,
) -> Summary:
    """Write a folder.

    Args:
        folder: Where; made if it is not there.
        plan: What it holds.
        change_run: Makes another entry and result of each run, to plant something.
        changed: Other values for the summary's fields.
    """
    plan = plan or Plan()
    tasks = tuple(task_entry(name, plan) for name in plan.tasks)
    runs = []
    for number, (task, budget, method, seed) in enumerate(
        (task, budget, method, seed)
        for task in tasks
        for budget in plan.budgets
        for method in plan.methods
        for seed in range(plan.seeds)
    ):
        result = make_result(task, method, seed, budget, plan, np.random.default_rng(number))
        entry = run_entry(task, method, result)
        if change_run is not None:
            entry, result = change_run(entry, result)
        path = folder / entry.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(result.to_json(), encoding="utf-8")
        runs.append(entry)
    summary = Summary(
        name="three-tasks",
        complete=True,
        expected_runs=len(runs),
        optimisers=plan.methods,
        seeds=tuple(range(plan.seeds)),
        budgets=plan.budgets,
        tasks=tasks,
        models=(model_entry(),),
        controls=tuple(_controls(tasks)),
        references=tuple(_references(tasks)),
        runs=tuple(runs),
        config={
            "name": "three-tasks",
            "model": MODEL,
            "tasks": list(plan.tasks),
            "optimisers": list(plan.methods),
            "seeds": list(range(plan.seeds)),
            "budgets": list(plan.budgets),
        },
        started="2026-11-22T03:00:00+00:00",
        platform="Linux-6.1-x86_64",
        versions={"rlprompt": "0.1.0", "python": "3.11.9", "torch": "2.9.1", "numpy": "2.3.4"},
    ).model_copy(update=changed)
    write_summary(folder, summary)
    return summary


def write_summary(folder: Path, summary: Summary) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(summary.to_json(), encoding="utf-8")


def task_entry(name: str, plan: Plan) -> TaskEntry:
    generation = name == "capitals"
    n_test = N_TEST if plan.test else 0
    labels = tuple(("negative", "positive")[i % 2] for i in range(n_test))
    shown = tuple(
        ExampleEntry(
            place=i,
            fields={"text": f"a film of {SCRIPT if i == 0 else 'some length'}, no. {i}"},
            label="Paris" if generation else labels[i],
        )
        for i in range(0, n_test, 50)
    )
    return TaskEntry(
        name=name,
        fingerprint=f"{name}-0a1b2c3d",
        metric="exact_match" if generation else "accuracy",
        reward="" if generation else "gap",
        template="{country} {prompt}" if generation else "{text} {prompt}",
        classes=() if generation else ("negative", "positive"),
        label_words={} if generation else {"negative": ("bad",), "positive": ("good",)},
        test_labels=() if generation else labels,
        examples={"train": 32, "dev": N_DEV, "test": n_test},
        shown=shown,
        data_notes=("2 weak ratings were left out.",) if name == "movie-reviews" else (),
    )


def model_entry(noise: float = 1e-5) -> ModelEntry:
    return ModelEntry(
        name=MODEL,
        kind="causal",
        parameters=134_515_008,
        fingerprint={"digest": "77fe01", **FINGERPRINT},
        device="cpu",
        noise=dict.fromkeys(("alone", "shuffled", "batches", "plain"), noise) | {"spread": 0.4},
    )


def make_result(
    task: TaskEntry, method: str, seed: int, budget: int, plan: Plan, rng: np.random.Generator
) -> Result:
    """A search with a rising curve and a test score near its method's."""
    level, soft = METHODS[method]
    level += {"movie-reviews": 0.0, "sst-2": 0.06, "capitals": -0.2}.get(task.name, 0.0)
    rewards = _curve(level, plan.points, rng)
    step = budget / plan.points
    points = tuple((round(step * (i + 1)), float(reward)) for i, reward in enumerate(rewards))
    improvements = [points[0]]
    for point in points:
        if point[1] > improvements[-1][1]:
            improvements.append(point)
    metrics = (rng.random(task.examples["test"]) < level + rng.normal(0, 0.012)).astype(float)
    best = _candidate(soft, rng, improvements[-1], dev=level + 0.05, level=level)
    test = Score(float(metrics.mean() * 2 - 1), float(metrics.mean())) if len(metrics) else None
    best = dataclasses.replace(
        best, train=Score(improvements[-1][1], min(1.0, level + 0.12)), test=test
    )
    others = tuple(
        _candidate(soft, rng, improvements[-1], dev=level - 0.02 * (i + 1), level=level)
        for i in range(3)
    )
    seconds = tuple(rows * 0.006 for rows, _ in improvements)
    return Result(
        task=task.name,
        task_fingerprint=task.fingerprint,
        model=MODEL,
        fingerprint=FINGERPRINT,
        noise={},
        optimiser=method,
        settings={"pool": 0.5},
        seed=seed,
        length=5,
        status="finished",
        budget_rows=budget,
        rows=points[-1][0],
        n_prompts=plan.points,
        n_distinct=plan.points,
        lm_seconds=budget * 0.006,
        total_seconds=budget * 0.0066,
        points=points,
        candidates=(best, *others),
        trace_seconds=seconds,
        tokens_per_row=31.5,
        own_tokens=120,
        incumbents=_incumbents(improvements, budget, rng),
        test_metrics=tuple(metrics.tolist()),
        test_answers=_answers(task, metrics),
        test_opened="2026-11-22T03:10:00+00:00" if len(metrics) else "",
        test_prompts=(2 if soft else 1) if len(metrics) else 0,
        outside_rows={"selection": 900, "final scores": 232, "curves and analysis": 480},
        outside_seconds=11.5,
        analysis=_analysis(best, soft, rng),
    )


def run_entry(task: TaskEntry, method: str, result: Result) -> RunEntry:
    best = result.best
    scores = {split: getattr(best, split) for split in ("train", "dev", "test")}
    name = f"{task.name}-{result.budget_rows}-{method}-seed{result.seed}"
    return RunEntry(
        task=task.name,
        model=MODEL,
        name=name,
        train=best.train.metric if best.train else None,
        dev=best.dev.metric if best.dev else None,
        test=best.test.metric if best.test else None,
        rewards={split: score.reward if score else None for split, score in scores.items()},
        budget_rows=result.budget_rows,
        optimiser=method,
        seed=result.seed,
        status=result.status,
        rows=result.rows,
        n_prompts=result.n_prompts,
        lm_seconds=result.lm_seconds,
        total_seconds=result.total_seconds,
        prompt=best.text,
        retypable=best.retypable,
        best_train_reward=result.trace[-1][1],
        mean_sampled_reward=result.mean_reward,
        settings=dict(result.settings),
        file=f"runs/{name}.json",
    )


def _curve(level: float, count: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Rewards whose best approaches the level slowly."""
    growth = 1 - np.exp(-np.arange(count) / (count / 4))
    return 2 * level - 1 + 0.3 * growth + rng.normal(0, 0.08, count) - 0.25


def _candidate(
    soft: bool,
    rng: np.random.Generator,
    found: tuple[int, float],
    dev: float,
    level: float,
) -> Candidate:
    prompt: Prompt
    if soft:
        prompt = SoftPrompt(rng.standard_normal((5, 8)))
    else:
        prompt = TokenPrompt(rng.integers(0, 49152, 5))
    text = "".join(rng.choice(WORDS, 5).tolist())
    return Candidate(
        prompt=prompt,
        text=f"{SOFT_MARK}{text}" if soft else text,
        retypable=not soft and bool(rng.random() < 0.5),
        train_reward=found[1],
        found_at_rows=found[0],
        train=None,
        dev=Score(2 * dev - 1, dev),
        test=None,
        dev_examples=N_DEV,
    )


def _incumbents(
    improvements: Sequence[tuple[int, float]], budget: int, rng: np.random.Generator
) -> tuple[Incumbent, ...]:
    chosen = {}
    for mark in (budget * i / 10 for i in range(1, 11)):
        before = [point for point in improvements if point[0] <= mark]
        if before:
            chosen[before[-1][0]] = before[-1][1]
    return tuple(
        Incumbent(rows, Score(reward - 0.15 + float(rng.normal(0, 0.02)), 0.6))
        for rows, reward in chosen.items()
    )


def _answers(task: TaskEntry, metrics: np.ndarray[Any, Any]) -> tuple[str, ...]:
    if not task.classes:
        return tuple("Paris" if right else "\u202eI do not know\x07" for right in metrics)
    other = {"negative": "positive", "positive": "negative"}
    return tuple(
        label if right else other[label]
        for label, right in zip(task.test_labels, metrics, strict=True)
    )


def _analysis(best: Candidate, soft: bool, rng: np.random.Generator) -> Analysis:
    assert best.dev is not None
    pieces = tuple(
        Piece(
            text,
            Score(best.dev.reward - float(rng.normal(0.05, 0.1)), best.dev.metric - i / N_DEV),
        )
        for i, text in enumerate(rng.choice(WORDS, 5).tolist())
    )
    if not soft:
        return Analysis(pieces)
    neighbours = tuple(Neighbour(piece.text, 2.1 + i, 3.2, 1.4) for i, piece in enumerate(pieces))
    hard = Projection((1, 2, 3), " It was", True, Score(0.1, 0.55), Score(0.08, 0.53))
    return Analysis(pieces, neighbours, hard)


def _controls(tasks: Sequence[TaskEntry]) -> list[ControlEntry]:
    found = []
    for task in tasks:
        for i, (name, prompt) in enumerate(
            (
                ("empty", ""),
                ("hand-written", " It was"),
                ("best word", " Overall"),
                ("16-shot in context", ""),
            )
        ):
            level = 0.55 + 0.03 * i - (0.2 if task.name == "capitals" else 0.0)
            metrics = tuple(float(k < level * N_TEST) for k in range(task.examples["test"]))
            test = float(np.mean(metrics)) if metrics else None
            found.append(
                ControlEntry(
                    task=task.name,
                    model=MODEL,
                    name=name,
                    train=level + 0.02,
                    dev=level + 0.01,
                    test=test,
                    rewards={"train": 2 * level - 1.2, "dev": 2 * level - 1.25, "test": test},
                    prompt=prompt,
                    retypable=True,
                    length={"in context": 512}.get(
                        name.removeprefix("16-shot "), len(prompt.split())
                    ),
                    rows=640 if name == "best word" else 0,
                    note="of 20 words, by train reward" if name == "best word" else "",
                    test_metrics=metrics,
                )
            )
    return found


def _references(tasks: Sequence[TaskEntry]) -> list[ReferenceEntry]:
    return [
        ReferenceEntry(
            task=task.name,
            model=MODEL,
            name=f"{kind}, seed {seed}",
            train=1.0,
            dev=level + 0.02,
            test=level + 0.01 * seed if task.examples["test"] else None,
            kind=kind,
            trainable=trainable,
            rows=rows,
            seconds=42.0,
            note="learning rate chosen on dev",
        )
        for task in tasks
        if task.classes
        for kind, level, trainable, rows in (
            ("logistic-head", 0.71, 577, 464),
            ("lora", 0.80, 460_800, 19_200),
            ("fine-tuning", 0.83, 134_515_008, 19_200),
        )
        for seed in range(3)
    ]
