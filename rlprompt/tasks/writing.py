"""Translation, summaries and reasoning: tasks whose answers are sentences, with real references.

What no small model writes word for word: searches go by the references' log-likelihood, and
reports give the metric of the field, chrF, ROUGE-L and the number that is answered. Built like the
tasks of `induction`, on data of published packages and of the project's own (`writing_data`).

>>> task = word_problems(shots=8, test=8)
>>> task.metric, task.splits.train[0].label.partition(" #### ")[2].isdigit()
('number', True)
"""

from __future__ import annotations

from collections.abc import Mapping

from rlprompt.tasks import writing_data
from rlprompt.tasks.induction import Induction, preset
from rlprompt.tasks.likelihood import LOG_LIKELIHOOD

WRITINGS: Mapping[str, Induction] = {
    "translation": Induction(
        writing_data.messages,
        "Translate the message into French.",
        max_new_tokens=48,
        reward=LOG_LIKELIHOOD,
        metric="chrf",
    ),
    "code-summary": Induction(
        writing_data.functions,
        "Say in one sentence what the function does.",
        max_new_tokens=32,
        reward=LOG_LIKELIHOOD,
        metric="rougeL",
    ),
    "word-problems": Induction(
        writing_data.word_problems,
        "Solve the problem step by step and end with #### and the number.",
        max_new_tokens=40,
        reward=LOG_LIKELIHOOD,
        metric="number",
    ),
}

translation = preset("translation", WRITINGS["translation"])
code_summary = preset("code-summary", WRITINGS["code-summary"])
word_problems = preset("word-problems", WRITINGS["word-problems"])
