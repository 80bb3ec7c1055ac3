from .base import (
    InContextExamples as InContextExamples,
)
from .base import (
    Measured as Measured,
)
from .base import (
    Task as Task,
)
from .classification import ClassificationTask as ClassificationTask
from .completed import as_task as as_task
from .compression import CompressionTask as CompressionTask
from .function import FunctionTask as FunctionTask
from .generation import GenerationTask as GenerationTask
from .label_search import find_label_words as find_label_words
from .multiple_choice import MultipleChoiceTask as MultipleChoiceTask
from .prior import Prior as Prior
from .reward_function import (
    RewardError as RewardError,
)
from .reward_function import (
    RewardFunction as RewardFunction,
)
from .reward_function import (
    reward as reward,
)
from .showing import Showing as Showing
from .style_transfer import StyleTransferTask as StyleTransferTask
from .wording import Wording as Wording

__all__ = [
    "ClassificationTask",
    "CompressionTask",
    "FunctionTask",
    "GenerationTask",
    "InContextExamples",
    "Measured",
    "MultipleChoiceTask",
    "Prior",
    "RewardError",
    "RewardFunction",
    "Showing",
    "StyleTransferTask",
    "Task",
    "Wording",
    "as_task",
    "find_label_words",
    "reward",
]
