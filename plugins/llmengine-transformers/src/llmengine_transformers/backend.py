"""How the worker that drives Transformers is started."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmengine_core.errors import BadRequestError
from llmengine_core.types.launch import Deployment
from llmengine_core.worker_backend import WorkerBackend
from llmengine_transformers.plugin import CAPABILITIES

__all__ = ["DTYPES", "TransformersBackend"]

DTYPES = ("auto", "bfloat16", "float16", "float32")


class TransformersBackend(WorkerBackend):
    """Safetensors and PyTorch checkpoints on torch.

    Launch options besides ``cpus`` and ``threads``: ``dtype``, what is computed in; "auto" is what the weights are
    stored in.
    """

    capabilities = CAPABILITIES
    engine = "llmengine_transformers.worker.engine:TransformersEngine"
    options = frozenset({"dtype"})

    def document(self, deployment: Deployment) -> Mapping[str, Any]:
        """What ``TransformersEngine.load`` reads."""
        dtype = deployment.options.get("dtype", "auto")
        if dtype not in DTYPES:
            raise BadRequestError(f"dtype is {dtype!r}; it must be one of: {', '.join(DTYPES)}")
        return {
            "weights": deployment.weights,
            "accelerator": deployment.accelerator,
            "allow_remote_code": deployment.allow_remote_code,
            "context_length": deployment.context_length,
            "dtype": dtype,
            "load_options": dict(deployment.load_options),
            "per_worker": deployment.per_worker,
        }
