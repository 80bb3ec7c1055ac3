"""What a study costs: keeping answers, replaying a search, opening a large store.

`python experiments/bench_store.py` uses the default model; `--prompts 0` leaves it out.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rlprompt.agents.cma_es import CMAES
from rlprompt.agents.greedy import Greedy
from rlprompt.agents.ppo import PPO
from rlprompt.agents.random_search import RandomSearch
from rlprompt.agents.soft_prompt import SoftPromptTuning
from rlprompt.data.load import load_splits
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt, TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.make_space import make_space
from rlprompt.search.memo import Answer, TrainQuestion
from rlprompt.search.objective import CHUNK, BudgetExhausted, Objective
from rlprompt.search.optimiser import Optimiser
from rlprompt.store.database import Database
from rlprompt.store.record import Record
from rlprompt.store.schema import STUDY
from rlprompt.store.store import FILE, Store
from rlprompt.studies.inspection import best
from rlprompt.tasks.base import Task
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.template import Template

N_EXAMPLES = 32
# What the store may cost, and the speed of scoring at which it is asked.
SHARE, PROMPTS_A_MINUTE = 0.03, 300
OPTIMISERS: dict[str, Optimiser[Any]] = {
    "random": RandomSearch(),
    "greedy": Greedy(),
    "cma-es": CMAES(),
    "soft-prompt": SoftPromptTuning(),
    "ppo": PPO(),
}


def timed(action: Callable[[], object]) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def subject() -> tuple[FrozenLM, Task]:
    """The default model and a task."""
    words = {"negative": "terrible", "positive": "great"}
    task = ClassificationTask(
        "movie-reviews",
        load_splits("movie-reviews", list(words)),
        Template("{text} {prompt}"),
        words,
    )
    return FrozenLM.load("smollm2-135m", dtype="float32"), task


def ask(record: Record, batches: Sequence[Sequence[Prompt]], answer: Answer) -> None:
    """What an objective does with its batches."""
    for batch in batches:
        question = TrainQuestion(tuple(batch))
        if record.get(question) is None:
            record.put(question, answer)


def bench_keep(folder: Path, n_batches: int = 200) -> None:
    """Time to keep a batch of 32 prompts on 32 examples, of tokens and of soft prompts."""
    lm, task = subject()
    rng = np.random.default_rng(0)
    makers: dict[str, Callable[[], Prompt]] = {
        "tokens": lambda: TokenPrompt(rng.integers(49152, size=5)),
        "soft": lambda: SoftPrompt(rng.standard_normal((5, 576))),
    }
    for kind, make in makers.items():
        batches = [[make() for _ in range(CHUNK)] for _ in range(n_batches)]
        for batch in batches:
            for prompt in batch:
                prompt.digest  # noqa: B018  # scoring computes it anyway
        with Store(folder / kind / FILE) as store:
            store.plan({}, {"run": {}})
            store.claim("bench", dead=lambda *_: False)
            database = Database(folder / kind / FILE, STUDY)
            record = Record(database, lm, task, "run", "bench")
            answer = Answer(rng.standard_normal((CHUNK, N_EXAMPLES)), None, 1.0)

            seconds = timed(partial(ask, record, batches, answer)) / n_batches
            replay = Record(database, lm, task, "run", "bench")
            again = timed(partial(ask, replay, batches, answer)) / n_batches
            database.close()
        share = seconds / (CHUNK * 60 / PROMPTS_A_MINUTE)
        print(
            f"keep {kind}: {seconds * 1e3:.2f} ms a batch of {CHUNK} prompts, {share:.3%} of the "
            f"time at {PROMPTS_A_MINUTE} prompts a minute; {SHARE:.0%} is reached at "
            f"{SHARE * CHUNK * 60 / seconds:,.0f} a minute; replayed in {again * 1e3:.2f} ms"
        )


def bench_replay(folder: Path, names: Sequence[str], n_prompts: int) -> None:
    """Time of searches on the default model, and of their replay."""
    lm, task = subject()
    budget = Budget(n_prompts * len(task.splits.train))
    for name in names:
        optimiser = OPTIMISERS[name]
        with Store(folder / name / FILE) as store:
            store.plan({}, {"run": {}})
            store.claim("bench", dead=lambda *_: False)

            def go(
                store: Store = store, optimiser: Optimiser[Any] = optimiser
            ) -> tuple[float, float]:
                record = store.record("run", lm, task, "bench")
                objective = Objective(task, lm, budget, memo=record)
                rng = np.random.default_rng(0)
                space = make_space(optimiser.searches, lm, 5, (), rng)
                began = time.perf_counter()
                with contextlib.suppress(BudgetExhausted):
                    optimiser.run(objective, space, rng)
                return time.perf_counter() - began, objective.ledger.lm_seconds

            (scored, in_lm), (replayed, _) = go(), go()
            print(
                f"{name}, {budget.rows:,} rows: scored in {scored:.2f} s, of which "
                f"{1 - in_lm / scored:.1%} outside the rewards; replayed in {replayed:.2f} s, "
                f"{scored / replayed:.1f} times faster",
                flush=True,
            )


def bench_open(folder: Path, n_evaluations: int) -> None:
    """Time to open a large store, read its state, and find one answer."""
    path = folder / "large" / FILE
    with Store(path) as store:
        store.plan({}, {"run": {}})
    lm, task = subject()
    rewards, count = np.zeros(N_EXAMPLES).tobytes(), range(1, n_evaluations + 1)

    def fill(connection: sqlite3.Connection) -> None:
        connection.executemany(
            "INSERT INTO answers (id, key, prompts, digests, rewards, judge_tokens, seconds)"
            " VALUES (?, ?, '[{\"ids\": [1, 2, 3, 4, 5]}]', ?, ?, 0, 0.2)",
            ((i, key(i), key(i), rewards) for i in count),
        )
        connection.executemany(
            "INSERT INTO evaluations (run, position, answer, cost) VALUES (1, ?, ?, ?)",
            ((i, i, N_EXAMPLES) for i in count),
        )

    database = Database(path, STUDY)
    database.write(fill)
    database.close()

    def look() -> None:
        with Store(path) as store:
            store.runs()
            store.claim("bench", dead=lambda *_: False)
            record = store.record("run", lm, task, "bench")
            assert record.get(TrainQuestion((TokenPrompt((1,)),))) is None

    def show() -> None:
        with Store(path, read_only=True) as store:
            assert len(best(store, "run", 3)) == 3

    size = path.stat().st_size / 1e6
    print(
        f"{n_evaluations:,} evaluations ({size:,.0f} MB): opened in {timed(look):.3f} s; the best "
        f"prompts found in {timed(show):.1f} s"
    )


def key(i: int) -> bytes:
    """A content hash that spreads like a real one."""
    return hashlib.blake2b(str(i).encode(), digest_size=16).digest()


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=96, help="of each search; 0 for none")
    parser.add_argument("--evaluations", type=int, default=1_000_000)
    parser.add_argument("--only", choices=OPTIMISERS, help="of the searches, this one alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench_keep(Path(folder))
        bench_open(Path(folder), options.evaluations)
        if options.prompts:
            names = [options.only] if options.only else list(OPTIMISERS)
            bench_replay(Path(folder), names, options.prompts)


if __name__ == "__main__":
    main()
