from .bbt_v2 import BBTv2 as BBTv2
from .bdpl import BDPL as BDPL
from .cma_es import CMAES as CMAES
from .demonstrations import Demonstrations as Demonstrations
from .differential_evolution import DifferentialEvolution as DifferentialEvolution
from .gcg import GCG as GCG
from .genetic import Genetic as Genetic
from .greedy import Greedy as Greedy
from .grow import Grow as Grow
from .instructions import Instructions as Instructions
from .play import Play as Play
from .ppo import PPO as PPO
from .ppo import SoftPPO as SoftPPO
from .ppo_edit import EditPPO as EditPPO
from .prefix import PrefixTuning as PrefixTuning
from .random_search import RandomSearch as RandomSearch
from .random_soft import RandomSoft as RandomSoft
from .rl import RL as RL
from .rl import SoftRL as SoftRL
from .soft_prompt import SoftPromptTuning as SoftPromptTuning
from .soft_q import SoftQ as SoftQ

__all__ = [
    "BDPL",
    "CMAES",
    "GCG",
    "PPO",
    "RL",
    "BBTv2",
    "Demonstrations",
    "DifferentialEvolution",
    "EditPPO",
    "Genetic",
    "Greedy",
    "Grow",
    "Instructions",
    "Play",
    "PrefixTuning",
    "RandomSearch",
    "RandomSoft",
    "SoftPPO",
    "SoftPromptTuning",
    "SoftQ",
    "SoftRL",
]
