"""Whether a task or an optimiser keeps its promises, and what a machine and a model are."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
