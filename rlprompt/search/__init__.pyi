from .blocks import Block as Block
from .budget import Budget as Budget
from .evaluation import evaluate as evaluate
from .objective import BudgetExhausted as BudgetExhausted
from .objective import Evaluation as Evaluation
from .objective import Objective as Objective
from .optimiser import AskTell as AskTell
from .optimiser import Optimiser as Optimiser
from .optimiser import Proposals as Proposals
from .result import Result as Result
from .run import search as search
from .selection import Selection as Selection
from .space import PrefixSpace as PrefixSpace
from .space import SoftSpace as SoftSpace
from .space import TextSpace as TextSpace
from .space import TokenSpace as TokenSpace

__all__ = [
    "AskTell",
    "Block",
    "Budget",
    "BudgetExhausted",
    "Evaluation",
    "Objective",
    "Optimiser",
    "PrefixSpace",
    "Proposals",
    "Result",
    "Selection",
    "SoftSpace",
    "TextSpace",
    "TokenSpace",
    "evaluate",
    "search",
]
