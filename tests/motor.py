"""A plugin whose engine has environments of its own, and transforms and a quantizer that note what they are told.

Its engine answers with its prompt; an environment is any folder that looks like one (``put_environment``).
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmengine_core.environments import MANIFEST, environments_folder
from llmengine_core.hookspecs import hookimpl
from llmengine_core.interfaces.backend import Session
from llmengine_core.interfaces.guided import GuidedDecoder
from llmengine_core.interfaces.quantizer import Quantizer
from llmengine_core.interfaces.transform import Transform
from llmengine_core.testing.echo import CAPABILITIES, CONTEXT_LENGTH, EchoBackend, EchoSession
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.declarations import (
    BackendInfo,
    EnvironmentBuild,
    EnvironmentSpec,
    GuidedDecoderInfo,
    QuantizationMethod,
    QuantizerInfo,
    TransformInfo,
)
from llmengine_core.types.generation import SessionFacts
from llmengine_core.types.launch import Deployment, Endpoint
from llmengine_core.types.models import ModelCard, WeightsSource
from llmengine_core.types.progress import OnProgress, Progress
from llmengine_core.types.sampling import StructuredOutput, Translation

CONTRACT = 1
GUIDED = Capabilities(structured=frozenset({"choice"}), structured_dialect="motor")


def environment(distribution: str) -> EnvironmentSpec:
    return EnvironmentSpec(
        distribution=distribution,
        module=f"{distribution}_is_nowhere",
        builds=tuple(
            EnvironmentBuild(version=version, requirements=(f"{distribution}=={version}",))
            for version in ("2.0", "1.0")
        ),
    )


MOTOR = environment("motor")


def put_environment(home: Path, name: str, version: str = "2.0", *beside: str) -> Path:
    """An environment with the motor in it, as if it had been built; gives its interpreter."""
    folder = environments_folder(home) / name
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    manifest = {
        "engine": "motor",
        "version": version,
        "accelerator": "cpu",
        "digest": "0" * 64,
        "python_version": "3.11.7",
        "distributions": ["motor", *beside],
        "modules": ["motor"],
        "requirements": [f"motor=={version}"],
        "packages": {"motor": version, **dict.fromkeys(beside, "1.0")},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return python


class MotorSession(EchoSession):
    @property
    def facts(self) -> SessionFacts:
        return SessionFacts(CONTEXT_LENGTH, GUIDED, {"motor": "2.0"}, prompt_token_overhead=0)


class MotorBackend(EchoBackend):
    async def connect(self, endpoint: Endpoint, deployment: Deployment) -> Session:
        return MotorSession()


class Tuner(Quantizer):
    def load_options(self, method: str, backend: str) -> Mapping[str, Any]:
        return {"tuned": method, "for": backend}


class Judge(GuidedDecoder):
    def check(self, structured: StructuredOutput) -> None:
        pass

    def translate(self, structured: StructuredOutput, dialect: str) -> Translation:
        return Translation(dialect, "anything")

    def verify(self, structured: StructuredOutput, text: str, *, complete: bool) -> bool:
        return True


RUNS: list[tuple[str, str]] = []
"""The transforms that were run, each with the interpreter that it was told."""
FAILS: dict[str, BaseException] = {}
"""By transform, what it raises after a part of its work."""


class Work(Transform):
    """Wraps its source up in a folder."""

    name = "work"

    async def run(
        self, source: Path, target: Path, *, method: str | None, on_progress: OnProgress, python: str = ""
    ) -> None:
        RUNS.append((self.name, python))
        await asyncio.to_thread(self._wrap, source, target)
        on_progress(Progress(source.name, "transform", 0.5, 1.0))
        if self.name in FAILS:
            raise FAILS[self.name]

    def _wrap(self, source: Path, target: Path) -> None:
        target.mkdir()
        inner = source / "content" if source.is_dir() else source
        (target / "content").write_bytes(self.name.encode() + inner.read_bytes())


class Unpack(Work):
    name = "unpack"


class Polish(Work):
    name = "polish"


@hookimpl
def register_backends() -> list[BackendInfo]:
    return [
        BackendInfo(
            name="motor",
            factory="tests.motor:MotorBackend",
            capabilities=GUIDED,
            formats=frozenset({"block"}),
            architectures=frozenset({"echo"}),
            loads_quantized=frozenset(),
            environment=MOTOR,
            takes_masker=True,
        ),
        BackendInfo(
            name="settled",
            factory="tests.motor:MotorBackend",
            capabilities=CAPABILITIES,
            formats=frozenset({"gguf"}),
            environment=EnvironmentSpec(distribution="pytest", module="pytest"),
            remote_code=True,
        ),
    ]


@hookimpl
def register_transforms() -> list[TransformInfo]:
    return [
        TransformInfo(
            name="unpack",
            factory="tests.motor:Unpack",
            source_format="gguf",
            target_format="crate",
            environment=MOTOR,
        ),
        TransformInfo(
            name="polish", factory="tests.motor:Polish", source_format="crate", target_format="block"
        ),
    ]


@hookimpl
def register_quantizers() -> list[QuantizerInfo]:
    return [
        QuantizerInfo(
            name="tuner",
            factory="tests.motor:Tuner",
            methods=(QuantizationMethod(name="fine", bits=4),),
            backends=frozenset({"motor"}),
            environment=environment("tuner"),
        )
    ]


@hookimpl
def register_guided_decoders() -> list[GuidedDecoderInfo]:
    return [
        GuidedDecoderInfo(
            name="judge",
            factory="tests.motor:Judge",
            kinds=frozenset({"choice"}),
            dialects=frozenset({"motor"}),
            masker="judge.masker:Masker",
            environment=environment("judge"),
        )
    ]


@hookimpl
def register_models() -> list[ModelCard]:
    return [
        ModelCard(
            name="block",
            sources=(WeightsSource(url="package://llmengine_core/testing/echo.gguf", format="gguf"),),
            parameters=1,
            context_length=CONTEXT_LENGTH,
            license="Apache-2.0",
        )
    ]
