"""A backend whose engine is driven by our worker, in the environment that the engine is in."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from llmengine_core.errors import ServerError
from llmengine_core.host import launch_threads
from llmengine_core.interfaces.backend import Backend, Session
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.generation import SessionFacts
from llmengine_core.types.launch import Deployment, Endpoint, LaunchSpec, Resources
from llmengine_core.worker import bootstrap
from llmengine_core.worker_link import LinkLost, WorkerLink
from llmengine_core.worker_session import WorkerSession, narrowed

__all__ = ["WorkerBackend"]

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait bring everything down where cores are shared
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_OFFLINE": "1",
}
LOG_NOISE = (
    r"^\| .*"  # what is logged for the record: see llmengine_core.worker.ending
    # Of a stack that the interpreter shows: whose it is, and what in it is ours or merely waits.
    r"|^(?:Current t|T)hread 0x[0-9a-f]+ .*|^Extension modules: .*"
    r"|^  File \"[^\"]*/(?:llmengine_core/worker/\w+|selectors|threading|queue)\.py\", line .*"
)


class WorkerBackend(Backend):
    """An engine driven step by step (``llmengine_core.worker.contract``); subclasses say which.

    Launch options: ``cpus``, the cores that one replica may use, and ``threads``, how many of them it computes
    on; both at least 1. By default all cores but one are asked for.
    """

    capabilities: ClassVar[Capabilities]
    """As ``BackendInfo.capabilities``; what a loaded engine lacks of it is left out in its session."""
    engine: ClassVar[str]
    """"package.module:Class" of the ``Engine``; imported by the environment's interpreter only."""
    options: ClassVar[frozenset[str]] = frozenset()
    """Launch options that it has besides, by name."""
    hang_seconds: ClassVar[float] = 300.0
    """How long a step, the reading of one prompt, or loading without progress, may take before the worker is
    taken to hang, and ended with where it hangs as the reason."""

    @abstractmethod
    def document(self, deployment: Deployment) -> Mapping[str, Any]:
        """What ``Engine.load`` is told: paths and options, JSON, no secrets. Added to it are ``threads`` and ``memory``
        (``LaunchSpec``), and what the worker itself reads: ``address``, ``key``, ``engine``, ``masker``, ``packages``,
        ``hang_seconds``.
        """

    def environment(self, deployment: Deployment) -> Mapping[str, str]:
        """What is added to the process's environment; no secrets. No network, no threads that spin."""
        return ENVIRONMENT

    def launch(self, deployment: Deployment) -> LaunchSpec:
        """One process for each replica."""
        threads = launch_threads(deployment.backend, deployment.options, self.options)
        names = [__package__, self.engine, *([deployment.masker] if deployment.masker else [])]
        worker = {
            "engine": self.engine,
            "masker": deployment.masker,
            "packages": dict(_place(name) for name in names),
            "hang_seconds": self.hang_seconds,
        }
        return LaunchSpec(
            argv=(deployment.python or sys.executable, "-I", str(Path(bootstrap.__file__))),
            env=self.environment(deployment),
            document={**self.document(deployment), **worker},
            resources=Resources(
                threads=threads,
                gpus=deployment.tensor_parallel_size if deployment.accelerator == "cuda" else 0,
            ),
            subject=deployment.subject or Path(deployment.weights).name,
            log_noise=LOG_NOISE,
        )

    async def connect(self, endpoint: Endpoint, deployment: Deployment) -> Session:
        """Asks the worker for nothing that it hasn't reported."""
        told = endpoint.facts
        lacks = frozenset(told["lacks"])
        if deployment.masker is None:
            lacks |= {"structured"}
        if not deployment.adapters:
            lacks |= {"adapters"}
        facts = SessionFacts(
            context_length=told["context_length"],
            capabilities=narrowed(self.capabilities, lacks),
            versions={**told["versions"], "weights": deployment.weights_digest},
            prompt_token_overhead=told["prompt_token_overhead"],
            longest_token=told["longest_token"],
            max_concurrent=told["max_concurrent"],
        )
        try:
            return WorkerSession(await WorkerLink.open(endpoint.address, endpoint.key), facts)
        except LinkLost as error:
            raise ServerError(f"{deployment.backend}'s worker can't be spoken to: {error}") from error


def _place(name: str) -> tuple[str, str]:
    """The top-level package, or module, of "package.module:Class", and the file that it is run from."""
    top = name.partition(":")[0].partition(".")[0]
    spec = find_spec(top)
    if spec is None or spec.origin is None:
        raise ServerError(f"{name!r} can't be found: there is no package {top!r} in this environment")
    return top, spec.origin
