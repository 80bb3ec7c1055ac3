"""Parts of one study: put together they are the whole, and what is no part is refused."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from study_folder import Plan, make_study, write_summary
from study_pages import found, sentences
from typer.testing import CliRunner

from rlprompt.cli.app import app
from rlprompt.models.fingerprint import ADDED
from rlprompt.reports.page import page_of
from rlprompt.reports.study_data import read_study
from rlprompt.search.result import Result
from rlprompt.store.parts import combine
from rlprompt.store.summary import FILE, RunEntry, Summary, SummaryError, read_summary

PLAN = Plan(methods=("random", "greedy"), tasks=("movie-reviews", "sst-2"), seeds=3, points=20)


# What `experiments/LOG.md` reports of sst-2, in the formats of the day.
KEPT = Path(__file__).parents[2] / "experiments" / "results" / "study-batch.tar.xz"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    make_study(folder, PLAN)
    return folder


def part(whole: Path, to: Path, **kept: Any) -> Path:
    """The study that covers a part of another's grid: of some tasks, methods or seeds."""
    summary = read_summary(whole)
    kept = {"tasks": PLAN.tasks, "optimisers": PLAN.methods, "seeds": (0, 1, 2)} | kept

    def is_kept(run: RunEntry) -> bool:
        there = run.task in kept["tasks"] and run.optimiser in kept["optimisers"]
        return there and run.seed in kept["seeds"]

    def of_task(entries: Any) -> Any:
        return tuple(one for one in entries if one.task in kept["tasks"])

    runs = tuple(filter(is_kept, summary.runs))
    changes = {
        "tasks": tuple(one for one in summary.tasks if one.name in kept["tasks"]),
        "optimisers": tuple(kept["optimisers"]),
        "seeds": tuple(kept["seeds"]),
        "controls": of_task(summary.controls),
        "references": of_task(summary.references),
        "runs": runs,
        "expected_runs": len(runs),
        "config": {**summary.config, **{name: list(values) for name, values in kept.items()}},
    }
    write_summary(to, summary.model_copy(update=changes))
    for run in runs:
        (to / run.file).parent.mkdir(exist_ok=True)
        shutil.copy(whole / run.file, to / run.file)
    return to


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"seeds": (0, 1)}, {"seeds": (2,)}),
        ({"optimisers": ("random",)}, {"optimisers": ("greedy",)}),
        ({"tasks": ("movie-reviews",)}, {"tasks": ("sst-2",)}),
        ({"seeds": (0, 1)}, {"seeds": (1, 2)}),  # what both have counts once
    ],
)
def test_parts_are_the_whole(
    whole: Path, tmp_path: Path, first: dict[str, Any], second: dict[str, Any]
) -> None:
    folders = part(whole, tmp_path / "a", **first), part(whole, tmp_path / "b", **second)
    made = combine(folders, tmp_path / "both")
    there = read_summary(whole)
    assert made.complete
    assert made.expected_runs == there.expected_runs == len(made.runs)
    tasks = {name: name for name in PLAN.tasks}
    models = {"smollm2-135m": "smollm2-135m"}
    spelt = {"task": None, "tasks": tasks, "model": None, "models": models, "budget": None}
    assert made.config == {**there.config, **spelt}
    assert [one.name for one in made.parts] == [str(folder) for folder in folders]
    assert figures(made) == figures(there)
    for run in made.runs:
        assert (tmp_path / "both" / run.file).read_bytes() == file_of(whole, run).read_bytes()
    assert sorted(made.controls, key=str) == sorted(there.controls, key=str)
    page, expected = (page_of(read_study(one)) for one in (tmp_path / "both", whole))
    assert sentences(page) == sentences(expected)
    assert found(page).pop("several parts").startswith("This page combines 2 studies, on ")


def test_a_control_that_the_first_part_could_not_score_is_that_of_the_second(
    whole: Path, tmp_path: Path
) -> None:
    folders = part(whole, tmp_path / "a", seeds=(0, 1)), part(whole, tmp_path / "b", seeds=(2,))
    summary = read_summary(folders[0])
    bare: dict[str, Any] = {
        "train": None,
        "dev": None,
        "test": None,
        "rewards": {},
        "test_metrics": (),
    }
    first, *others = summary.controls
    controls = (first.model_copy(update=bare), *others)
    write_summary(folders[0], summary.model_copy(update={"controls": controls}))
    made = combine(folders, tmp_path / "both")
    assert sorted(made.controls, key=str) == sorted(read_summary(whole).controls, key=str)


def figures(summary: Summary) -> list[str]:
    """The searches without their names."""
    bare = {"name": "", "file": ""}
    return sorted(str(run.model_copy(update=bare)) for run in summary.runs)


def file_of(folder: Path, run: RunEntry) -> Path:
    """The file of the same search in another study."""
    place = run.task, run.optimiser, run.seed
    there = read_summary(folder).runs
    return folder / next(one.file for one in there if (one.task, one.optimiser, one.seed) == place)


def test_parts_of_one_task_each_call_their_searches_alike(whole: Path, tmp_path: Path) -> None:
    """As `compare` does: a name has the task only where the study has several."""
    folders = []
    for name in PLAN.tasks:
        folder = part(whole, tmp_path / name, tasks=(name,))
        summary = read_summary(folder)
        runs = []
        for run in summary.runs:
            short = f"{run.optimiser}-seed{run.seed}"
            (folder / run.file).rename(folder / "runs" / f"{short}.json")
            runs.append(run.model_copy(update={"name": short, "file": f"runs/{short}.json"}))
        config = {**summary.config, "task": name, "tasks": None, "budget": 9600, "budgets": None}
        write_summary(folder, summary.model_copy(update={"runs": tuple(runs), "config": config}))
        folders.append(folder)
    made = combine(folders, tmp_path / "both")
    assert made.complete
    assert figures(made) == figures(read_summary(whole))
    assert list(made.config["tasks"]) == list(PLAN.tasks)
    assert not found(page_of(read_study(tmp_path / "both"))).keys() & {
        "struck runs",
        "missing runs",
    }


def test_of_a_search_that_one_part_finished_the_file_is_that_part_s(
    whole: Path, tmp_path: Path
) -> None:
    a, b = part(whole, tmp_path / "a"), part(whole, tmp_path / "b")
    summary = read_summary(a)
    first = summary.runs[0]
    failed = first.model_copy(update={"status": "failed"})
    write_summary(a, summary.model_copy(update={"runs": (failed, *summary.runs[1:])}))
    (a / first.file).write_text("what there was of it")
    made = combine([a, b], tmp_path / "both")
    assert made.complete
    for run in made.runs:
        assert (tmp_path / "both" / run.file).read_bytes() == file_of(b, run).read_bytes()


def test_the_study_that_is_kept_is_read_and_a_part_like_others(tmp_path: Path) -> None:
    with tarfile.open(KEPT) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / "study-batch"
    assert json.loads(read_summary(folder).to_json()) == json.loads((folder / FILE).read_text())
    for run in read_summary(folder).runs:
        text = (folder / run.file).read_text()
        again = json.loads(Result.from_json(text).to_json())
        # It was kept when results had no priors yet.
        assert {candidate.pop("prior") for candidate in again["candidates"]} == {None}
        assert again == json.loads(text)
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    with pytest.raises(SummaryError, match="which would be counted twice"):
        combine([folder, copy], tmp_path / "both")
    summary = read_summary(copy)
    elsewhere = [one.model_copy(update={"platform": "another"}) for one in summary.parts]
    write_summary(copy, summary.model_copy(update={"parts": tuple(elsewhere)}))
    made = combine([folder, copy], tmp_path / "both")
    assert (made.complete, len(made.runs)) == (True, 108)
    assert not any(run.problem or run.struck for run in read_study(tmp_path / "both").runs)


def test_a_study_that_two_have_in_them_is_refused(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in enumerate("abc"):
        part(whole, tmp_path / name, seeds=(seed,))
    monkeypatch.chdir(tmp_path)
    a, b, c, both = map(Path, ("a", "b", "c", "both"))
    assert len(combine([a, b, a.resolve()], both).parts) == 2  # given twice, taken once
    for folders in ([both, tmp_path / "b"], [tmp_path / "b", both]):
        with pytest.raises(
            SummaryError, match=r"both have the study .*b in them, which would be c"
        ):
            combine(folders, tmp_path / "all")
    assert len(combine([both, c], tmp_path / "all").parts) == 3


def test_a_method_twice_with_other_settings_is_two_methods(whole: Path, tmp_path: Path) -> None:
    folders = []
    for name, settings in (("a", {}), ("b", {"beam": 8})):
        folder = part(whole, tmp_path / name, optimisers=("greedy",))
        summary = read_summary(folder)
        title = "greedy" if not settings else "greedy beam=8"
        runs = tuple(run.model_copy(update={"optimiser": title}) for run in summary.runs)
        config = {**summary.config, "optimisers": [{"name": "greedy", "settings": settings}]}
        changes = {"runs": runs, "config": config, "optimisers": (title,)}
        write_summary(folder, summary.model_copy(update=changes))
        folders.append(folder)
    made = combine(folders, tmp_path / "both")
    assert made.optimisers == ("greedy", "greedy beam=8")
    assert [one["settings"] for one in made.config["optimisers"]] == [{}, {"beam": 8}]
    assert len(made.runs) == made.expected_runs == 2 * len(runs)


def test_what_no_part_has_is_missed_and_may_be_added(whole: Path, tmp_path: Path) -> None:
    a = part(whole, tmp_path / "a", tasks=("movie-reviews",), seeds=(0,))
    b = part(whole, tmp_path / "b", tasks=("sst-2",), seeds=(1, 2))
    made = combine([a, b], tmp_path / "both")
    assert (len(made.runs), made.expected_runs, made.complete) == (6, 12, False)
    assert (
        "Not finished: 6 of 12 runs"
        in found(page_of(read_study(tmp_path / "both")))["missing runs"]
    )
    c = part(whole, tmp_path / "c", tasks=("sst-2",), seeds=(0,))
    d = part(whole, tmp_path / "d", tasks=("movie-reviews",), seeds=(1, 2))
    # What was combined is a part like others, and may be replaced.
    assert combine([tmp_path / "both", c, d], tmp_path / "both").complete
    assert [one.name for one in read_summary(tmp_path / "both").parts] == [*map(str, (a, b, c, d))]


def _config(**changed: Any) -> Callable[[Summary], Summary]:
    return lambda one: one.model_copy(update={"config": {**one.config, **changed}})


def _task(**changed: Any) -> Callable[[Summary], Summary]:
    def change(one: Summary) -> Summary:
        task = one.tasks[0].model_copy(update=changed)
        return one.model_copy(update={"tasks": (task, *one.tasks[1:])})

    return change


def _model(one: Summary) -> Summary:
    (model,) = one.models
    other = model.model_copy(update={"fingerprint": {**model.fingerprint, "weights": "beef"}})
    return one.model_copy(update={"models": (other,)})


def _of_later_version(one: Summary) -> Summary:
    (model,) = one.models
    told = {**model.fingerprint, "digest": "f00d", "config": "beef"}
    return one.model_copy(update={"models": (model.model_copy(update={"fingerprint": told}),)})


def _of_later_server(one: Summary) -> Summary:
    """Of which a later version has nothing more to say."""
    (model,) = one.models
    told = {**model.fingerprint, **dict.fromkeys(ADDED, "")}
    return one.model_copy(update={"models": (model.model_copy(update={"fingerprint": told}),)})


def _ran_with(**changed: Any) -> Callable[[Summary], Summary]:
    """The method `random` searched with other settings, whatever the experiment says of it."""
    source = changed.pop("source", {})

    def change(one: Summary) -> Summary:
        runs = [
            run.model_copy(update={"settings": {**run.settings, **changed}, "source": source})
            if run.optimiser == "random"
            else run
            for run in one.runs
        ]
        return one.model_copy(update={"runs": tuple(runs)})

    return change


def _methods(**settings: Any) -> list[dict[str, Any]]:
    """The methods of the experiment, the first with settings that its name leaves out."""
    return [{"name": "random", "settings": settings}, {"name": "greedy", "settings": {}}]


def _first_run(**changed: Any) -> Callable[[Summary], Summary]:
    def change(one: Summary) -> Summary:
        first = one.runs[0].model_copy(update=changed)
        return one.model_copy(update={"runs": (first, *one.runs[1:])})

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_config(prompt={"length": 3}), 'prompt: null in {a}, {{"length": 3}} in {b}'),
        (_config(split_seeds=[13, 21]), "split_seeds: null in {a}, [13, 21] in {b}"),
        (_config(dtype="float16"), 'dtype: null in {a}, "float16" in {b}'),
        (_config(), ""),
        (_ran_with(later=None), ""),  # of a version that had no such setting
        (_ran_with(pool=0.9), "ran random with other settings, so it is not one method:\n  pool: "),
        (_ran_with(pool=0.9), "pool: 0.5 in {a}, 0.9 in {b}"),
        (
            _config(optimisers=_methods(start={"found": "b/best"})),
            'optimisers.random.settings.start: null in {a}, {{"found": "b/best"}} in {b}',
        ),
        (
            _config(optimisers=[*_methods(), {"name": "b/mine.py:greedy", "settings": {}}]),
            "{b} has 3 methods under 2 names (random, greedy)",
        ),
        (lambda one: one.model_copy(update={"config": {}}), "{b} was run from Python"),
        (_task(fingerprint="other"), "different examples or settings of the task movie-reviews"),
        (_model, 'weights: "5b7c" in one, "beef" in the other'),
        (_of_later_server, ""),
        (_of_later_version, "one was run by an older rlprompt, which hashed less of a model: run"),
        (
            _first_run(prompt=" otherwise"),
            "both have the search movie-reviews-9600-random-seed0, with different results",
        ),
        # As of soft prompts that go by the same nearest tokens.
        (_first_run(test=0.125, retypable=False), ", test 0.61 and 0.125); leave one"),
        (_first_run(test=None), ""),
    ],
)
def test_what_is_no_part_of_one_study_is_refused_with_the_difference(
    whole: Path, tmp_path: Path, change: Callable[[Summary], Summary], said: str
) -> None:
    a, b = (part(whole, tmp_path / name) for name in "ab")
    base = _config(optimisers=_methods())(read_summary(a))
    write_summary(a, base)
    write_summary(b, change(base))
    if not said:
        combine([a, b], tmp_path / "both")
        return
    with pytest.raises(SummaryError) as told:
        combine([a, b], tmp_path / "both")
    assert said.format(a=a, b=b) in str(told.value)
    assert not (tmp_path / "both").exists()


@pytest.mark.parametrize(
    ("section", "fitted"),
    [
        ({"data": "films.csv", "on_bad_rows": "error", "on_long_text": "error"}, False),
        ({"data": "films.csv", "on_bad_rows": "error", "on_long_text": "skip"}, True),
        ({"name": "sst2"}, True),
    ],
)
def test_a_model_has_examples_of_its_own_only_where_they_are_fitted_to_it(
    whole: Path, tmp_path: Path, section: dict[str, str], fitted: bool
) -> None:
    a, b = (part(whole, tmp_path / name) for name in "ab")
    for folder, model in ((a, "one"), (b, "another")):
        there = read_summary(folder)

        def named(entries: Any, model: str = model) -> Any:
            return tuple(entry.model_copy(update={"model": model}) for entry in entries)

        changes = {
            "models": (there.models[0].model_copy(update={"name": model}),),
            "controls": named(there.controls),
            "references": named(there.references),
            "runs": named(there.runs),
        }
        config = {
            "models": {model: model},
            "model": None,
            "tasks": dict.fromkeys(PLAN.tasks, section),
        }
        write_summary(folder, _config(**config)(there.model_copy(update=changes)))
    write_summary(b, _task(fingerprint="fitted", examples={"train": 16})(read_summary(b)))
    if not fitted:
        with pytest.raises(SummaryError, match="different examples or settings of the task movie"):
            combine([a, b], tmp_path / "both")
        return
    first, second = combine([a, b], tmp_path / "both").tasks
    assert first.of_model("one") == read_summary(a).tasks[0]
    assert first.of_model("another") == read_summary(b).tasks[0]
    assert (list(first.by_model), list(second.by_model)) == (["another"], [])


class TestCommand:
    def run(self, *arguments: object) -> Any:
        return CliRunner().invoke(app, ["combine", *map(str, arguments)])

    def test_it_writes_one_page(self, whole: Path, tmp_path: Path) -> None:
        a = part(whole, tmp_path / "a", seeds=(0, 1))
        b = part(whole, tmp_path / "b", seeds=(2,))
        done = self.run(a, b, "--out", tmp_path / "both")
        assert done.exit_code == 0, done.output
        assert "12 of 12 searches" in done.stdout
        assert read_summary(tmp_path / "both").name == "both"
        assert "combines 2 studies" in (tmp_path / "both" / "report.html").read_text()
        shown = CliRunner().invoke(app, ["show", str(tmp_path / "both")])
        assert (shown.exit_code, shown.stderr.count("\n")) == (2, 1)
        assert "`rlprompt report` and Study.open read it" in shown.stderr

    def test_nothing_else_is_overwritten(self, whole: Path, tmp_path: Path) -> None:
        a = part(whole, tmp_path / "a", seeds=(0, 1))
        for arguments, said in (
            ((a, whole, "--out", a), "exists and is not a combined study"),
            ((a, a, "--out", tmp_path / "both"), "give two or more studies"),
            (
                (a, a / ".." / "a", "--out", tmp_path / "both"),
                "two or more studies to combine, got 1",
            ),
            ((a, tmp_path / "none", "--out", tmp_path / "both"), "has no summary.json"),
        ):
            done = self.run(*arguments)
            assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1), done.output
            assert said in done.stderr


def test_a_method_of_other_files_is_another_one(whole: Path, tmp_path: Path) -> None:
    a, b = (part(whole, tmp_path / name) for name in "ab")
    made = [_ran_with(source={"mine.py": digest})(read_summary(a)) for digest in "xy"]
    for summary in (made[0], read_summary(a)):
        write_summary(a, made[0])
        write_summary(b, summary)
        combine([a, b], tmp_path / "both")
    write_summary(b, made[1])
    said = f'not one method:\n  files.mine.py: "x" in {a}, "y" in {b}'
    with pytest.raises(SummaryError, match=re.escape(said)):
        combine([a, b], tmp_path / "both")
