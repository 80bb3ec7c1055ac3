"""Experiment files: what is read, and one plain line for each mistake."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from experiment_files import GOOD, read, read_task, with_task

from rlprompt.config.problems import config_from_json
from rlprompt.config.registry import make_optimiser
from rlprompt.config.schema import OWN
from rlprompt.config.tasks import NamedTaskConfig, hand_prompts
from rlprompt.config.yaml_file import ConfigError, load_config
from rlprompt.prompt import Length

DEMO = Path(__file__).parents[2] / "experiments" / "demo.yaml"


def refusal(folder: Path, old: str, new: str) -> list[str]:
    """What is said of the good file with one thing changed: lines without the folder."""
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        read(folder, GOOD.replace(old, new, 1))
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def test_a_good_file_is_read_with_the_defaults_filled_in(folder: Path) -> None:
    config = read(folder, GOOD)
    assert config.model
    assert config.model.name == "some-model"
    assert config.seeds == (0,)
    assert config.prompt.length == 5
    assert config.task
    assert config.task.name == "data"
    assert read_task(folder).data == str(folder / "data.csv")
    assert list(config.titled()) == ["random", "greedy pool=0.5"]


@pytest.mark.parametrize(
    ("written", "lengths"),
    [
        ("3", 3),
        ("{at_most: 4}", Length(4)),
        ("{at_least: 2, at_most: 4}", Length(4, at_least=2)),
    ],
)
def test_prompts_have_one_length_or_any_in_a_range(
    folder: Path, written: str, lengths: int | Length
) -> None:
    config = read(folder, f"{GOOD}\nprompt: {{length: {written}}}")
    assert config.prompt.lengths == lengths
    assert config_from_json(config.record).prompt == config.prompt


@pytest.mark.parametrize(
    ("written", "starts"),
    [
        ("hand", ("hand",)),
        ("[auto, It was]", ("auto", "It was")),
        ("{found: there}", ({"found": "there"},)),
        ("[hand, {found: best}]", ("hand", {"found": "FOLDER/best"})),
    ],
)
def test_starts_are_texts_names_and_folders_beside_the_file(
    folder: Path, written: str, starts: tuple[object, ...]
) -> None:
    (folder / "best").mkdir()
    own = f"optimisers: [{{name: greedy, start: {written}}}]"
    config = read(folder, f"{GOOD}prompt: {{start: {written}}}".replace("  - random\n", ""))
    shown = str(config.prompt.start).replace(str(folder), "FOLDER")
    assert shown == str(starts)
    again = config_from_json(config.record)
    assert again.prompt == config.prompt
    titled = read(folder, re.sub(r"optimisers:\n(  .*\n)+", f"{own}\n", GOOD)).titled()
    ((title, one),) = titled.items()
    there = one.settings["start"]
    assert (there if isinstance(there, list) else [there]) == list(config.prompt.start)
    assert str(folder) not in title


def test_a_title_names_what_an_optimiser_has_of_its_own(folder: Path) -> None:
    own = "{start: [hand, {found: runs/best}], length: {at_most: 3}, tokens: {words: 9}}"
    config = read(folder, GOOD.replace("{name: greedy, pool: 0.5}", f"{{name: greedy, {own[1:]}"))
    assert list(config.titled())[1] == (
        "greedy start=hand+found:best length=at_most:3 tokens=words:9"
    )


@pytest.mark.parametrize(
    ("written", "tokens"),
    [
        ("all", "all"),
        ("words", {"words": 300}),
        ("{likely: 9}", {"likely": 9}),
        ("gradient", {"gradient": 300}),
        ("{gradient: 9}", {"gradient": 9}),
    ],
)
def test_tokens_are_a_kind_or_a_kind_with_its_size(
    folder: Path, written: str, tokens: object
) -> None:
    config = read(folder, f"{GOOD}prompt: {{tokens: {written}}}")
    assert config.prompt.tokens == tokens
    assert config_from_json(config.record).prompt == config.prompt


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("start: hnad", "prompt.start: start 'hnad': did you mean 'hand'?"),
        ("start: []", "prompt.start: must not be empty"),
        ("start: 3", "prompt.start: must be a text, a name, {found: FOLDER}"),
        ("start: {fuond: x}", "prompt.start: must be a text, a name, {found: FOLDER}"),
        ("tokens: wrods", "prompt.tokens: there are no tokens of the kind 'wrods'; give one of"),
        ("tokens: {words: 0}", "prompt.tokens: a pool has a whole number of tokens, 1 or more"),
        ("tokens: {words: 3, likely: 3}", "prompt.tokens: a pool is one kind with its size"),
    ],
)
def test_what_is_no_start_and_no_pool_is_named_by_its_line(
    folder: Path, written: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        read(folder, f"{GOOD}prompt:\n  {written}")
    assert str(caught.value).startswith(f"{folder}/small.yaml:13: ")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("0", "prompt.length: must be greater than 0, got 0"),
        ("-1", "prompt.length: must be greater than 0, got -1"),
        ("five", "prompt.length: must be a whole number, got 'five'"),
        ("[5, {at_most: 3}]", "prompt.length: must be a whole number, got [5, {'at_most': 3}]"),
        ("{at_least: 2}", "prompt.length.at_most is missing"),
        ("{at_most: 0}", "prompt.length.at_most: must be greater than 0, got 0"),
        ("{at_most: 2, at_least: -1}", "prompt.length.at_least: must be greater than 0, got -1"),
        (
            "{at_most: 2, at_least: 3}",
            "prompt.length: no prompt has at least 3 and at most 2 tokens; give at_least from 1 "
            "to 2",
        ),
        (
            "{at_most: 2, exactly: 3}",
            "unknown key 'exactly' in prompt.length; known: at_most, at_least",
        ),
    ],
)
def test_a_length_that_is_none_is_refused(folder: Path, written: str, said: str) -> None:
    (line,) = refusal(folder, "96", f"96\nprompt: {{length: {written}}}")
    assert line == f"small.yaml:12: {said}"


def test_a_number_and_a_range_are_not_both_taken(folder: Path) -> None:
    both = "96\nprompt:\n  length: 5\n  length: {at_most: 5}"
    assert refusal(folder, "96", both) == ["small.yaml:14: the key 'length' is there twice"]


def test_the_demo_is_a_good_file() -> None:
    config = load_config(DEMO)
    assert config.budget == 150 * 32
    assert len(config.optimisers) == 6
    for one in config.optimisers:
        make_optimiser(one.name, one.settings)


@pytest.mark.parametrize("path", sorted(DEMO.parent.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_is_a_good_file(
    path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for task, seed in itertools.product(("sst-2", "agnews", "cr"), (13, 21, 42)):
        (folder / "kshot" / task / f"16-{seed}").mkdir(parents=True)
    monkeypatch.chdir(folder)
    config = load_config(path)
    assert config.name == path.stem
    for one in config.optimisers:
        make_optimiser(one.name, {key: one.settings[key] for key in one.settings if key not in OWN})


def test_an_override_wins_and_none_leaves_the_file(folder: Path) -> None:
    (folder / "small.yaml").write_text(GOOD)
    config = load_config(folder / "small.yaml", budget=12, seeds=[3, 4], device=None)
    assert (config.budget, config.seeds, config.device) == (12, (3, 4), "auto")


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("  shots", "  shot", "small.yaml:7: unknown key 'shot' in task; did you mean 'shots'?"),
        ("optimisers", "optimizers", "small.yaml:8: unknown key 'optimizers'; did you mean"),
        ("budget: 96", "budget: 96\nx: 1", "small.yaml:12: unknown key 'x'; known: name, model"),
        (
            "  shots: 2\n",
            "shots: 2\n",
            "small.yaml:7: unknown key 'shots'; did you mean 'shots' under 'task'?",
        ),
        ("  shots: 2\n", "  seeds: [2]\n", "small.yaml:7: unknown key 'seeds' in task; did you"),
        ("model: some-model", "model: {nam: x}", "small.yaml:2: unknown key 'nam' in model"),
        ("budget: 96\n", "", "small.yaml:1: budget is missing"),
        ("96", "many", "small.yaml:11: budget: must be a whole number, got 'many'"),
        ("96", "0", "small.yaml:11: budget: must be greater than 0, got 0"),
        ("96", "96\nselection: {candidates: 0}", "small.yaml:12: selection.candidates: must be gr"),
        ("96", "96\nselection: {dev_patience: 0}", "small.yaml:12: selection.dev_patience: must b"),
        ("96", "96\nselection: {candidate: 8}", "small.yaml:12: unknown key 'candidate' in select"),
        ("96", "96\nselection: {along_path: up}", "small.yaml:12: selection.along_path: must be"),
        ("96", "96\nseeds: 3", "small.yaml:12: seeds: must be a list, got 3"),
        ("96", "96\nseeds: []", "small.yaml:12: seeds: must not be empty, got []"),
        ("96", "96\nseeds: [1, 1]", "small.yaml:12: seeds: 1 is given twice"),
        ("96", "96\nbudget: 97", "small.yaml:12: the key 'budget' is there twice"),
        (
            "name: small",
            "name: .up",
            "small.yaml:1: name: must be a plain name of letters, digits, _, - and . that does "
            "not begin with - or ., got '.up'",
        ),
        (
            "  shots: 2",
            "   shots: 2",
            "small.yaml:7: expected <block end>, but found '<block mapping start>'; is this line "
            "indented like its neighbours?",
        ),
        ("  - random", "  - randon", "small.yaml:9: optimisers.0.name: no optimiser is called"),
        ("  - random", "  - greedy\n  - greedy", "small.yaml:8: optimisers: greedy is given twice"),
        ("{name: greedy, ", "{", "small.yaml:10: optimisers.1.name is missing"),
        ("{text} {prompt}", "{text}", "small.yaml:5: task.template: template '{text}' has 0"),
        ("{prompt}", "{prompt} {prompt}", "small.yaml:5: task.template: template '{text} {prompt}"),
        ("{prompt}", "{prompt} {", "small.yaml:5: task.template: template '{text} {prompt} {'"),
        (
            "{negative: terrible, positive: great}",
            "auto",
            "small.yaml:3: task: `label_words: auto`",
        ),
        ("  shots: 2\n", "  labels: [a]\n", "small.yaml:3: task: a list of `labels:` is for"),
        ("  shots: 2\n", "  labels: 5\n", "small.yaml:7: task.labels: must be a list, got 5"),
        ("shots: 2", "on_bad_rows: drop", "small.yaml:7: task.on_bad_rows: must be 'error' or"),
        ("data.csv", "nowhere.csv", "small.yaml: task.data 'nowhere.csv' is not there; looked"),
        ("data.csv", "movie-review", "small.yaml: task.data 'movie-review' is not there (did you"),
        (GOOD, "", "small.yaml is empty; `rlprompt init DATA` writes an experiment file"),
        (GOOD, "- 1\n- 2\n", "small.yaml holds a list, not keys"),
        (GOOD, "just words", "small.yaml holds a str, not keys"),
        (GOOD, "a: {b: c", "small.yaml:1: "),
        (GOOD, "a: \x07", "small.yaml: unacceptable character"),
        (GOOD, "? [1, 2]\n: 3", "small.yaml:1: a key must be text"),
        (GOOD, "task: &it {task: *it}", "small.yaml: maximum recursion depth exceeded"),
    ],
)
def test_a_mistake_is_one_line_that_says_where(folder: Path, old: str, new: str, line: str) -> None:
    assert any(said.startswith(line) for said in refusal(folder, old, new)), refusal(
        folder, old, new
    )


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("optimisers", "optimizers", "8: unknown key 'optimizers'; did you mean 'optimisers'?"),
        ("template", "templat", "5: unknown key 'templat' in task; did you mean 'template'?"),
        (
            "name: small\nmodel",
            "prompt: {name: small}\nmodel",
            "1: unknown key 'name' in prompt; did you mean 'name' at the top, without indentation?",
        ),
    ],
)
def test_a_key_that_is_misspelt_is_not_missing_as_well(
    folder: Path, old: str, new: str, line: str
) -> None:
    assert refusal(folder, old, new) == [f"small.yaml:{line}"]


def test_a_file_of_data_is_told_from_an_experiment(folder: Path) -> None:
    tickets = {
        "tickets.csv": b"body,queue\nmy money,billing\n",
        "colon.TSV": b"body\tqueue\nyes: it is\tbilling\n",
        "rows.jsonl": b'{"body": "it"}\n{"body": "so"}\n',
        "list.json": b'[{"body": "it"}]',
        "table.parquet": b"PAR1\xff",
        "packed.csv.gz": b"\x1f\x8b\xff",
    }
    for name, content in tickets.items():
        (folder / name).write_bytes(content)
        said = f"{name} is data and no experiment file; `rlprompt init .*{name}` writes one$"
        with pytest.raises(ConfigError, match=said):
            load_config(folder / name)
    (folder / "broken.json").write_text('{"name": "small",\n "budget": [')
    with pytest.raises(ConfigError, match=r"broken\.json:2: expected the node content"):
        load_config(folder / "broken.json")


def test_every_mistake_has_its_own_line(folder: Path) -> None:
    assert len(refusal(folder, "  shots: 2", "  shot: 2\n  tset: 3\n  seed: -1")) == 3


def test_a_file_that_is_missing_or_no_text_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*absent\.yaml: No such file"):
        load_config(folder / "absent.yaml")
    (folder / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary\.yaml is not an experiment file"):
        load_config(folder / "binary.yaml")


def test_a_number_may_be_written_by_its_exponent(folder: Path) -> None:
    mine = "optimisers: [{name: rl, settings: {learning_rate: 1e-3, gamma: .5e0}}]\n"
    (made,) = read(folder, re.sub(r"optimisers:\n(  .*\n)+", mine, GOOD)).optimisers
    assert made.settings == {"settings": {"learning_rate": 0.001, "gamma": 0.5}}


def test_labels_are_taken_as_written(folder: Path) -> None:
    words = "{0: 1, 01: 2.5, no: yes, true: on, 2020-01-01: it, 1e3: 1}"
    task = read_task(folder, GOOD.replace("{negative: terrible, positive: great}", words))
    assert task.label_words == {
        "0": "1",
        "01": "2.5",
        "no": "yes",
        "true": "on",
        "2020-01-01": "it",
        "1e3": "1",
    }


def test_numbers_keep_their_own_text_where_text_is_wanted(folder: Path) -> None:
    words = "{morning: 9:30, noon: 12:00, agent: 007, id: 1_000, share: [3.10, true]}"
    text = GOOD.replace("{negative: terrible, positive: great}", words)
    task = read_task(folder, text.replace("  shots: 2", "  hand_prompt: [3.10, It was]"))
    assert task.label_words == {
        "morning": "9:30",
        "noon": "12:00",
        "agent": "007",
        "id": "1_000",
        "share": ("3.10", "true"),
    }
    assert task.hand_prompt == ("3.10", "It was")
    labels = "  labels: {x: 010, y: 1e3, z: 3.10}\n"
    mapped = read_task(folder, GOOD.replace("  shots: 2\n", labels))
    assert mapped.labels == {"x": "010", "y": "1e3", "z": "3.10"}
    several = "task: &base {name: sst2, hand_prompt: 3.10}\n"
    inner = "tasks: {one: {name: compression, task: {name: sst2, hand_prompt: 1_0}}}\n"
    for section, said in ((several, "3.10"), (inner, "1_0")):
        config = read(folder, re.sub(r"task:\n(  .*\n)+", section, GOOD))
        ((_, one),) = config.all_tasks
        assert isinstance(one, NamedTaskConfig)
        assert hand_prompts(one.settings.get("task", one)) == (said,)


def test_words_of_metrics_are_taken_as_written(folder: Path) -> None:
    judge = "{name: judge, model: m, words: [true, 1.50]}"
    strict = "{name: strict_match, regexes_to_ignore: [10, no], ignore_case: true}"
    own = f"task: {{name: antonyms, reward: [{judge}], metric: {strict}}}\n"
    config = read(folder, re.sub(r"task:\n(  .*\n)+", own, GOOD))
    assert isinstance(config.task, NamedTaskConfig)
    (reward,), metric = config.task.settings["reward"], config.task.settings["metric"]
    assert reward["words"] == ["true", "1.50"]
    assert metric == {
        "name": "strict_match",
        "regexes_to_ignore": ["10", "no"],
        "ignore_case": True,
    }


def test_numbers_are_those_that_people_write(folder: Path) -> None:
    own = "{a: 3_200, b: 1e3, c: -1.5, d: 0x1F, e: 1, f: .5}"
    texts = "{g: 010, h: 9:30, i: 190:20:30.15, j: 1.5+3}"
    mine = f"optimisers: [{{name: rl, settings: {own}}}, {{name: ppo, settings: {texts}}}]\n"
    rl, ppo = read(folder, re.sub(r"optimisers:\n(  .*\n)+", mine, GOOD)).optimisers
    assert rl.settings["settings"] == {"a": 3200, "b": 1000, "c": -1.5, "d": 31, "e": 1, "f": 0.5}
    assert ppo.settings["settings"] == {"g": "010", "h": "9:30", "i": "190:20:30.15", "j": "1.5+3"}
    assert read(folder, GOOD.replace("96", "3_200")).budget == 3200
    assert read(folder, GOOD.replace("96", "096")).budget == 96


def test_a_model_is_looked_for_beside_the_file_and_then_has_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("own", "some-model", "smollm2-135m", "elsewhere/far", "elsewhere/results"):
        (folder / name).mkdir(parents=True)
    for name in ("own/config.json", "adapter_config.json", "smollm2-135m/config.json", "a.gguf"):
        (folder / name).write_text("{}")
    (folder / "own/adapter_config.json").write_text("{}")
    monkeypatch.chdir(folder / "elsewhere")
    # Of the last ones none is a model's folder beside the file.
    models = "{a: own, b: a.gguf, c: {name: own, revision: x}, d: some-model, e: far, f: ~/own}"
    methods = "[{name: instructions, proposer: own}, {name: instructions, proposer: {name: own}}]"
    text = GOOD.replace("model: some-model", f"models: {models}")
    config = read(folder, re.sub(r"optimisers:\n(  .*\n)+", f"optimisers: {methods}\n", text))
    own = str(folder / "own")
    assert [one.name for _, one in config.all_models] == [
        *(own, str(folder / "a.gguf"), own),
        *("some-model", "far", "~/own"),
    ]
    assert [title for title, _ in config.all_models] == list("abcdef")
    assert [one.settings["proposer"] for one in config.optimisers] == [own, {"name": own}]
    bundled = read(folder, GOOD.replace("some-model", "smollm2-135m"))
    assert [title for title, _ in bundled.all_models] == ["smollm2-135m"]
    judge = "metric: {name: judge, model: own}, style_model: own"
    judging = read(folder, with_task(f"{{name: generation, data: data.csv, {judge}}}")).task
    assert isinstance(judging, NamedTaskConfig)
    assert judging.settings["metric"] == {"name": "judge", "model": own}
    assert judging.settings["style_model"] == own


def test_beside_the_working_folders_file_names_stay_as_they_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "some-model").mkdir()
    (folder / "some-model" / "config.json").write_text("{}")
    monkeypatch.chdir(folder)
    assert [name for name, _ in read(Path(), GOOD).all_models] == ["some-model"]


def test_a_cache_is_made_beside_the_file_and_goes_on_where_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    text = f"{GOOD}cache: answers.sqlite\n"
    assert read(folder, text).cache == str(folder / "answers.sqlite")
    Path("answers.sqlite").touch()
    assert read(folder, text).cache == "answers.sqlite"
    (folder / "answers.sqlite").touch()
    assert read(folder, text).cache == str(folder / "answers.sqlite")
    # One that a command names is where the command is given; so is one whose folder is nowhere.
    assert load_config(folder / "small.yaml", cache="mine.sqlite").cache == "mine.sqlite"
    assert read(folder, f"{GOOD}cache: runs/a.sqlite\n").cache == "runs/a.sqlite"


def test_data_is_looked_for_beside_the_file_and_then_in_the_working_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "elsewhere" / "reviews").mkdir(parents=True)
    monkeypatch.chdir(folder / "elsewhere")
    assert read_task(folder).data == str(folder / "data.csv")
    assert read_task(folder, GOOD.replace("data.csv", "reviews")).data == "reviews"
    (said,) = refusal(folder, "data.csv", "nowhere.csv")
    assert "looked for nowhere.csv or elsewhere/nowhere.csv" in said
