from .problems import config_from_json as config_from_json
from .schema import Config as Config
from .yaml_file import ConfigError as ConfigError
from .yaml_file import load_config as load_config

__all__ = [
    "Config",
    "ConfigError",
    "config_from_json",
    "load_config",
]
