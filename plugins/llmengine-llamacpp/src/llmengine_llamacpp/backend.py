"""How llama.cpp is started, and how it is spoken to."""

from __future__ import annotations

import sys
from pathlib import Path

from llmengine_core.errors import ServerError
from llmengine_core.host import launch_threads
from llmengine_core.http import HttpClient, HttpError
from llmengine_core.interfaces.backend import Backend, Session
from llmengine_core.types.launch import Deployment, Endpoint, LaunchSpec, Resources
from llmengine_llamacpp.client import Client
from llmengine_llamacpp.session import LlamaCppSession

__all__ = ["LlamaCppBackend"]

SERVE = Path(__file__).with_name("worker") / "serve.py"
LOG_NOISE = (
    r"^[\d.]+ [A-Z] (?:\w+ +)?\w+: "  # when, how bad, and where
    # What each caller of the function that failed has to add.
    r"(?:(?:error loading model: llama_model_loader: )?failed to load model\b.*|exiting due to .*)?"
)


class LlamaCppBackend(Backend):
    """GGUF models on llama.cpp.

    Launch options: ``cpus``, the cores that one replica may use, and ``threads``, how many of them it computes
    on; both at least 1. By default all cores but one are asked for; what is granted depends on who else
    computes on this machine.
    """

    def launch(self, deployment: Deployment) -> LaunchSpec:
        """One process per replica; ``per_worker`` requests share its cores."""
        document = {
            "weights": deployment.weights,
            "context_length": deployment.context_length,
            "slots": deployment.per_worker,
        }
        return LaunchSpec(
            argv=(sys.executable, "-I", str(SERVE)),
            document=document,
            resources=Resources(threads=launch_threads(deployment.backend, deployment.options)),
            subject=deployment.subject or Path(deployment.weights).name,
            log_noise=LOG_NOISE,
        )

    async def connect(self, endpoint: Endpoint, deployment: Deployment) -> Session:
        """Asks the child for nothing that it hasn't reported, save how it counts an empty prompt."""
        client = Client(HttpClient(endpoint.address, endpoint.key, max_idle=deployment.per_worker + 1))
        try:
            return await LlamaCppSession.open(
                client, endpoint.facts, weights_digest=deployment.weights_digest
            )
        except HttpError as error:
            await client.aclose()
            raise ServerError(f"llama.cpp can't be spoken to: {error}") from error
        except BaseException:
            await client.aclose()
            raise
