from .decoding import Decoding as Decoding
from .decoding import Generated as Generated
from .fingerprint import Fingerprint as Fingerprint
from .lm import FrozenLM as FrozenLM
from .noise import Noise as Noise
from .writing import Writer as Writer
from .writing import Written as Written

__all__ = [
    "Decoding",
    "Fingerprint",
    "FrozenLM",
    "Generated",
    "Noise",
    "Writer",
    "Written",
]
