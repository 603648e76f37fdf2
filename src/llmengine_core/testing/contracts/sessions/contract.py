"""The contracts of whatever generates: all laws of sessions, and how a backend's session is had."""

from __future__ import annotations

from llmengine_core.testing.contracts.backends.ground import BackendGround
from llmengine_core.testing.contracts.sessions.answers import AnswerLaws
from llmengine_core.testing.contracts.sessions.cancelling import CancellingLaws
from llmengine_core.testing.contracts.sessions.closing import ClosingLaws
from llmengine_core.testing.contracts.sessions.concurrency import ConcurrencyLaws
from llmengine_core.testing.contracts.sessions.deadlines import DeadlineLaws
from llmengine_core.testing.contracts.sessions.facts import FactLaws
from llmengine_core.testing.contracts.sessions.logprobs import LogprobLaws
from llmengine_core.testing.contracts.sessions.machine import ProgramLaws
from llmengine_core.testing.contracts.sessions.mixing import MixedLaws
from llmengine_core.testing.contracts.sessions.sampling import SamplingLaws

__all__ = ["BackendContract", "SessionContract"]


class SessionContract(  # MixedLaws has those of stops, constraints, prompts and adapters in it
    AnswerLaws,
    FactLaws,
    SamplingLaws,
    LogprobLaws,
    MixedLaws,
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
