from .decoding import Decoding as Decoding
from .decoding import Generated as Generated
from .fingerprint import Fingerprint as Fingerprint
from .lm import FrozenLM as FrozenLM
from .noise import Noise as Noise
from .served.bill import Bill as Bill
from .served.bill import Prices as Prices
from .served.lm import ServedLM as ServedLM
from .writing import Writer as Writer

__all__ = [
    "Bill",
    "Decoding",
    "Fingerprint",
    "FrozenLM",
    "Generated",
    "Noise",
    "Prices",
    "ServedLM",
    "Writer",
]
