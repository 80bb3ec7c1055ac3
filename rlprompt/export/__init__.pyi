from .export import export_prompt as export_prompt
from .folder import ExportedPrompt as ExportedPrompt
from .folder import load_prompt as load_prompt
from .server import Classified as Classified
from .server import PromptServer as PromptServer

__all__ = [
    "Classified",
    "ExportedPrompt",
    "PromptServer",
    "export_prompt",
    "load_prompt",
]
