"""The prompt search problems as Markov decision processes, in Gymnasium's interface."""

# This folder is also reachable under its bare name from the root of a checkout. That would load
# every class a second time, unequal to the first, so it is refused before anything else runs.
if __name__ != "rlprompt.envs":
    raise ImportError(f"import rlprompt.envs, not {__name__}")

import gymnasium
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

gymnasium.register(
    id="rlprompt/TokenPrompt-v0",
    entry_point="rlprompt.envs:TokenPromptEnv",
    vector_entry_point="rlprompt.envs:TokenPromptVectorEnv",
)
gymnasium.register(
    id="rlprompt/EmbeddingPrompt-v0",
    entry_point="rlprompt.envs:EmbeddingPromptEnv",
    vector_entry_point="rlprompt.envs:EmbeddingPromptVectorEnv",
)
gymnasium.register(
    id="rlprompt/EditPrompt-v0",
    entry_point="rlprompt.envs:EditPromptEnv",
    vector_entry_point="rlprompt.envs:EditPromptVectorEnv",
)
