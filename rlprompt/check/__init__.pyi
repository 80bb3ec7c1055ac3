from .diagnosis import Diagnosis as Diagnosis
from .machine import examine_machine as examine_machine
from .model import examine_model as examine_model
from .optimiser import check_optimiser as check_optimiser
from .report import Finding as Finding
from .report import Report as Report
from .task import check_task as check_task
from .toy import ToyTask as ToyTask
from .toy import toy_lm as toy_lm

__all__ = [
    "Diagnosis",
    "Finding",
    "Report",
    "ToyTask",
    "check_optimiser",
    "check_task",
    "examine_machine",
    "examine_model",
    "toy_lm",
]
