"""Whether the Hugging Face hub can be reached."""

from __future__ import annotations

import urllib.error
import urllib.request

from huggingface_hub.constants import ENDPOINT, is_offline_mode

# Seconds that the hub has to answer in before the local cache is all there is.
HUB_TIMEOUT = 5.0


def hub_answers() -> bool:
    """Whether the hub can be reached; transformers itself would retry for half a minute."""
    if is_offline_mode():
        return False
    try:
        with urllib.request.urlopen(ENDPOINT, timeout=HUB_TIMEOUT):
            return True
    except urllib.error.HTTPError:
        return True  # it answered
    except OSError:
        return False
