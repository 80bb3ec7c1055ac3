from .optimiser import check_optimiser as check_optimiser
from .report import Finding as Finding
from .report import Report as Report
from .task import check_task as check_task

__all__ = [
    "Finding",
    "Report",
    "check_optimiser",
    "check_task",
]
