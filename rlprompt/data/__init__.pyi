from .examples import Columns as Columns
from .examples import Example as Example
from .examples import OnBadRows as OnBadRows
from .examples import OnLeak as OnLeak
from .examples import OnLongText as OnLongText
from .examples import Splits as Splits
from .few_shot import few_shot as few_shot
from .load import load_splits as load_splits
from .settings import DrawSettings as DrawSettings

__all__ = [
    "Columns",
    "DrawSettings",
    "Example",
    "OnBadRows",
    "OnLeak",
    "OnLongText",
    "Splits",
    "few_shot",
    "load_splits",
]
