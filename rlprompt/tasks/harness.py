"""Tasks of lm-evaluation-harness, where they fit: their data, texts and options with a prompt.

The package `lm_eval` (`pip install 'rlprompt[lm-eval]'`) reads the task as it always does; what it
makes of each document becomes an example. `output_type: multiple_choice` is scored alike
(`multiple_choice`), without examples in context; of `generate_until` the answers are written, and
scored by metrics of our own. The rest is refused.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from rlprompt._utils.text import error_line
from rlprompt.data.settings import DrawSettings, draws
from rlprompt.tasks.generation import GenerationTask, MetricSettings
from rlprompt.tasks.metrics import METRICS
from rlprompt.tasks.multiple_choice import MultipleChoiceTask

# What the harness writes at the most where a task does not say (`HFLM.max_gen_toks`).
MOST_WRITTEN = 256
# What it reads that from, the first one that is there.
LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
# What an entry of `metric_list` says besides the settings of the metric.
ABOUT_METRICS = ("metric", "aggregation", "higher_is_better", "hf_evaluate")
# Metrics of the harness by the names that they have here.
OURS = {"exact_match": "strict_match"}


@draws()
def from_harness(
    source: str,
    *,
    template: str = "{prompt}{text}",
    reward: MetricSettings = "",
    metric: str = "",
    select_by: str = "reward",
    hand_prompt: str | None = None,
    max_new_tokens: int | None = None,
    **draw: Unpack[DrawSettings],
) -> MultipleChoiceTask | GenerationTask:
    """A task of lm-evaluation-harness: a YAML file, or a name that it knows.

    Args:
        source: The file, beside which its data files lie, or the name.
        template: Where the prompt goes, and the harness's own text with `{text}`.
        reward: As for `MultipleChoiceTask` or `GenerationTask`; left out, `cross_entropy`, or the
            first metric that the task names, with its settings and an answer at a time; its
            `exact_match` is `strict_match` here.
        metric: As for these tasks; of options `acc` where nothing is said.
        select_by: By what a prompt is picked on dev: its `reward`, or the `metric`.
        hand_prompt: A prompt written by hand; left out, the task's own `description`.
        max_new_tokens: Tokens that are written at the most; left out, as the task says.
        **draw: What is drawn of the data (`DrawSettings`), train and dev from its first documents.

    Raises:
        ValueError: The package is not there, the task cannot be read, or it does not fit.
    """
    found = _read(source)
    config, kind = found.config, str(found.OUTPUT_TYPE)
    if kind not in ("multiple_choice", "generate_until"):
        raise _unfit(source, f"its output_type is {kind}", "give multiple_choice or generate_until")
    for key in ("gen_prefix", "doc_to_image", "doc_to_audio", "process_results"):
        if getattr(config, key, None):
            way = 'give a task without it, or write a class ("A task from a class" in the '
            way += "documentation)"
            raise _unfit(source, f"it has `{key}`, which rlprompt does not support", way)
    rows = {name: [_row(found, doc, source) for doc in docs] for name, docs in _parts(found)}
    lead, tail = _ends([row["text"] for part in rows.values() for row in part], source, "texts")
    # Fields are stripped, so the white space around the text stands in the template.
    shown = re.sub(r"(?<!\{)\{text\}(?!\})", lambda _: f"{lead}{{text}}{tail}", template)
    settings: dict[str, Any] = {
        "select_by": select_by,
        "hand_prompt": str(config.description or "") if hand_prompt is None else hand_prompt,
        "name": str(config.task),
        **draw,
    }
    delimiter = str(config.target_delimiter)
    if kind == "multiple_choice":
        settings |= {"reward": reward or "cross_entropy", "metric": metric or "acc"}
        settings["answers_from"] = 0  # as the harness counts
        settings |= _before_options(rows, shown, delimiter, str(settings["metric"]), source)
        return MultipleChoiceTask.from_file(_data(rows), **settings)
    # What is asked ends without the delimiter; a space there is the answer's in any case.
    settings["template"] = shown if delimiter.strip(" ") else shown + delimiter
    told = dict(config.generation_kwargs or {})
    until = told.get("until", [])
    limits = (told[key] for key in LIMITS if told.get(key) is not None)
    return GenerationTask.from_file(
        _data(rows),
        reward=reward or _metric(found, source),
        metric=metric,
        label="answer",
        max_new_tokens=int(next(limits, MOST_WRITTEN))
        if max_new_tokens is None
        else max_new_tokens,
        stop=[until] if isinstance(until, str) else list(until),
        temperature=0.0 if told.get("do_sample") is False else float(told.get("temperature") or 0),
        **settings,
    )


def _read(source: str) -> Any:
    """The harness's own object of a task."""
    try:
        from lm_eval.api.task import ConfigurableTask
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        need = "tasks of lm-evaluation-harness need the package lm_eval"
        raise ValueError(f"{need}: pip install 'rlprompt[lm-eval]'") from error
    path = Path(source).expanduser()
    here = path.parent if path.is_file() else Path()
    try:
        with contextlib.chdir(here):  # where its data files are looked for
            spec = path.name if path.is_file() else source
            made = TaskManager(include_defaults=not path.is_file()).load(spec)["tasks"]
    # Whatever the harness and `datasets` raise of a file, a name or data; kept as the cause.
    except Exception as error:
        raise ValueError(
            f"lm-evaluation-harness cannot load {source!r}: {error_line(error)}; give a task's "
            "YAML file, data files beside it, or the name of a task whose data are in the cache"
        ) from error
    if len(made) != 1:
        raise _unfit(source, f"it is a group of {len(made)} tasks", "give one of them")
    (task,) = made.values()
    if not isinstance(task, ConfigurableTask):
        raise _unfit(source, "it is a Python class", "give a task that is a YAML file")
    return task


def _parts(task: Any) -> Iterator[tuple[str, Any]]:
    """Documents to draw train and dev from, and others to test on, if there are."""
    named = ("training", "validation", "test")
    there = [getattr(task, f"{n}_docs")() for n in named if getattr(task, f"has_{n}_docs")()]
    yield "train", there[0]
    if len(there) > 1:
        yield "test", there[-1]


def _row(task: Any, doc: Mapping[str, Any], source: str) -> dict[str, Any]:
    """What the harness makes of a document."""
    text, target = task.doc_to_text(doc), task.doc_to_target(doc)
    if not isinstance(text, str):
        raise _unfit(source, "its options are texts before the answer", "give another")
    if task.OUTPUT_TYPE == "generate_until":
        several = target if isinstance(target, list) else [target]  # a column has one type
        return {"text": text, "answer": [str(one) for one in several]}
    if isinstance(target, list):
        raise _unfit(source, "several of its options are right", "give a task with one answer")
    return {"text": text, "choices": list(task.doc_to_choice(doc)), "answer": target}


def _ends(texts: Sequence[str], source: str, what: str) -> tuple[str, str]:
    """The white space that all texts begin with, and that they end in."""
    ends = []
    for side, strip in (("begin with", str.lstrip), ("end in", str.rstrip)):
        bare = [(text, strip(text)) for text in texts]
        found = sorted({text.replace(own, "", 1) if own else "" for text, own in bare})
        if len(found) > 1:
            raise _unfit(
                source,
                f"its {what} {side} different white space, such as {found[0]!r} and {found[1]!r}, "
                "and a template has one",
                "strip them in the task, as {{question|trim}} does",
            )
        ends.append(found[0])
    return ends[0], ends[1]


def _before_options(
    rows: Mapping[str, list[dict[str, Any]]],
    template: str,
    delimiter: str,
    metric: str,
    source: str,
) -> dict[str, str]:
    """Template and `answer_space`, so that options are scored with the harness's white space."""
    if delimiter.strip():
        way = "give white space, and end `doc_to_text` with the rest"
        raise _unfit(source, f"its target_delimiter is {delimiter!r}", way)
    options = [str(one) for part in rows.values() for row in part for one in row["choices"]]
    lead, tail = _ends(options, source, "options")
    if tail:
        raise _unfit(source, f"its options end in {tail!r}", "strip them in the task")
    if lead and metric != "acc":
        what = f"its options begin with {lead!r}, which {metric} counts in the harness alone"
        raise _unfit(source, what, "set `metric: acc`, or make it the task's target_delimiter")
    # The harness has white space at the end of a text scored with the option.
    whole = template + delimiter
    text = whole.rstrip()
    space = whole[len(text) :]
    return {
        "template": text + ("" if space.strip(" ") else space),
        "answer_space": space + lead,
    }


def _data(rows: Mapping[str, list[dict[str, Any]]]) -> Any:
    """Rows as `load_splits` draws from them: of one table, or of train, with test given."""
    if len(rows) == 1:
        return rows["train"]
    from datasets import Dataset

    return {name: Dataset.from_list(part) for name, part in rows.items()}


def _metric(task: Any, source: str) -> MetricSettings:
    """The first metric that the task names and there is, with its settings."""
    named = [dict(one) for one in task.config.metric_list or [{"metric": "exact_match"}]]
    names = [str(one.get("metric")) for one in named]
    known = [one for one, name in zip(named, names, strict=True) if name in METRICS]
    filters = [one.get("name") for one in task.config.filter_list or []]
    if filters or not known:
        what = f"the filters {filters}" if filters else f"the metrics {names}"
        way = "set how answers are scored with `reward:`, such as {name: number}"
        raise _unfit(source, f"it has {what}, which rlprompt does not support", way)
    settings = {key: value for key, value in known[0].items() if key not in ABOUT_METRICS}
    name = str(known[0]["metric"])
    name = OURS.get(name, name)
    return {"name": name, **settings} if settings else name


def _unfit(source: str, what: str, way: str) -> ValueError:
    return ValueError(f"the task {source!r} cannot be used: {what}; {way}")
