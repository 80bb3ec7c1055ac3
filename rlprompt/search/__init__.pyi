from .allocation import Criterion as Criterion
from .allocation import PaidOnce as PaidOnce
from .allocation import halve as halve
from .allocation import halving_cost as halving_cost
from .allocation import halving_size as halving_size
from .allocation import mean_rewards as mean_rewards
from .allocation import race as race
from .allocation import race_winners as race_winners
from .allocation import score_new as score_new
from .blocks import Block as Block
from .budget import Budget as Budget
from .budget import Ledger as Ledger
from .evaluation import evaluate as evaluate
from .objective import BudgetExhausted as BudgetExhausted
from .objective import Evaluation as Evaluation
from .objective import GradientEvaluation as GradientEvaluation
from .objective import Objective as Objective
from .optimiser import AskTell as AskTell
from .optimiser import Optimiser as Optimiser
from .optimiser import Proposals as Proposals
from .pools import first_words as first_words
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
    "Criterion",
    "Evaluation",
    "GradientEvaluation",
    "Ledger",
    "Objective",
    "Optimiser",
    "PaidOnce",
    "PrefixSpace",
    "Proposals",
    "Result",
    "Selection",
    "SoftSpace",
    "TextSpace",
    "TokenSpace",
    "evaluate",
    "first_words",
    "halve",
    "halving_cost",
    "halving_size",
    "mean_rewards",
    "race",
    "race_winners",
    "score_new",
    "search",
]
