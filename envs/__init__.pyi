from .embedding_prompt import EmbeddingEpisodes as EmbeddingEpisodes
from .embedding_prompt import EmbeddingPromptEnv as EmbeddingPromptEnv
from .embedding_prompt import EmbeddingPromptVectorEnv as EmbeddingPromptVectorEnv
from .token_prompt import TokenEpisodes as TokenEpisodes
from .token_prompt import TokenPromptEnv as TokenPromptEnv
from .token_prompt import TokenPromptVectorEnv as TokenPromptVectorEnv
from .vec_env import PromptVecEnv as PromptVecEnv

__all__ = [
    "EmbeddingEpisodes",
    "EmbeddingPromptEnv",
    "EmbeddingPromptVectorEnv",
    "PromptVecEnv",
    "TokenEpisodes",
    "TokenPromptEnv",
    "TokenPromptVectorEnv",
]
