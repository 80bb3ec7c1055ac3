"""What in a study cannot be relied on: each check a function, each finding a sentence.

Runs that were struck (`examined`) are shown and count in no statistic. Everything else is a caution
beside the figures that it touches.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from rlprompt._utils.text import counted, listed_briefly
from rlprompt.models.noise import QUIET, largest_noise, slope
from rlprompt.reports.study_data import StudyData
from rlprompt.statistics.summaries import share_interval
from rlprompt.store.summary import TaskEntry
from rlprompt.tasks.class_metrics import COMMON

# Test examples below which an accuracy of a half is known to 0.1 or worse.
FEWEST_TEST_EXAMPLES = 100
# Share of distinct prompts below which a search counts as one that settled too early.
FEWEST_DISTINCT = 0.5


@dataclass(frozen=True)
class Caveat:
    """Something to know before a figure is believed.

    Attributes:
        check: The function that found it, the same words.
        level: `struck`: figures are left out; `caution`: a conclusion is limited; `note`.
        text: What was found and what follows, a sentence or two.
    """

    check: str
    level: str
    text: str


def caveats(study: StudyData) -> list[Caveat]:
    """All findings about a study that was `examined`, the gravest first."""
    found = [caveat for check in STUDY_CHECKS for caveat in check(study)]
    order = ("struck", "caution", "note")
    return sorted(found, key=lambda caveat: order.index(caveat.level))


def struck_runs(study: StudyData) -> Iterator[Caveat]:
    """Runs that count for nothing, and why."""
    for run in study.runs:
        for problem in run.struck:
            yield Caveat(
                "struck runs",
                "struck",
                f"{run.title}: {problem} Its scores are shown, but count in no statistic.",
            )


def leaks(study: StudyData) -> Iterator[Caveat]:
    """Examples that two splits share."""
    for heading, task in _headed(study, "leaks", every_split=True):
        which = "" if task.split_seed is None else f", split {task.split_seed}"
        for split, shared in task.leaks.items():
            total = task.examples.get(split, 0)
            share = f" ({shared / total:.1%})" if total else ""
            what = "figures" if split == "test" else f"{split} figures"
            yield Caveat(
                "leaks",
                "caution",
                f"{heading}{which}: {shared} of {total} {split} examples{share} are also in an "
                f"earlier split, so its {what} reward memorising and are too good.",
            )


def rare_classes(study: StudyData) -> Iterator[Caveat]:
    """A test set of which one answer to all is right nearly always."""
    for heading, task in _headed(study, "test_labels"):
        if task.metric != "accuracy" or not task.test_labels:
            continue
        ((label, n),) = Counter(task.test_labels).most_common(1)
        share = n / len(task.test_labels)
        if share > COMMON:
            yield Caveat(
                "rare classes",
                "caution",
                f"{heading}: always answering `{label}` has a test accuracy of {share:.3f}, so "
                "accuracy says little about the other classes. Set metric: balanced_accuracy, "
                "macro_f1 or mcc.",
            )


def no_runs(study: StudyData) -> Iterator[Caveat]:
    """Nothing but controls."""
    if not any(run.counts for run in study.runs):
        begun = "has started" if not study.runs else "has finished with figures that count"
        yield Caveat(
            "no runs",
            "caution",
            f"No search {begun}, so nothing can be said about methods.",
        )


def one_seed(study: StudyData) -> Iterator[Caveat]:
    """No repetition: luck and method cannot be told apart."""
    for model, budget in study.sections:
        if _luck(study, model, budget) == (1, "seed"):
            yield Caveat(
                "one seed",
                "caution",
                f"{_place(study, model, budget)}add seeds to the experiment and run it again; "
                "finished searches are kept.",
            )


def few_seeds(study: StudyData) -> Iterator[Caveat]:
    """Repetitions whose own luck is hardly known."""
    for model, budget in study.sections:
        n, unit = _luck(study, model, budget)
        if n == 2:
            add = "seeds"
            if unit == "split":
                add = "`split_seeds`, as seeds on the same split add none,"
            yield Caveat(
                "few seeds",
                "caution",
                f"{_place(study, model, budget)}two {unit}s hardly tell luck from method: a 95 % "
                f"interval of two values is 12.7 standard errors either way. Add {add} to the "
                "experiment and run it again; finished searches are kept.",
            )


def few_test_examples(study: StudyData) -> Iterator[Caveat]:
    """Test sets on which one prompt's accuracy is hardly known."""
    for heading, task in _headed(study, "examples"):
        n = task.examples.get("test", 0)
        if task.metric == "accuracy" and 0 < n < FEWEST_TEST_EXAMPLES:
            low, high = share_interval(n // 2, n)
            yield Caveat(
                "few test examples",
                "caution",
                f"{heading}: a prompt that is right on {n // 2} of {n} test examples may be "
                f"right on {low:.0%} to {high:.0%} of all texts (Wilson, 95 %), and every method "
                "is tested on the same examples. Give more: `test: 400`.",
            )


def one_seed_a_split(study: StudyData) -> Iterator[Caveat]:
    """Luck of the examples and of the search that cannot be told apart."""
    summary = study.summary
    if len(summary.split_seeds) > 1 and len(summary.seeds) == 1:
        yield Caveat(
            "one seed a split",
            "note",
            f"Each of {len(summary.split_seeds)} splits has one search seed, so intervals cover "
            "the luck of the examples and of the search together and cannot separate them.",
        )


def several_budgets(study: StudyData) -> Iterator[Caveat]:
    """Runs that must not be compared with each other."""
    budgets = sorted({budget for _, budget in study.sections})
    if len(budgets) > 1:
        yield Caveat(
            "several budgets",
            "note",
            f"There are runs of {listed_briefly(f'{budget:,}' for budget in budgets)} rows. They "
            "are never in one table, since a larger budget does not make a better method.",
        )


def several_parts(study: StudyData) -> Iterator[Caveat]:
    """Searches of several studies on one page."""
    parts = study.summary.parts
    if not parts:
        return
    platforms = dict.fromkeys(one.platform for one in parts)
    homes = "; ".join(
        f"{one.name}, {counted(one.runs, 'run')}, begun {one.started[:10]}"
        + (f", {one.platform}" if len(platforms) > 1 else "")
        for one in parts
    )
    alike = f", on {parts[0].platform}" if len(platforms) == 1 else ""
    packages = dict.fromkeys(package for one in parts for package in one.versions)
    versions = {
        package: dict.fromkeys(one.versions.get(package, "none") for one in parts)
        for package in packages
    }
    differ = [f"{name} {', '.join(each)}" for name, each in versions.items() if len(each) > 1]
    yield Caveat(
        "several parts",
        "caution" if differ else "note",
        f"This page combines {len(parts)} studies{alike}: {homes}. Rows mean the same in all; "
        "seconds are those of each study's machine, and near ties may fall differently on another."
        + (f" Versions differ: {'; '.join(differ)}." if differ else ""),
    )


def failed_runs(study: StudyData) -> Iterator[Caveat]:
    """Runs that an error ended, or a person."""
    for run in study.runs:
        if run.entry.status != "finished":
            why = f": {run.entry.error}" if run.entry.error else ""
            yield Caveat(
                "failed runs" if run.entry.status == "failed" else "unfinished runs",
                "caution",
                f"{run.title}, {run.entry.budget_rows:,} rows: {run.entry.status}{why}.",
            )


def few_distinct(study: StudyData) -> Iterator[Caveat]:
    """Searches that paid for the same prompts again and again."""
    for run in study.runs:
        result = run.result
        if result is not None and result.n_distinct < FEWEST_DISTINCT * result.n_prompts:
            yield Caveat(
                "few distinct prompts",
                "caution",
                f"{run.title}, {run.entry.budget_rows:,} rows: {result.n_distinct:,} of its "
                f"{result.n_prompts:,} scored prompts were distinct. It scored the same few again "
                "and again, so a smaller budget would have found the same; with PPO a larger "
                "`fresh` makes it move on.",
            )


def missing_runs(study: StudyData) -> Iterator[Caveat]:
    """Runs of the grid that are not in the summary."""
    summary = study.summary
    missing = summary.expected_runs - len(study.runs)
    if missing <= 0:
        return
    grid = list(
        itertools.product(
            [task.name for task in summary.tasks],
            [model.name for model in summary.models],
            summary.budgets,
            summary.optimisers,
            summary.split_seeds or (None,),
            summary.seeds,
        )
    )
    there = {run.cell for run in study.runs}
    which = ""
    if len(grid) == summary.expected_runs:
        absent = [cell for cell in grid if cell not in there]
        which = ": " + listed_briefly(
            (
                f"{o} on {t}, {m}, {'' if d is None else f'split {d}, '}seed {s}, {b:,} rows"
                for t, m, b, o, d, s in absent
            ),
            most=3,
        )
    cure = "run the study's command again to go on"
    if summary.parts:  # whose answers this folder does not have
        cure = "go on with the parts that they belong to, or run them as another, and combine again"
    yield Caveat(
        "missing runs",
        "caution",
        f"Not finished: {missing} of {summary.expected_runs} runs{which}. Methods are compared on "
        f"the tasks and seeds that both have; {cure}.",
    )


def missing_test(study: StudyData) -> Iterator[Caveat]:
    """Tasks without a test figure."""
    for task in study.summary.tasks:
        runs = [run for run in study.runs if run.entry.task == task.name and run.counts]
        if task.examples.get("test", 0) == 0:
            why = "has no test examples"
        elif runs and all(run.entry.test is None for run in runs):
            why = "was not scored on test"
        else:
            continue
        yield Caveat(
            "missing test",
            "caution",
            f"{task.name} {why}. Dev is shown instead; the prompts were picked on it, so its "
            "figures are too good.",
        )


def noise_floor(study: StudyData) -> Iterator[Caveat]:
    """Differences that the arithmetic alone could make."""
    for model in study.summary.models:
        noise = largest_noise(model.noise) or 0.0
        spread = model.noise.get("spread", 0.0)
        if spread and noise > QUIET * spread:
            yield Caveat(
                "noise floor",
                "caution",
                f"{model.name}: computed another way, a log-likelihood differs by up to "
                f"{noise:.2g} nats, {noise / spread:.1%} of the usual distance between two "
                "prompts. Near ties are decided by rounding; there is less with dtype: float32.",
            )
        for task in study.summary.tasks:
            yield from _below_noise(study, model.name, task, noise)


def _below_noise(study: StudyData, model: str, task: TaskEntry, noise: float) -> Iterator[Caveat]:
    """Methods on a task whose mean test rewards differ by less than the noise makes of one row."""
    steep = slope(task.reward, len(task.classes))
    if steep is None:
        return
    most = steep * noise
    for budget in study.summary.budgets:
        means = {}
        for name in study.summary.optimisers:
            rewards = [
                reward
                for run in study.section(model, budget)
                if (run.entry.task, run.entry.optimiser) == (task.name, name) and run.counts
                if (reward := run.entry.rewards.get("test")) is not None
            ]
            if rewards:
                means[name] = float(np.mean(rewards))
        close = [
            f"{a} and {b}"
            for (a, x), (b, y) in itertools.combinations(means.items(), 2)
            if 0 < abs(x - y) < most
        ]
        if close:
            yield Caveat(
                "noise floor",
                "caution",
                f"{task.name}, {model}, {budget:,} rows: the mean test rewards of "
                f"{listed_briefly(close)} differ by less than the noise of one log-likelihood "
                f"({noise:.2g} nats) may change the reward of an example ({most:.2g}).",
            )


def tests_rounding(study: StudyData) -> bool:
    """Whether `noise_floor` could tell: noise was measured, and what it makes of rewards known."""
    models, tasks = study.summary.models, study.summary.tasks
    return all(one.noise.get("spread") for one in models) and all(
        slope(one.reward) is not None for one in tasks
    )


def unread_transfer(study: StudyData) -> Iterator[Caveat]:
    """Transferred prompts that are left out because their file cannot be read."""
    if study.transfer_problem:
        yield Caveat("unread transfer", "caution", f"{study.transfer_problem}.")


def _headed(
    study: StudyData, field: str, every_split: bool = False
) -> Iterator[tuple[str, TaskEntry]]:
    """The tasks on their first draw, or on all, by how to call them; see `TaskEntry.headed`."""
    for task in study.summary.tasks:
        for split in task.splits if every_split else (task,):
            yield from split.headed(field).items()


def _luck(study: StudyData, model: str, budget: int) -> tuple[int, str]:
    """How often a section saw what varies independently, and what that is: a split or a seed."""
    counting = [run.entry for run in study.section(model, budget) if run.counts]
    splits = {one.split_seed for one in counting}
    if len(splits.union(study.summary.split_seeds)) > 1:
        return len(splits), "split"
    return len({one.seed for one in counting}), "seed"


def _place(study: StudyData, model: str, budget: int) -> str:
    """What tells a section from the others, or "" for the only one."""
    return "" if len(study.sections) == 1 else f"{model}, {budget:,} rows: "


STUDY_CHECKS: tuple[Callable[[StudyData], Iterator[Caveat]], ...] = (
    struck_runs,
    no_runs,
    missing_test,
    leaks,
    rare_classes,
    one_seed,
    one_seed_a_split,
    few_seeds,
    few_test_examples,
    failed_runs,
    few_distinct,
    missing_runs,
    noise_floor,
    unread_transfer,
    several_budgets,
    several_parts,
)
