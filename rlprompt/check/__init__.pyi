from .optimiser import check_optimiser as check_optimiser
from .report import Finding as Finding
from .report import Report as Report
from .task import check_task as check_task
from .toy import ToyTask as ToyTask
from .toy import toy_lm as toy_lm

__all__ = [
    "Finding",
    "Report",
    "ToyTask",
    "check_optimiser",
    "check_task",
    "toy_lm",
]
