"""How fast answers are written, against the usual loop over prompts.

    python experiments/bench_generation.py [--json FILE] [--prompts 16] [--examples 32] [--turns 3]

Two ways write the same answers, greedily, with the same model in float32:

- `loop`: prompt after prompt, transformers' `generate` on one batch of all examples, padded on the
  left; the key-value cache is on;
- `ours`: one call of `FrozenLM.generate`.

They take turns, and medians over the turns are reported, after a trial of each that is not timed.
Prompts are random tokens and new in every turn. `ours` keeps the texts before the prompt from call
to call, as it does during a search; `cold` is the first turn, on texts it has not seen. Nothing but
the length ends an answer here (neither way knows the end token), so both write the same number of
tokens. `equal` counts the answers that are the same token for token.

`forward` is the share of `ours` that is spent in the model's own passes and its head. `limit` is
the ratio that nobody can pass on this machine without fewer products: the time of `loop` by that of
the matrix products alone that the tokens need which `ours` feeds and writes, each in the shape in
which this machine is fastest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from rlprompt._utils.assets import fetch
from rlprompt.models.head import Head
from rlprompt.models.lm import FrozenLM
from rlprompt.models.packed.kernels import Kernels
from rlprompt.models.packed.model import PackedModel
from rlprompt.prompt import TokenPrompt
from rlprompt.template import Query, Template

MODEL = "smollm2-135m"
N_PROMPT = 5


@dataclass(frozen=True)
class Row:
    """One line of the table; speeds are new tokens a second."""

    template: str
    prompts: int
    examples: int
    new_tokens: int
    loop: float
    ours: float
    cold: float
    ratio: float
    forward: float
    limit: float
    equal: int
    answers: int


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--examples", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    lm = FrozenLM.load(MODEL, dtype="float32")
    model, tokenizer = cast(Any, lm.model), cast(Any, lm.tokenizer)
    model.generation_config.eos_token_id = tokenizer.eos_token = None  # no token ends an answer
    print(f"{torch.get_num_threads()} threads, PyTorch {torch.__version__}, {lm.device}")
    print(
        "| template | prompts | examples | tokens | loop | ours | cold | ours/loop | forward "
        "| limit | equal |"
    )
    print("|---" + "|--:" * 10 + "|")
    rows = []
    for template in ("{text} {prompt}", "{prompt} {text}"):
        row = measure(lm, template, options)
        print(table_line(row), flush=True)
        rows.append(row)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def measure(lm: FrozenLM, template: str, options: argparse.Namespace) -> Row:
    """Time one template."""
    rng = np.random.default_rng(0)
    lines = fetch("movie-reviews").read_text(encoding="utf-8").splitlines()
    made = Template(template)
    queries = [made.query({"text": x.split("\t")[2]}, lm) for x in lines[: options.examples]]
    n_new, n_tokens = options.new_tokens, options.prompts * options.examples * options.new_tokens

    def prompts(n: int) -> list[TokenPrompt]:
        return [TokenPrompt(row) for row in rng.integers(0, lm.n_vocabulary, (n, N_PROMPT))]

    loop(lm, prompts(1), queries[:4], 2)
    lm.generate(prompts(1), made_up(queries[:4]), max_new_tokens=2)
    times: list[tuple[float, float]] = []
    equal, inside = 0, Inside()
    for _ in range(options.turns):
        some = prompts(options.prompts)
        start = time.perf_counter()
        usual = loop(lm, some, queries, n_new)
        middle = time.perf_counter()
        with inside.watching():
            answers = lm.generate(some, queries, max_new_tokens=n_new)
        times.append((middle - start, time.perf_counter() - middle))
        equal += sum(
            list(ours.ids) == theirs
            for row, expected in zip(answers, usual, strict=True)
            for ours, theirs in zip(row, expected, strict=True)
        )
    theirs, ours = (statistics.median(column) for column in zip(*times, strict=True))
    return Row(
        template=template,
        prompts=options.prompts,
        examples=options.examples,
        new_tokens=n_new,
        loop=n_tokens / theirs,
        ours=n_tokens / ours,
        cold=n_tokens / times[0][1],
        ratio=theirs / ours,
        forward=inside.seconds / sum(seconds for _, seconds in times),
        limit=theirs / products(lm, inside.fed // options.turns, n_tokens),
        equal=equal,
        answers=options.turns * options.prompts * options.examples,
    )


@dataclass
class Inside:
    """Tokens that were fed to the model, and seconds in its passes and its head."""

    fed: int = 0
    seconds: float = 0.0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count what happens meanwhile."""
        model, output = cast(Any, PackedModel), cast(Any, Head)
        passes, head = model.hidden, output.logits

        def hidden(packed: PackedModel, ids: Tensor, *rest: Any) -> Tensor:
            self.fed += ids.numel()
            return self._timed(passes, packed, ids, *rest)

        def logits(own: Head, states: Tensor) -> Tensor:
            return self._timed(head, own, states)

        model.hidden, output.logits = hidden, logits
        try:
            yield
        finally:
            model.hidden, output.logits = passes, head

    def _timed(self, call: Any, *given: Any) -> Tensor:
        start = time.perf_counter()
        found: Tensor = call(*given)
        self.seconds += time.perf_counter() - start
        return found


@torch.no_grad()
def products(lm: FrozenLM, n_fed: int, n_written: int) -> float:
    """Seconds that the matrix products alone take, in the fastest of a few shapes."""
    packed = cast(Any, lm)._engine.packed.packed
    seconds = 0.0
    for layers, n_rows in ((packed.model.base_model, n_fed), (packed.head.layer, n_written)):
        with Kernels(layers, 1 << 40).applied():
            per_row = min(min(_once(layers, rows) for _ in range(3)) / rows for rows in (256, 768))
        seconds += n_rows * per_row
    return seconds


def _once(layers: nn.Module, n_rows: int) -> float:
    """Seconds of all linear layers, one after the other, on so many rows."""
    seconds = 0.0
    for layer in layers.modules():
        if isinstance(layer, nn.Linear):
            given = torch.randn(n_rows, layer.in_features)
            start = time.perf_counter()
            layer(given)
            seconds += time.perf_counter() - start
    return seconds


def made_up(queries: Sequence[Query]) -> list[Query]:
    """Other texts of the same lengths, so that a trial call leaves nothing behind."""
    return [Query(query.head_ids[::-1], query.tail_ids[::-1]) for query in queries]


@torch.no_grad()
def loop(
    lm: FrozenLM, prompts: Sequence[TokenPrompt], queries: Sequence[Query], n_new: int
) -> list[list[list[int]]]:
    """The usual way: new ids, (P, Q, n_new)."""
    model = cast(Any, lm.model)
    found = []
    for prompt in prompts:
        texts = [(*query.head_ids, *prompt.ids, *query.tail_ids) for query in queries]
        width = max(map(len, texts))
        ids = torch.tensor([(0,) * (width - len(text)) + text for text in texts])
        mask = torch.tensor([[0] * (width - len(text)) + [1] * len(text) for text in texts])
        written = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=n_new,
            do_sample=False,
            pad_token_id=0,
        )
        found.append(written[:, width:].tolist())
    return found


def table_line(row: Row) -> str:
    """One line of the Markdown table."""
    return (
        f"| {row.template} | {row.prompts} | {row.examples} | {row.new_tokens} | {row.loop:.0f} "
        f"| {row.ours:.0f} | {row.cold:.0f} | {row.ratio:.2f} | {row.forward:.2f} "
        f"| {row.limit:.2f} | {row.equal}/{row.answers} |"
    )


if __name__ == "__main__":
    main()
