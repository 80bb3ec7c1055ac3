"""How fast prompts are scored, against the two usual ways and against what the machine can do.

    python experiments/bench_scoring.py [--data DIR] [--json FILE] [--quick] [--device cuda]

Per case three ways score the same prompts on the same examples with the same model:

- `peer`, as RLPrompt does it: a loop over prompts, one padded batch of all examples, logits over
  the whole vocabulary at every position;
- `strong`: the same, with the output head at the last position only;
- `ours`: `FrozenLM.score`.

They take turns, and the medians over the turns are reported. A call is warmed up once, so kept
prefixes are there, as they are after the first step of a search. `peer` and `strong` are always
float32 and are timed on one prompt a turn, since a loop takes as long for each.

`peak_share` is the work of the new tokens' linear layers (two operations a weight and token, the
output head left out) over the time, as a share of what `F.linear` reaches in the same run on the
model's own shapes. `kernel_share` is the same against the best kernel PyTorch has for a frozen
weight, oneDNN's with the weight in its own layout; on a GPU that is `F.linear` itself. `ours` uses
it, so `peak_share` may exceed 1.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlprompt._utils.assets import fetch
from rlprompt.models.lm import FrozenLM
from rlprompt.models.packed.kernels import PackedLinear
from rlprompt.models.speed import loop, medians, seconds
from rlprompt.prompt import FedPrompt, SoftPrompt, TokenPrompt
from rlprompt.template import Query, Template

MODEL = "smollm2-135m"
PEAK_ROWS = {"cpu": 768, "cuda": 16_384}
# One turn only where a call has more new tokens than this.
MANY_TOKENS = 100_000


@dataclass(frozen=True)
class Case:
    """What is scored: examples with a gap, and a kind of prompt."""

    name: str
    queries: tuple[Query, ...]
    n_tokens: int
    soft: bool
    prompts: tuple[int, ...]

    @property
    def new_tokens(self) -> int:
        """Tokens that have to be computed for each further prompt."""
        tails = sum(len(query.tail_ids) for query in self.queries)
        return self.n_tokens + tails if tails else self.n_tokens * len(self.queries)


@dataclass(frozen=True)
class Row:
    """One line of the table; speeds are prompts a second."""

    case: str
    dtype: str
    prompts: int
    peer: float
    strong: float
    ours: float
    ratio_peer: float
    ratio_strong: float
    peak_share: float
    kernel_share: float
    max_abs_diff: float


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with sst-2/16-13 and agnews/16-13")
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--quick", action="store_true", help="fewer cases, prompts and turns")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    options = parser.parse_args()
    exact, narrow = (
        FrozenLM.load(MODEL, device=options.device, dtype=dtype)
        for dtype in ("float32", "bfloat16")
    )
    print(f"{torch.get_num_threads()} threads, PyTorch {torch.__version__}, {exact.device}")
    print(
        "| case | dtype | prompts | peer | strong | ours | ours/peer | ours/strong "
        "| F.linear share | kernel share | max diff |"
    )
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    rows: list[Row] = []
    for case in cases(exact, options.data, options.quick):
        for row in measure(case, exact, narrow, 3 if options.quick else 5):
            print(table_line(row), flush=True)
            rows.append(row)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def cases(lm: FrozenLM, data: Path | None, quick: bool) -> Iterator[Case]:
    """The cases of the table, on the given data or on the bundled film reviews."""
    labels = {"sst-2": ("terrible", "great"), "agnews": ("World", "Sports", "Business", "Tech")}
    made = film_reviews(lm) if data is None else {}
    for name, words in labels.items():
        if data is None:
            texts = made[name]
        else:
            lines = (data / name / "16-13" / "train.tsv").read_text(encoding="utf-8").splitlines()
            texts = [line.split("\t")[0] for line in lines[1:]]
        candidates = [lm.encode(f" {word}") for word in words]

        def queries(
            template: str,
            texts: Sequence[str] = texts,
            candidates: Sequence[tuple[int, ...]] = candidates,
        ) -> tuple[Query, ...]:
            made = Template(template)
            return tuple(made.query({"text": text}, lm, candidates) for text in texts)

        counts = (1, 16) if quick else (1, 16, 128)
        last, first = queries("{text} {prompt}"), queries("{prompt} {text}")
        yield Case(f"{name} last", last, 5, False, counts)
        if not quick or name == "sst-2":
            yield Case(f"{name} first", first, 5, False, counts)
        if name == "sst-2":
            yield Case(f"{name} 50 vectors first", first, 50, True, (1, 20))


def film_reviews(lm: FrozenLM) -> dict[str, list[str]]:
    """32 sentences of film reviews, and 64 texts of about 55 tokens joined from such sentences."""
    lines = fetch("movie-reviews").read_text(encoding="utf-8").splitlines()
    sentences = iter([line.split("\t")[2] for line in lines])
    short = [next(sentences) for _ in range(32)]
    long: list[str] = []
    while len(long) < 64:
        text = next(sentences)
        while len(lm.encode(text)) < 45:
            text += " " + next(sentences)
        long.append(text)
    return {"sst-2": short, "agnews": long}


def measure(case: Case, exact: FrozenLM, narrow: FrozenLM, n_turns: int) -> list[Row]:
    """Time one case in both dtypes and with every number of prompts."""
    rng = np.random.default_rng(0)
    some = make_prompts(case, exact, 1, rng)
    runs = [(lm, n) for lm in (exact, narrow) for n in case.prompts]
    expected = loop(exact, some, case.queries, head_at_end=True)
    differences = {
        lm: float((lm.score(some, case.queries, over="candidates") - expected).abs().max())
        for lm in (exact, narrow)
    }
    usual: list[tuple[float, float]] = []
    own: dict[tuple[FrozenLM, int], list[tuple[float, float, float]]] = {run: [] for run in runs}
    for turn in range(n_turns):
        usual.append(
            (
                seconds(loop, exact, some, case.queries, head_at_end=False),
                seconds(loop, exact, some, case.queries, head_at_end=True),
            )
        )
        for lm, n in runs:
            if turn and n * case.new_tokens > MANY_TOKENS:
                continue
            prompts = make_prompts(case, exact, n, rng)
            taken = seconds(lm.score, prompts, case.queries, over="candidates") / n
            own[lm, n].append((taken, *layer_seconds(lm)))
    peer, strong = medians(usual)
    rows = []
    for lm, n in runs:
        ours, linear, kernel = medians(own[lm, n])
        # Seconds that the linear layers of the new tokens take at the measured peaks.
        scale: float = int(cast(Any, lm.model.config).num_hidden_layers) * case.new_tokens
        scale /= PEAK_ROWS[lm.device.type]
        rows.append(
            Row(
                case=case.name,
                dtype=lm.fingerprint.dtype,
                prompts=n,
                peer=1 / peer,
                strong=1 / strong,
                ours=1 / ours,
                ratio_peer=peer / ours,
                ratio_strong=strong / ours,
                peak_share=linear * scale / ours,
                kernel_share=kernel * scale / ours,
                max_abs_diff=differences[lm],
            )
        )
    return rows


def make_prompts(case: Case, lm: FrozenLM, n: int, rng: np.random.Generator) -> list[FedPrompt]:
    """Random prompts of the case's kind."""
    rows = rng.integers(0, lm.n_vocabulary, (n, case.n_tokens))
    if not case.soft:
        return [TokenPrompt(row) for row in rows]
    table = lm.embeddings()
    return [SoftPrompt(table[row]) for row in rows]


@torch.no_grad()
def layer_seconds(lm: FrozenLM) -> tuple[float, float]:
    """Time of one layer's products of that many `PEAK_ROWS`: (F.linear, the best kernel)."""
    layer, where = cast(Any, lm.model).base_model.layers[0], lm.device

    def product(rows: Tensor, weight: Tensor) -> None:
        F.linear(rows, weight)
        if where.type == "cuda":
            torch.cuda.synchronize(where)

    linear = kernel = 0.0
    for module in layer.modules():
        if isinstance(module, nn.Linear):
            weight = module.weight
            rows = torch.randn(PEAK_ROWS[where.type], module.in_features).to(weight)
            best_way = (
                partial(product, weight=weight)
                if where.type == "cuda"
                else PackedLinear(weight, None)
            )
            times = [(seconds(product, rows, weight), seconds(best_way, rows)) for _ in range(6)]
            usual, best = medians(times)
            linear += usual
            kernel += min(usual, best)
    return linear, kernel


def table_line(row: Row) -> str:
    """One line of the Markdown table."""
    return (
        f"| {row.case} | {row.dtype} | {row.prompts} | {row.peer:.3f} | {row.strong:.3f} "
        f"| {row.ours:.2f} | {row.ratio_peer:.1f} | {row.ratio_strong:.1f} | {row.peak_share:.2f} "
        f"| {row.kernel_share:.2f} | {row.max_abs_diff:.1g} |"
    )


if __name__ == "__main__":
    main()
