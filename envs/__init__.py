"""The prompt search problems as Markov decision processes, in Gymnasium's interface."""

# This folder is also reachable under its bare name from the root of a checkout. That would load
# every class a second time, unequal to the first, so it is refused before anything else runs.
if __name__ != "rlprompt.envs":
    raise ImportError(f"import rlprompt.envs, not {__name__}")
