from .paired import compare_runs as compare_runs
from .paired import holm as holm
from .summaries import (
    interquartile_mean as interquartile_mean,
)
from .summaries import (
    performance_profile as performance_profile,
)
from .summaries import (
    probability_of_improvement as probability_of_improvement,
)
from .summaries import (
    share_interval as share_interval,
)
from .summaries import (
    summarise as summarise,
)
from .verdict import judge as judge

__all__ = [
    "compare_runs",
    "holm",
    "interquartile_mean",
    "judge",
    "performance_profile",
    "probability_of_improvement",
    "share_interval",
    "summarise",
]
