"""Guided decoders and quantizers that are right in their own ways."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import regex

from llmengine_core.errors import BadRequestError, UnsupportedFeatureError
from llmengine_core.interfaces.guided import GuidedDecoder
from llmengine_core.interfaces.quantizer import Quantizer
from llmengine_core.types.sampling import StructuredOutput, Translation
from llmengine_llguidance.decoder import LLGuidanceDecoder


class Choices(GuidedDecoder):
    """Choices only, in two dialects; nothing is kept."""

    def check(self, structured: StructuredOutput) -> None:
        if structured.kind != "choice" or not structured.value:
            raise BadRequestError(f"one of several choices is wanted, not {str(structured.value)[:50]}")

    def translate(self, structured: StructuredOutput, dialect: str) -> Translation:
        self.check(structured)
        texts = [structured.value] if isinstance(structured.value, str) else list(structured.value)
        if dialect == "list":
            return Translation(dialect, json.dumps(texts))
        if dialect == "pattern":
            return Translation(dialect, "|".join(map(regex.escape, texts)))
        raise BadRequestError(f"there is no dialect {dialect!r}")

    def verify(self, structured: StructuredOutput, text: str, *, complete: bool) -> bool:
        return any(each == text if complete else each.startswith(text) for each in structured.value)


class Patterns(GuidedDecoder):
    """Patterns only, by a matcher that backtracks and knows what automata don't; it gives up in time."""

    def check(self, structured: StructuredOutput) -> None:
        self._compiled(structured)

    def _compiled(self, structured: StructuredOutput) -> regex.Pattern[str]:
        pattern = str(structured.value)
        if structured.kind != "regex" or len(pattern) > 300:
            raise BadRequestError(f"{structured.kind} of {len(pattern):,} characters is not taken")
        if regex.search(r"\{\d{3}", pattern):
            raise UnsupportedFeatureError("counts of more than two digits can't be enforced")
        if not pattern.isprintable() and not pattern.replace("\n", "").isprintable():
            raise UnsupportedFeatureError("control characters can't be enforced")
        try:
            return regex.compile(pattern)
        except (regex.error, OverflowError, ValueError) as error:
            raise BadRequestError(f"{pattern!r} is no pattern: {error}") from None

    def translate(self, structured: StructuredOutput, dialect: str) -> Translation:
        if dialect != "python":
            raise UnsupportedFeatureError(f"{dialect!r} is not spoken")
        return Translation(dialect, self._compiled(structured).pattern)

    def verify(self, structured: StructuredOutput, text: str, *, complete: bool) -> bool:
        try:
            found = self._compiled(structured).fullmatch(text, partial=not complete, timeout=0.5)
        except TimeoutError:
            return False
        return found is not None


class StrictSchemas(LLGuidanceDecoder):
    """Closed objects only, all of their members required, and JSON without blanks."""

    def check(self, structured: StructuredOutput) -> None:
        if structured.kind != "json":
            raise BadRequestError(f"{structured.kind} is not taken")
        super().check(structured)
        _strict(json.loads(str(structured.value)))

    def verify(self, structured: StructuredOutput, text: str, *, complete: bool) -> bool:
        if not super().verify(structured, text, complete=complete):
            return False
        return not complete or text == json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))


def _strict(schema: Any) -> None:
    if isinstance(schema, dict):
        if "properties" in schema or schema.get("type") == "object":
            if schema.get("additionalProperties") is not False:
                raise UnsupportedFeatureError("additionalProperties has to be false")
            if set(schema.get("required", [])) != set(schema.get("properties", {})):
                raise UnsupportedFeatureError("required has to name all members")
        for each in schema.values():
            _strict(each)
    elif isinstance(schema, list):
        for each in schema:
            _strict(each)


class Told(Quantizer):
    """Read-only, and the same words for everything."""

    def load_options(self, method: str, backend: str) -> Mapping[str, Any]:
        return MappingProxyType({"config": None, "layers": (1, 2.5, True)})


class Silent(Quantizer):
    """For what is stored already, nothing is to be said."""

    def load_options(self, method: str, backend: str) -> Mapping[str, Any]:
        return {}
