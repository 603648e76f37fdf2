"""Quantizers that are wrong."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from tests.contract.mutants import Mutant

from llmengine_core.errors import BadRequestError
from llmengine_core.interfaces.quantizer import Quantizer
from llmengine_core.testing.contracts.quantizer import QuantizerContract
from llmengine_core.types.declarations import QuantizationMethod, QuantizerInfo

METHODS = (QuantizationMethod(name="half", bits=4.5), QuantizationMethod(name="quarter", bits=2.25))


class Right(Quantizer):
    """Says what the others get wrong."""

    def load_options(self, method: str, backend: str) -> Mapping[str, Any]:
        if method not in ("half", "quarter", "half-stored"):
            raise BadRequestError(f"there is no method {method!r}")
        return {"quantization_config": {"quant_method": method, "layers": ["q", "k"]}}


class NotJSON(Right):
    def load_options(self, method: str, backend: str) -> Mapping[str, Any]:
        return {**super().load_options(method, backend), "skipped": {"lm_head"}}


class NotJSONWhereStored(Right):
    def load_options(self, method: str, backend: str) -> Mapping[str, Any]:
        said = super().load_options(method, backend)
        return {**said, "dtype": float("nan")} if method == "half-stored" else said


class Aliased(Right):
    KEPT: dict[str, Mapping[str, Any]] = {}  # noqa: RUF012

    def load_options(self, method: str, backend: str) -> Mapping[str, Any]:
        return self.KEPT.setdefault(method, super().load_options(method, backend))


class AliasedWithin(Right):
    CONFIG: Mapping[str, Any] = {"quant_method": "half"}

    def load_options(self, method: str, backend: str) -> Mapping[str, Any]:
        return {"quantization_config": self.CONFIG}


class Moody(Right):
    def load_options(self, method: str, backend: str) -> Mapping[str, Any]:
        return {**super().load_options(method, backend), "seed": random.random()}


class Hashing(Right):
    def load_options(self, method: str, backend: str) -> Mapping[str, Any]:
        return {
            **super().load_options(method, backend),
            "layers": [*{f"layer {n}" for n in range(9)}],
        }


class Heavy(Right):
    def load_options(self, method: str, backend: str) -> Mapping[str, Any]:
        sys.modules.setdefault("torch", ModuleType("torch"))  # as importing it would
        return super().load_options(method, backend)


class Foreign(Right):
    def load_options(self, method: str, backend: str) -> Mapping[str, Any]:
        bits = {"half": 4, "quarter": 2, "half-stored": 4}
        return {"bits": bits[method]}


def _mutant(
    name: str,
    bug: str,
    quantizer: type[Right],
    *killers: str,
    methods: tuple[QuantizationMethod, ...] = METHODS,
) -> Mutant:
    declared = QuantizerInfo(
        name=name,
        factory=f"{quantizer.__module__}:{quantizer.__name__}",
        methods=methods,
        backends=frozenset({"transformers", "other"}),
        stored=frozenset({"half-stored"}),
    )
    about = {"subject": name, "info": classmethod(lambda cls: declared)}
    return Mutant(name, bug, type(quantizer.__name__, (QuantizerContract,), about), killers)


JSON = "test_load_options_are_json"
SAME = "test_load_options_are_always_the_same"
LIGHT = "test_load_options_need_no_engine"
MEASURED = "test_methods_are_named_and_measured"
MUTANTS: list[Mutant] = [
    _mutant("not_json", "gives a set, which no JSON holds", NotJSON, JSON),
    _mutant("not_json_where_stored", "gives NaN for a stored form", NotJSONWhereStored, JSON),
    _mutant("aliased", "gives every caller the same dictionary", Aliased, SAME),
    _mutant("aliased_within", "gives every caller the same dictionary within another", AliasedWithin, SAME),
    _mutant("moody", "draws an option by lot", Moody, SAME),
    _mutant("hashing", "lists what has another order in each process", Hashing, LIGHT),
    _mutant("heavy", "imports an engine to answer", Heavy, LIGHT),
    _mutant("foreign", "raises KeyError for a method that it hasn't", Foreign, "test_an_unknown_method_is_no_surprise"),
    _mutant("weightless", "declares a method that takes no bits", Right, MEASURED,
            methods=(QuantizationMethod(name="half", bits=0),)),
    _mutant("growing", "declares a method that takes more than a full weight", Right, MEASURED,
            methods=(QuantizationMethod(name="half", bits=64),)),
    _mutant("twice", "declares two methods of one name", Right, MEASURED,
            methods=(QuantizationMethod(name="half", bits=4), QuantizationMethod(name="half", bits=2))),
    _mutant("unspeakable", "declares a method whose name has a blank", Right, MEASURED,
            methods=(QuantizationMethod(name="half a bit", bits=4),)),
]  # fmt: skip
