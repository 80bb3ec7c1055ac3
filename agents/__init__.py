"""The search methods, one a file. Each runs on an objective and a space."""

# This folder is also reachable under its bare name from the root of a checkout. That would load
# every class a second time, unequal to the first, so it is refused before anything else runs.
if __name__ != "rlprompt.agents":
    raise ImportError(f"import rlprompt.agents, not {__name__}")

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
