from .database import StoreError as StoreError
from .store import Store as Store
from .summary import Summary as Summary
from .summary import read_summary as read_summary

__all__ = [
    "Store",
    "StoreError",
    "Summary",
    "read_summary",
]
