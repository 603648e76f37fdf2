"""No law raises a false alarm about guided decoders and quantizers that are right in their own ways."""

from __future__ import annotations

from typing import ClassVar

import pytest
from tests.contract.unusual_subjects import Choices, Patterns, Silent, StrictSchemas, Told

from llmengine_core.interfaces.guided import GuidedDecoder
from llmengine_core.testing.contracts.guided.contract import GuidedDecoderContract
from llmengine_core.testing.contracts.quantizer import QuantizerContract
from llmengine_core.testing.laws import Contract
from llmengine_core.testing.profiles import PROFILE_VARIABLE
from llmengine_core.testing.verdicts import run_contract
from llmengine_core.types.declarations import GuidedDecoderInfo, QuantizationMethod, QuantizerInfo
from llmengine_core.types.sampling import StructuredKind


class Unusual(GuidedDecoderContract):
    made_by: ClassVar[type[GuidedDecoder]] = Choices
    kinds: ClassVar[frozenset[StructuredKind]] = frozenset({"json", "regex", "choice", "grammar"})
    dialects: ClassVar[frozenset[str]] = frozenset({"llguidance"})

    @classmethod
    def info(cls) -> GuidedDecoderInfo:
        factory = f"{cls.made_by.__module__}:{cls.made_by.__name__}"
        return GuidedDecoderInfo(name="unusual", factory=factory, kinds=cls.kinds, dialects=cls.dialects)


class ChoicesContract(Unusual):
    made_by = Choices
    kinds = frozenset({"choice"})
    dialects = frozenset({"list", "pattern"})


class PatternsContract(Unusual):
    made_by = Patterns
    kinds = frozenset({"regex"})
    dialects = frozenset({"python"})


class StrictSchemasContract(Unusual):
    made_by = StrictSchemas
    kinds = frozenset({"json"})


class ToldContract(QuantizerContract):
    @classmethod
    def info(cls) -> QuantizerInfo:
        methods = (QuantizationMethod(name="W4A16.g128-sym", bits=0.5), QuantizationMethod(name="8", bits=32))
        return QuantizerInfo(
            name="told",
            factory=f"{Told.__module__}:Told",
            methods=methods,
            backends=frozenset({"transformers"}),
        )


class SilentContract(QuantizerContract):
    @classmethod
    def info(cls) -> QuantizerInfo:
        return QuantizerInfo(
            name="silent",
            factory=f"{Silent.__module__}:Silent",
            methods=(),
            backends=frozenset({"transformers"}),
            stored=frozenset({"gptq", "awq"}),
        )


@pytest.mark.parametrize(
    "contract",
    [
        ChoicesContract,
        PatternsContract,
        StrictSchemasContract,
        ToldContract,
        SilentContract,
    ],
)
def test_what_is_right_in_its_own_way_keeps_its_contract(
    contract: type[Contract], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PROFILE_VARIABLE, "smoke")
    assert [verdict for verdict in run_contract(contract) if verdict.outcome == "failed"] == []
