"""What runs in the engine's own environment: torch and Transformers, driven step by step.

The library reads these settings when it is imported, which any module here may be the first to do: it never asks
a hub, draws no progress of its own, and tokenizes in the thread that asks. bitsandbytes would log a line for each
layer that it computes in 8 bits.
"""

from __future__ import annotations

import logging
import os

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DISABLE_SAFETENSORS_CONVERSION": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
