"""rlprompt finds better prompts for a frozen language model.

The names below are loaded when they are first used, so that `import rlprompt` is quick. The methods
are in `rlprompt.agents`.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlprompt.check import check_task
    from rlprompt.check_optimisers import check_optimiser
    from rlprompt.class_task import ClassificationTask
    from rlprompt.compare import compare
    from rlprompt.comparison import Comparison
    from rlprompt.compression import CompressionTask
    from rlprompt.config_file import load_config
    from rlprompt.data import Example, Splits, few_shot, load_splits
    from rlprompt.experiment import Experiment, load_experiments
    from rlprompt.exporting import export_prompt
    from rlprompt.function_reward import RewardError, RewardFunction, reward
    from rlprompt.function_task import FunctionTask
    from rlprompt.generation_task import GenerationTask
    from rlprompt.label_search import find_label_words
    from rlprompt.lm import FrozenLM
    from rlprompt.objective import Budget, BudgetExhausted, Evaluation, Objective
    from rlprompt.portable import ExportedPrompt, load_prompt
    from rlprompt.prompt import SoftPrompt, TokenPrompt
    from rlprompt.result import Result
    from rlprompt.sampling import Generated
    from rlprompt.search import AskTell, Optimiser, search
    from rlprompt.server import PromptServer
    from rlprompt.space import SoftSpace, TokenSpace
    from rlprompt.style_transfer import StyleTransferTask
    from rlprompt.task import Task
    from rlprompt.template import Query, Template

    __version__: str

__all__ = [
    "AskTell",
    "Budget",
    "BudgetExhausted",
    "ClassificationTask",
    "Comparison",
    "CompressionTask",
    "Evaluation",
    "Example",
    "Experiment",
    "ExportedPrompt",
    "FrozenLM",
    "FunctionTask",
    "Generated",
    "GenerationTask",
    "Objective",
    "Optimiser",
    "PromptServer",
    "Query",
    "Result",
    "RewardError",
    "RewardFunction",
    "SoftPrompt",
    "SoftSpace",
    "Splits",
    "StyleTransferTask",
    "Task",
    "Template",
    "TokenPrompt",
    "TokenSpace",
    "__version__",
    "check_optimiser",
    "check_task",
    "compare",
    "export_prompt",
    "few_shot",
    "find_label_words",
    "load_config",
    "load_experiments",
    "load_prompt",
    "load_splits",
    "reward",
    "search",
]

_MODULES = {
    "check": ("check_task",),
    "check_optimisers": ("check_optimiser",),
    "class_task": ("ClassificationTask",),
    "compare": ("compare",),
    "comparison": ("Comparison",),
    "compression": ("CompressionTask",),
    "config_file": ("load_config",),
    "data": ("Example", "Splits", "few_shot", "load_splits"),
    "experiment": ("Experiment", "load_experiments"),
    "exporting": ("export_prompt",),
    "function_reward": ("RewardError", "RewardFunction", "reward"),
    "function_task": ("FunctionTask",),
    "generation_task": ("GenerationTask",),
    "label_search": ("find_label_words",),
    "lm": ("FrozenLM",),
    "objective": ("Budget", "BudgetExhausted", "Evaluation", "Objective"),
    "portable": ("ExportedPrompt", "load_prompt"),
    "prompt": ("SoftPrompt", "TokenPrompt"),
    "result": ("Result",),
    "sampling": ("Generated",),
    "search": ("AskTell", "Optimiser", "search"),
    "server": ("PromptServer",),
    "space": ("SoftSpace", "TokenSpace"),
    "style_transfer": ("StyleTransferTask",),
    "task": ("Task",),
    "template": ("Query", "Template"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


if not TYPE_CHECKING:  # a type checker must see that a misspelt name is not there

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import PackageNotFoundError, version

            try:
                value: Any = version(__name__)
            except PackageNotFoundError:  # a checkout that is not installed
                value = "0+unknown"
        elif name in _HOME:
            value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


class _Package(ModuleType):
    """A package whose `search` and `compare` are the functions, not the modules that hold them.

    Importing a module sets it as an attribute of its package, whoever imports it and whenever.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _HOME.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
