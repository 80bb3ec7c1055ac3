from .html import write_page as write_page
from .study import Study as Study

__all__ = [
    "Study",
    "write_page",
]
