"""The toy under the kit, with everything declared: what mutants are made of."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar

from llmengine_core.interfaces.backend import Session
from llmengine_core.interfaces.guided import GuidedDecoder
from llmengine_core.testing.contracts.sessions.contract import SessionContract
from llmengine_core.testing.toy import CAPABILITIES, ToySession
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.sampling import StructuredOutput
from llmengine_llguidance.decoder import LLGuidanceDecoder

_folder = Path(tempfile.mkdtemp(prefix="toy-adapters-"))
atexit.register(shutil.rmtree, _folder, ignore_errors=True)
_decoder = LLGuidanceDecoder()


def _adapter(name: str) -> str:
    (_folder / name).mkdir()
    (_folder / name / "adapter").write_text(name)
    return str(_folder / name)


ADAPTERS = {"one": _adapter("one"), "two": _adapter("two")}


class ToyContract(SessionContract):
    """Of ``session``, a kind of toy."""

    subject = "toy"
    session_type: ClassVar[type[ToySession]] = ToySession
    capabilities_declared: ClassVar[Capabilities] = CAPABILITIES
    adapters = ADAPTERS

    @classmethod
    def declared(cls) -> Capabilities:
        return cls.capabilities_declared

    @classmethod
    def made(cls) -> ToySession:
        """A fresh toy."""
        return cls.session_type(cls.capabilities_declared, decoder=_decoder)

    @classmethod
    @asynccontextmanager
    async def shared(cls) -> AsyncIterator[Session]:
        async with cls.made() as session:
            yield session

    @asynccontextmanager
    async def another(self) -> AsyncIterator[Session]:
        async with self.made() as session:
            yield session

    def checker(self, structured: StructuredOutput) -> GuidedDecoder:
        return _decoder
