from .base import (
    ChoosyTask as ChoosyTask,
)
from .base import (
    DifferentiableTask as DifferentiableTask,
)
from .base import (
    GeneratingTask as GeneratingTask,
)
from .base import (
    Measured as Measured,
)
from .base import (
    MeasuredTask as MeasuredTask,
)
from .base import (
    ShorteningTask as ShorteningTask,
)
from .base import (
    SizedTask as SizedTask,
)
from .base import (
    Task as Task,
)
from .base import (
    WrittenTask as WrittenTask,
)
from .classification import ClassificationTask as ClassificationTask
from .compression import CompressionTask as CompressionTask
from .function import FunctionTask as FunctionTask
from .generation import GenerationTask as GenerationTask
from .label_search import find_label_words as find_label_words
from .reward_function import (
    RewardError as RewardError,
)
from .reward_function import (
    RewardFunction as RewardFunction,
)
from .reward_function import (
    reward as reward,
)
from .style_transfer import StyleTransferTask as StyleTransferTask

__all__ = [
    "ChoosyTask",
    "ClassificationTask",
    "CompressionTask",
    "DifferentiableTask",
    "FunctionTask",
    "GeneratingTask",
    "GenerationTask",
    "Measured",
    "MeasuredTask",
    "RewardError",
    "RewardFunction",
    "ShorteningTask",
    "SizedTask",
    "StyleTransferTask",
    "Task",
    "WrittenTask",
    "find_label_words",
    "reward",
]
