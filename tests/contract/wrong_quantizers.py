"""Quantizers that are wrong: the subjects of mutants, light to import."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from llmengine_core.errors import BadRequestError
from llmengine_core.interfaces.quantizer import Quantizer


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
        sys.modules.setdefault(
            "unsloth", ModuleType("unsloth")
        )  # as importing it would; no test looks for this one
        return super().load_options(method, backend)


class Foreign(Right):
    def load_options(self, method: str, backend: str) -> Mapping[str, Any]:
        bits = {"half": 4, "quarter": 2, "half-stored": 4}
        return {"bits": bits[method]}
