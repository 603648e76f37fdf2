"""The contracts of whatever generates: all laws of sessions, and how a backend's session is had."""

from __future__ import annotations

from llmengine_core.testing.contracts.adapters import AdapterLaws
from llmengine_core.testing.contracts.answers import AnswerLaws
from llmengine_core.testing.contracts.backend import BackendGround
from llmengine_core.testing.contracts.cancelling import CancellingLaws
from llmengine_core.testing.contracts.closing import ClosingLaws
from llmengine_core.testing.contracts.concurrency import ConcurrencyLaws
from llmengine_core.testing.contracts.deadlines import DeadlineLaws
from llmengine_core.testing.contracts.facts import FactLaws
from llmengine_core.testing.contracts.logprobs import LogprobLaws
from llmengine_core.testing.contracts.prompts import PromptLaws
from llmengine_core.testing.contracts.sampling import SamplingLaws
from llmengine_core.testing.contracts.session_machine import ProgramLaws
from llmengine_core.testing.contracts.stops import StopLaws
from llmengine_core.testing.contracts.structured import StructuredLaws

__all__ = ["BackendContract", "SessionContract"]


class SessionContract(
    AnswerLaws,
    StopLaws,
    FactLaws,
    SamplingLaws,
    LogprobLaws,
    StructuredLaws,
    PromptLaws,
    AdapterLaws,
    CancellingLaws,
    DeadlineLaws,
    ConcurrencyLaws,
    ClosingLaws,
    ProgramLaws,
):
    """Every session's contract: say what is ``declared``, and how one is ``shared``, and had for ``another``."""


class BackendContract(BackendGround, SessionContract):
    """Every backend's contract, on one shared session of a model that it can serve::

    class TestSample(BackendContract):
        backend = "sample"
        model = "echo"
    """
