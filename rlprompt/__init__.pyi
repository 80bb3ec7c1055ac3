from .check.optimiser import check_optimiser as check_optimiser
from .check.task import check_task as check_task
from .config.yaml_file import load_config as load_config
from .data.examples import Example as Example
from .data.examples import Splits as Splits
from .data.few_shot import few_shot as few_shot
from .data.load import load_splits as load_splits
from .export.export import export_prompt as export_prompt
from .export.folder import ExportedPrompt as ExportedPrompt
from .export.folder import load_prompt as load_prompt
from .export.server import PromptServer as PromptServer
from .models.decoding import Generated as Generated
from .models.lm import FrozenLM as FrozenLM
from .prompt import Length as Length
from .prompt import PrefixPrompt as PrefixPrompt
from .prompt import SoftPrompt as SoftPrompt
from .prompt import TextPrompt as TextPrompt
from .prompt import TokenPrompt as TokenPrompt
from .reports.study import Study as Study
from .search.budget import Budget as Budget
from .search.objective import BudgetExhausted as BudgetExhausted
from .search.objective import Evaluation as Evaluation
from .search.objective import Objective as Objective
from .search.optimiser import AskTell as AskTell
from .search.optimiser import Optimiser as Optimiser
from .search.result import Result as Result
from .search.run import search as search
from .search.selection import Selection as Selection
from .search.space import PrefixSpace as PrefixSpace
from .search.space import SoftSpace as SoftSpace
from .search.space import TextSpace as TextSpace
from .search.space import TokenSpace as TokenSpace
from .studies.comparison import Comparison as Comparison
from .studies.experiment import Experiment as Experiment
from .studies.loading import load_experiments as load_experiments
from .studies.run import compare as compare
from .tasks.base import Task as Task
from .tasks.classification import ClassificationTask as ClassificationTask
from .tasks.compression import CompressionTask as CompressionTask
from .tasks.function import FunctionTask as FunctionTask
from .tasks.generation import GenerationTask as GenerationTask
from .tasks.label_search import find_label_words as find_label_words
from .tasks.multiple_choice import MultipleChoiceTask as MultipleChoiceTask
from .tasks.reward_function import (
    RewardError as RewardError,
)
from .tasks.reward_function import (
    RewardFunction as RewardFunction,
)
from .tasks.reward_function import (
    reward as reward,
)
from .tasks.style_transfer import StyleTransferTask as StyleTransferTask
from .template import Query as Query
from .template import Template as Template

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
    "Length",
    "MultipleChoiceTask",
    "Objective",
    "Optimiser",
    "PrefixPrompt",
    "PrefixSpace",
    "PromptServer",
    "Query",
    "Result",
    "RewardError",
    "RewardFunction",
    "Selection",
    "SoftPrompt",
    "SoftSpace",
    "Splits",
    "Study",
    "StyleTransferTask",
    "Task",
    "Template",
    "TextPrompt",
    "TextSpace",
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

__version__: str
