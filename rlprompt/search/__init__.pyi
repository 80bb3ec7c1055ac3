from .objective import (
    Budget as Budget,
)
from .objective import (
    BudgetExhausted as BudgetExhausted,
)
from .objective import (
    Evaluation as Evaluation,
)
from .objective import (
    Objective as Objective,
)
from .result import Result as Result
from .run import (
    AskTell as AskTell,
)
from .run import (
    Optimiser as Optimiser,
)
from .run import (
    Proposals as Proposals,
)
from .run import (
    evaluate as evaluate,
)
from .run import (
    search as search,
)
from .space import SoftSpace as SoftSpace
from .space import TokenSpace as TokenSpace

__all__ = [
    "AskTell",
    "Budget",
    "BudgetExhausted",
    "Evaluation",
    "Objective",
    "Optimiser",
    "Proposals",
    "Result",
    "SoftSpace",
    "TokenSpace",
    "evaluate",
    "search",
]
