"""`rlprompt predict`: a file of texts, answered by found prompts."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from command_line import ROWS, rlprompt, save, write_config, write_data

from rlprompt.export.folder import load_prompt
from rlprompt.export.server import Classified, PromptServer

COLUMNS = ["prediction", "probability", "p(negative)", "p(positive)"]
TEXTS = ["film number 3", 'the "great", it was', "it was terrible\nthe film"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A folder with a study, both its prompts exported, and data; change nothing in it."""
    folder = tmp_path_factory.mktemp("place")
    write_data(folder, ROWS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        template = {"template": "{text} {prompt}", "label": "label", "text": {"text": "text"}}
        task = {
            "data": "films.csv",
            "label_words": {"negative": "terrible", "positive": "great"},
            "shots": 2,
            "test": 6,
            **template,
        }
        write_config(folder, model=str(model), task=task)
        assert rlprompt("compare", "small.yaml").exit_code == 0
        for name in ("random", "soft-prompt"):
            run = f"{name}-seed0"
            exported = rlprompt("export", "runs/small", "--best", name, "--run", run)
            assert exported.exit_code == 0
    return folder


@pytest.fixture
def here(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the prompts and three texts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    for name in ("random", "soft-prompt"):
        shutil.copytree(place / name, name)
    write([{"id": str(i), "text": text} for i, text in enumerate(TEXTS)], Path("texts.csv"))
    return tmp_path


def write(rows: list[dict[str, Any]], path: Path, separator: str = ",") -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def expected(texts: list[str] = TEXTS, prompt: str = "random") -> list[Classified]:
    return [one for one in load_prompt(prompt).predict(texts) if isinstance(one, Classified)]


def check(rows: list[dict[str, Any]], answers: list[Classified], prefix: str = "") -> None:
    for row, answer in zip(rows, answers, strict=True):
        assert row[f"{prefix}prediction"] == answer.label
        assert float(row[f"{prefix}probability"]) == pytest.approx(answer.probability, abs=1e-6)
        for label, chance in answer.chances.items():
            assert float(row[f"{prefix}p({label})"]) == pytest.approx(chance, abs=1e-6)


def test_answers_go_to_standard_output_as_csv(here: Path) -> None:
    done = rlprompt("predict", "random", "texts.csv")
    assert done.exit_code == 0, done.output
    rows = read(done.stdout)
    assert list(rows[0]) == ["id", "text", *COLUMNS]
    assert [row["text"] for row in rows] == TEXTS
    check(rows, expected())
    assert "accuracy" not in done.stderr


@pytest.mark.parametrize("kind", ["csv", "tsv", "txt", "jsonl", "json", "parquet", "gz", "zip"])
def test_every_kind_of_file_is_answered_alike(here: Path, kind: str) -> None:
    rows: list[dict[str, Any]] = [{"id": str(i), "text": text} for i, text in enumerate(TEXTS)]
    if kind in ("csv", "tsv", "txt"):
        write(rows, here / f"data.{kind}", "," if kind == "csv" else "\t")
    elif kind == "jsonl":
        (here / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "json":
        (here / "data.json").write_text(json.dumps(rows))
    elif kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(
            pyarrow.Table.from_pylist(rows), here / "data.parquet"
        )
    elif kind == "gz":
        with gzip.open(here / "data.csv.gz", "wb") as file:
            file.write((here / "texts.csv").read_bytes())
    else:
        with zipfile.ZipFile(here / "data.csv.zip", "w") as archive:
            archive.write(here / "texts.csv", "texts.csv")
    (data,) = here.glob("data.*")
    done = rlprompt("predict", "random", data.name)
    assert done.exit_code == 0, done.output
    found = read(done.stdout)
    assert [(row["id"], row["text"]) for row in found] == [(r["id"], r["text"]) for r in rows]
    check(found, expected())


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_the_ending_says_what_is_written_and_columns_keep_their_types(
    here: Path, kind: str
) -> None:
    rows = [
        {"text": TEXTS[0], "n": 1, "tags": ["a", "b"], "share": 1},
        {"text": TEXTS[1], "n": 2, "tags": [], "share": 0.5},
        {"text": TEXTS[2], "tags": ["c"], "share": None, "late": "x"},
    ]
    (here / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = rlprompt("predict", "random", "data.jsonl", "--out", f"answers.{kind}")
    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    assert f"3 rows written to answers.{kind}" in done.stderr
    assert sorted(path.name for path in here.glob("*answers*")) == [f"answers.{kind}"]
    out = here / f"answers.{kind}"
    if kind == "csv":
        found: list[dict[str, Any]] = list(read(out.read_text("utf-8")))
        assert list(found[0]) == ["text", "n", "tags", "share", "late", *COLUMNS]
        assert [row["tags"] for row in found] == ['["a", "b"]', "[]", '["c"]']
        assert [row["n"] for row in found] == ["1", "2", ""]
    elif kind == "jsonl":
        found = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
        assert [{k: v for k, v in row.items() if k not in COLUMNS} for row in found] == rows
    else:
        table = pytest.importorskip("pyarrow.parquet").read_table(out)
        assert [str(one) for one in table.schema.types] == [
            *("string", "int64", "list<element: string>", "double", "string"),
            *("string", "double", "double", "double"),
        ]
        found = table.to_pylist()
        assert [row["n"] for row in found] == [1, 2, None]
        assert [row["share"] for row in found] == [1.0, 0.5, None]
        assert [row["tags"] for row in found] == [["a", "b"], [], ["c"]]
    check(found, expected())


def test_values_of_no_common_type_become_texts_in_parquet(here: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"text": "it", "x": 1}, {"text": "the film", "x": "one"}, {"text": "so", "x": None}]
    (here / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert rlprompt("predict", "random", "data.jsonl", "--out", "a.parquet").exit_code == 0
    assert parquet.read_table("a.parquet")["x"].to_pylist() == ["1", "one", None]


def test_prompts_answer_side_by_side(here: Path) -> None:
    done = rlprompt("predict", "random", "soft-prompt", "texts.csv")
    assert done.exit_code == 0, done.output
    rows = read(done.stdout)
    named = [f"{name} {column}" for name in ("random", "soft-prompt") for column in COLUMNS]
    assert list(rows[0]) == ["id", "text", *named]
    for name in ("random", "soft-prompt"):
        check(rows, expected(prompt=name), f"{name} ")


def test_the_best_prompt_of_a_study_is_used_as_its_export_would_be(
    here: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    texts = str(here / "texts.csv")
    done = rlprompt("predict", "runs/small", texts, "--best")
    assert done.exit_code == 0, done.output
    rlprompt("export", "runs/small", "--best", str(here / "best"))
    check(read(done.stdout), expected(prompt=str(here / "best")))
    both = rlprompt("predict", "runs/small", "random", texts, "--best")
    check(read(both.stdout), expected(), "random ")
    bare = rlprompt("predict", "runs/small", texts)
    assert bare.exit_code == 2
    assert "runs/small is a study: add --best for its best prompt on dev" in bare.stderr
    wrong = rlprompt("predict", "random", texts, "--best")
    assert "--best needs the folder of a study, and there is none among random" in wrong.stderr
    halves = [
        rlprompt("predict", *found, "--dtype", "bfloat16")
        for found in (("runs/small", texts, "--best"), (str(here / "best"), texts))
    ]
    assert halves[0].stdout == halves[1].stdout != done.stdout
    assert "weights in float32, and here it is bfloat16" in " ".join(halves[0].stderr.split())


def test_accuracy_is_told_where_there_are_labels(here: Path) -> None:
    right = [answer.label for answer in expected()]
    other = {"negative": "positive", "positive": "negative"}[right[2]]
    labels = [right[0], "mixed", other]
    rows = [{"text": text, "label": label} for text, label in zip(TEXTS, labels, strict=True)]
    write(rows, here / "labelled.csv")
    done = rlprompt("predict", "random", "labelled.csv")
    assert done.exit_code == 0
    assert "accuracy 0.500 on 2 rows with a label" in done.stderr
    assert "not counted: 1 row with a label that the prompt does not know" in done.stderr
    assert "has the unknown label 'mixed' (known: negative, positive)" in done.stderr
    write([{"text": row["text"], "truth": row["label"]} for row in rows], here / "other.csv")
    assert "accuracy" not in rlprompt("predict", "random", "other.csv").stderr
    done = rlprompt("predict", "random", "other.csv", "--label", "truth")
    assert "accuracy 0.500 on 2 rows with a label" in done.stderr


def test_another_column_may_hold_the_text(here: Path) -> None:
    write([{"body": text, "text": "x"} for text in TEXTS], here / "bodies.csv")
    done = rlprompt("predict", "random", "bodies.csv", "--text", "body")
    check(read(done.stdout), expected())


def test_bad_rows_are_named_or_stay_without_a_prediction(here: Path) -> None:
    rows = [{"id": "a", "text": TEXTS[0]}, {"id": "b", "text": " "}]
    rows += [{"id": "c", "text": "it was " * 200}, {"id": "d", "text": TEXTS[1]}]
    write(rows, here / "bad.csv")
    done = rlprompt("predict", "random", "bad.csv", "--out", "answers.csv")
    assert done.exit_code == 2
    assert done.stderr.strip().splitlines()[-1] == (
        "error: bad.csv:3 has an empty text; mend the data, or give --on-bad-rows skip to leave "
        "such rows without a prediction"
    )
    assert not (here / "answers.csv").exists()
    done = rlprompt("predict", "random", "bad.csv", "--on-bad-rows", "skip")
    assert done.exit_code == 0
    found = read(done.stdout)
    assert [row["id"] for row in found] == ["a", "b", "c", "d"]
    assert [row["prediction"] == "" for row in found] == [False, True, True, False]
    check([found[0], found[3]], expected(TEXTS[:2]))
    assert "2 rows without a prediction; bad.csv:3 has an empty text" in done.stderr


def test_answers_that_the_model_writes_have_one_column(here: Path, model: Path) -> None:
    section = {
        "name": "generation",
        "data": "films.csv",
        "template": "{text} {prompt}",
        "reward": "contains",
        "label": "label",
        "shots": 2,
        "test": 4,
        "max_new_tokens": 3,
    }
    write_data(here, ROWS)
    write_config(here, model=str(model), task=section, optimisers=["random"])
    done = rlprompt("compare", "small.yaml")
    assert done.exit_code == 0, done.output
    assert rlprompt("export", "runs/small", "--best", "writes").exit_code == 0
    done = rlprompt("predict", "writes", "random", "texts.csv", "--out", "a.jsonl")
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (here / "a.jsonl").read_text("utf-8").splitlines()]
    written = [row["writes prediction"] for row in rows]
    assert written == load_prompt("writes").predict(TEXTS)
    assert not any("writes p" in name and name != "writes prediction" for name in rows[0])
    check(rows, expected(), "random ")


def _newer(here: Path) -> None:
    path = here / "random" / "prompt.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "format": 99}), "utf-8")


def _other_model(here: Path) -> None:
    save(here / "other", kind="gpt2")


@pytest.mark.parametrize(
    ("prepare", "arguments", "message"),
    [
        (None, ["random", "text.csv"], "text.csv does not exist (did you mean texts.csv?); give a"),
        (None, ["random", "."], ". is a folder; give a file that ends in .csv, "),
        (None, ["randon", "texts.csv"], "randon is no exported prompt: prompt.json is missing"),
        (None, ["random", "random", "texts.csv"], "a folder is given twice"),
        (
            lambda p: (p / "x.pdf").write_text("%PDF"),
            ["random", "x.pdf"],
            "x.pdf does not end in .csv, ",
        ),
        (
            lambda p: (p / "x.csv").write_bytes(b"\x89PNG\r\n\xff\xfe\x00"),
            ["random", "x.csv"],
            "x.csv:1 is not UTF-8",
        ),
        (lambda p: (p / "x.csv").write_text(""), ["random", "x.csv"], "x.csv has no rows"),
        (lambda p: (p / "x.csv").write_text("text\n"), ["random", "x.csv"], "x.csv has no rows"),
        (lambda p: (p / "x.jsonl").write_text("no\n"), ["random", "x.jsonl"], "x.jsonl:1 is no JS"),
        (
            lambda p: (p / "x.csv").write_text("txt,id\nfine,1\n"),
            ["random", "x.csv"],
            "x.csv has no column 'text'; it has 'txt', 'id' (did you mean 'txt'?)",
        ),
        (
            None,
            ["random", "texts.csv", "--text", "txt"],
            "texts.csv has no column 'txt'; it has 'id', 'text' (did you mean 'text'?)",
        ),
        (None, ["random", "texts.csv", "--label", "l"], "texts.csv has no column 'l'; it has 'id'"),
        (
            lambda p: (p / "x.csv").write_text("text,prediction\nfine,1\n"),
            ["random", "x.csv"],
            "x.csv already has a column 'prediction'",
        ),
        (
            None,
            ["random", "texts.csv", "--out", "a.xlsx"],
            "a.xlsx does not end in .csv, .jsonl, .parquet",
        ),
        (
            lambda p: (p / "a.csv").write_text("mine"),
            ["random", "texts.csv", "--out", "a.csv"],
            "a.csv exists; give another name, or --force to replace it",
        ),
        (None, ["random", "texts.csv", "--out", "no/a.csv"], "no/a.csv cannot be written"),
        (
            None,
            ["texts.csv", "random"],
            "the folders come first, then the data: rlprompt predict random texts.csv",
        ),
        (_newer, ["random", "texts.csv"], "was written by a newer rlprompt (format 99"),
        (
            _other_model,
            ["random", "texts.csv", "--model", "other"],
            "prompt 'random': other is not the model that this prompt belongs to",
        ),
        (None, ["random", "texts.csv", "--model", "no"], "model 'no' cannot be loaded"),
    ],
)
def test_mistakes_are_one_sentence(
    here: Path, prepare: Callable[[Path], object] | None, arguments: list[str], message: str
) -> None:
    if prepare:
        prepare(here)
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    done = rlprompt("predict", *arguments)
    assert done.exit_code == 2
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert message in line
    assert done.stdout == ""
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_tie_has_probabilities_and_no_prediction(
    here: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    even = {"negative": 0.5, "positive": 0.5}

    def answer(_: object, requests: Sequence[object]) -> list[Classified]:
        return [Classified("", even), *(Classified("positive", even) for _ in requests[1:])]

    monkeypatch.setattr(PromptServer, "answer", answer)
    rows = [{"id": i, "text": text, "label": "positive"} for i, text in enumerate(TEXTS)]
    write(rows, Path("texts.csv"))
    done = rlprompt("predict", "random", "texts.csv", "--out", f"a.{ending}")
    assert done.exit_code == 0
    assert (
        "1 row without a prediction, for no class is likelier there than every other; their "
        "probabilities are written"
    ) in done.stderr
    assert "accuracy 0.667 on 3 rows with a label" in done.stderr
    if ending == "csv":
        first, second, _ = read(Path("a.csv").read_text("utf-8"))
        assert [first[name] for name in COLUMNS] == ["", "0.5", "0.5", "0.5"]
    elif ending == "jsonl":
        first, second, _ = map(json.loads, Path("a.jsonl").read_text("utf-8").splitlines())
        assert [first[name] for name in COLUMNS] == [None, 0.5, 0.5, 0.5]
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        first, second, _ = parquet.read_table("a.parquet").to_pylist()
        assert [first[name] for name in COLUMNS] == [None, 0.5, 0.5, 0.5]
    assert second["prediction"] == "positive"


def test_parquet_without_its_package_is_refused_at_once(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = rlprompt("predict", "random", "texts.csv", "--out", "a.parquet")
    assert done.exit_code == 2
    assert "a.parquet needs pyarrow to be written: pip install 'rlprompt[parquet]'" in done.stderr


def test_a_file_is_replaced_if_that_is_said(here: Path) -> None:
    (here / "a.csv").write_text("mine")
    done = rlprompt("predict", "random", "texts.csv", "--out", "a.csv", "--force")
    assert done.exit_code == 0
    check(read((here / "a.csv").read_text("utf-8")), expected())


def test_a_file_that_is_not_whole_does_not_appear(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("the machine burns")

    monkeypatch.setattr(PromptServer, "answer", fails)
    with pytest.raises(RuntimeError, match="burns"):
        rlprompt("predict", "random", "texts.csv", "--out", "a.csv")
    assert not list(here.glob("*a.csv*"))


def test_a_model_that_is_gone_may_lie_elsewhere(here: Path, model: Path) -> None:
    path = here / "random" / "prompt.json"
    facts = json.loads(path.read_text("utf-8"))
    facts["model"]["model"] = "models/gone"
    path.write_text(json.dumps(facts), "utf-8")
    done = rlprompt("predict", "random", "texts.csv")
    assert done.exit_code == 2
    assert "model 'models/gone' cannot be loaded" in done.stderr
    assert "If it is elsewhere, give its place with --model" in done.stderr
    done = rlprompt("predict", "random", "texts.csv", "--model", str(model))
    assert done.exit_code == 0
    assert len(read(done.stdout)) == 3
