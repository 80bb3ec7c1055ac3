"""The tutorials in docs/, done step by step as a reader would, on a tiny model.

A block's first word after the fence is its language; a second one is the file that it is. Commands
and Python without a file are run in order, in a folder that has the data files of docs/.
"""

from __future__ import annotations

import json
import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from spellings import CHAT_TEMPLATE
from tiny import tiny_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from typer.testing import CliRunner

from rlprompt.cli.app import app
from rlprompt.studies import dry_run

DOCS = Path(__file__).parents[1] / "docs"
NAMES = (
    "from-a-file-to-predictions",
    "use-a-prompt",
    "search-a-system-prompt",
    "use-models",
    "optimisers-of-your-own",
    "reinforcement-learning",
)
OTHERS = [DOCS / f"{name}.md" for name in NAMES]
TUTORIALS = [*sorted(DOCS.glob("tasks-from-*.md")), *OTHERS]
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = trained_tokenizer()
    tiny_model(num_hidden_layers=1, vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def trained_tokenizer() -> PreTrainedTokenizerBase:
    """One that knows the words of the tutorials: a text of bytes would be four times as long."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    letters, ends = pre_tokenizers.ByteLevel.alphabet(), ["<pad>", "<s>", "</s>"]
    make: Any = trainers.BpeTrainer  # not annotated
    trainer = make(vocab_size=1500, special_tokens=ends, initial_alphabet=letters)
    files = [path for kind in ("csv", "jsonl", "md") for path in sorted(DOCS.glob(f"*.{kind}"))]
    made.train([str(path) for path in files], trainer)
    pad, begin, end = ends
    make = PreTrainedTokenizerFast
    tokenizer: PreTrainedTokenizerBase = make(
        tokenizer_object=made, pad_token=pad, bos_token=begin, eos_token=end
    )
    return tokenizer


# PEFT 0.21 asks transformers 5 for something by its old name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_every_step_of_a_tutorial_works(
    page: Path, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    # What it costs is measured on less: nobody goes by it.
    monkeypatch.setattr(dry_run, "TRIAL_PROMPTS", 12)
    monkeypatch.setattr(dry_run, "SCORED_ROWS", 16)
    for data in (*DOCS.glob("*.csv"), *DOCS.glob("*.jsonl")):
        (tmp_path / data.name).write_text(halved(data), "utf-8")
    before, done = set(sys.modules), 0
    for language, file, content in BLOCK.findall(page.read_text("utf-8")):
        text = content.replace("smollm2-135m", str(model))
        if file:
            (tmp_path / file).write_text(small(text), "utf-8")
        elif language == "sh":
            for line in text.splitlines():
                run(*shlex.split(line))
                done += 1
        elif language == "python":
            (tmp_path / "step.py").write_text(small(text), "utf-8")
            runpy.run_path("step.py")
            done += 1
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    assert done >= 3


# As above.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("page", sorted(DOCS.glob("*.ipynb")), ids=lambda page: page.stem)
def test_every_cell_of_a_notebook_runs(
    page: Path, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    (tmp_path / "tickets.csv").write_text(halved(DOCS / "tickets.csv"), "utf-8")
    cells = json.loads(page.read_text("utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len("\n".join(sources).splitlines()) <= 60
    names: dict[str, object] = {}
    for source in sources:
        text = re.sub(r"(Budget\(|budget=)\d+", r"\g<1>100", source)
        text = text.replace("smollm2-135m", str(model)).replace("shots=4", "shots=2")
        exec(compile(text, page.name, "exec"), names)


def halved(path: Path) -> str:
    """The header and the first half of a table: its classes and kinds take turns."""
    lines = path.read_text("utf-8").splitlines(keepends=True)
    return "".join(lines[: 1 + len(lines) // 2])


def small(text: str) -> str:
    """Enough for a few prompts: what a reader waits minutes for is not what is tested."""
    text = re.sub(r"(shots(?:: |=))\d+", r"\g<1>2", text)
    return re.sub(r"((?:budget(?:: |=)|Budget\())\d+", r"\g<1>60", text)


def run(program: str, *arguments: str) -> None:
    """A command of a tutorial; `check` may well find fault with a model of random weights."""
    assert program == "rlprompt"
    done = CliRunner().invoke(app, arguments)
    if arguments[0] == "init":
        written = Path(arguments[1]).with_suffix(".yaml")
        written.write_text(small(written.read_text("utf-8")), "utf-8")
    assert done.exit_code in ((0, 1) if arguments[0] == "check" else (0,)), done.output
