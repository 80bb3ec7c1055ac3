from .edit_prompt import EditEpisodes as EditEpisodes
from .edit_prompt import EditPromptEnv as EditPromptEnv
from .edit_prompt import EditPromptVectorEnv as EditPromptVectorEnv
from .edits import Edit as Edit
from .edits import Edits as Edits
from .embedding_prompt import EmbeddingEpisodes as EmbeddingEpisodes
from .embedding_prompt import EmbeddingPromptEnv as EmbeddingPromptEnv
from .embedding_prompt import EmbeddingPromptVectorEnv as EmbeddingPromptVectorEnv
from .token_prompt import TokenEpisodes as TokenEpisodes
from .token_prompt import TokenPromptEnv as TokenPromptEnv
from .token_prompt import TokenPromptVectorEnv as TokenPromptVectorEnv
from .vec_env import PromptVecEnv as PromptVecEnv

__all__ = [
    "Edit",
    "EditEpisodes",
    "EditPromptEnv",
    "EditPromptVectorEnv",
    "Edits",
    "EmbeddingEpisodes",
    "EmbeddingPromptEnv",
    "EmbeddingPromptVectorEnv",
    "PromptVecEnv",
    "TokenEpisodes",
    "TokenPromptEnv",
    "TokenPromptVectorEnv",
]
