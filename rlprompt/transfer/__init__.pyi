from .file import Transfer as Transfer
from .file import read_transfer as read_transfer

__all__ = [
    "Transfer",
    "read_transfer",
]
