from .comparison import Comparison as Comparison
from .experiment import Experiment as Experiment
from .loading import load_experiments as load_experiments
from .progress import Progress as Progress
from .run import compare as compare
from .trackers import TensorBoard as TensorBoard
from .trackers import Watcher as Watcher
from .trackers import WeightsAndBiases as WeightsAndBiases

__all__ = [
    "Comparison",
    "Experiment",
    "Progress",
    "TensorBoard",
    "Watcher",
    "WeightsAndBiases",
    "compare",
    "load_experiments",
]
