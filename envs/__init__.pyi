from .embedding_prompt import EmbeddingPromptEnv as EmbeddingPromptEnv
from .embedding_prompt import EmbeddingPromptVectorEnv as EmbeddingPromptVectorEnv
from .token_prompt import TokenPromptEnv as TokenPromptEnv
from .token_prompt import TokenPromptVectorEnv as TokenPromptVectorEnv
from .vec_env import PromptVecEnv as PromptVecEnv

__all__ = [
    "EmbeddingPromptEnv",
    "EmbeddingPromptVectorEnv",
    "PromptVecEnv",
    "TokenPromptEnv",
    "TokenPromptVectorEnv",
]
