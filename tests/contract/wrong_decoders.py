"""Guided decoders that are wrong: the subjects of mutants, light to import."""

from __future__ import annotations

import json
import re
import threading
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar

from llmengine_core.errors import BadRequestError, LLMEngineError, UnsupportedFeatureError
from llmengine_core.types.sampling import StructuredKind, StructuredOutput, Translation
from llmengine_llguidance.decoder import LLGuidanceDecoder

ANYTHING: Mapping[StructuredKind, str | tuple[str, ...]] = {
    "json": "{}", "regex": "(?s).*", "choice": ("",), "grammar": 'start: "a"'}  # fmt: skip


class Wrong(LLGuidanceDecoder):
    """Right still: it asks about what ``altered`` makes of a constraint."""

    def altered(self, structured: StructuredOutput) -> StructuredOutput:
        return structured

    def check(self, structured: StructuredOutput) -> None:
        super().check(self.altered(structured))

    def translate(self, structured: StructuredOutput, dialect: str) -> Translation:
        return super().translate(self.altered(structured), dialect)

    def verify(self, structured: StructuredOutput, text: str, *, complete: bool) -> bool:
        return super().verify(self.altered(structured), text, complete=complete)


class Schemas(Wrong):
    """Alters schemas."""

    def altered(self, structured: StructuredOutput) -> StructuredOutput:
        if structured.kind != "json":
            return structured
        with suppress(ValueError):
            return StructuredOutput("json", json.dumps(self.schema(json.loads(str(structured.value)))))
        return structured

    def schema(self, schema: Any) -> Any:
        if isinstance(schema, list):
            return [self.schema(each) for each in schema]
        if isinstance(schema, dict):
            return self.keywords({name: self.schema(each) for name, each in schema.items()})
        return schema

    def keywords(self, schema: dict[str, Any]) -> dict[str, Any]:
        return schema


class Blind(Wrong):
    def check(self, structured: StructuredOutput) -> None:
        pass

    def translate(self, structured: StructuredOutput, dialect: str) -> Translation:
        return Translation(dialect, str(structured.value))

    def verify(self, structured: StructuredOutput, text: str, *, complete: bool) -> bool:
        return True


class Dropping(Schemas):
    dropped: ClassVar[str]

    def keywords(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {name: each for name, each in schema.items() if name != self.dropped}


class DropsNot(Dropping):
    dropped = "not"


class DropsUniqueItems(Dropping):
    dropped = "uniqueItems"


class DropsRequired(Dropping):
    dropped = "required"


class DropsAdditional(Dropping):
    dropped = "additionalProperties"


class DropsReferences(Dropping):
    dropped = "$ref"


class RequiresAll(Schemas):
    def keywords(self, schema: dict[str, Any]) -> dict[str, Any]:
        if isinstance(schema.get("properties"), dict):
            return {**schema, "required": [*schema["properties"]]}
        return schema


class ObjectsOnly(Wrong):
    def verify(self, structured: StructuredOutput, text: str, *, complete: bool) -> bool:
        if structured.kind == "json" and text.strip() and not text.lstrip().startswith("{"):
            return False
        return super().verify(structured, text, complete=complete)


class Lenient(Wrong):
    """Reads JSON as Python's reader does where nobody asks it for more."""

    def verify(self, structured: StructuredOutput, text: str, *, complete: bool) -> bool:
        if structured.kind == "json" and complete:
            with suppress(ValueError):
                text = json.dumps(json.loads(text, parse_constant=lambda _: 0, strict=False))
        return super().verify(structured, text, complete=complete)


class Mute(Wrong):
    """Can't say in its dialect what it checks."""

    def translate(self, structured: StructuredOutput, dialect: str) -> Translation:
        if structured.kind == "grammar":
            raise UnsupportedFeatureError("grammars are not translated")
        return super().translate(structured, dialect)


class Constant(Wrong):
    def translate(self, structured: StructuredOutput, dialect: str) -> Translation:
        return super().translate(StructuredOutput("regex", "(?s).*"), dialect)


class Strict(Schemas):
    def check(self, structured: StructuredOutput) -> None:
        if structured.kind == "json" and re.search(
            r'"(title|examples|\$id|readOnly)":', str(structured.value)
        ):
            raise BadRequestError("the schema has a keyword that is not known")
        super().check(structured)


class Unable(Wrong):
    def check(self, structured: StructuredOutput) -> None:
        super().check(structured)
        raise UnsupportedFeatureError("'type', 'enum' and whatever else there is can't be enforced")


class Fetching(Schemas):
    def keywords(self, schema: dict[str, Any]) -> dict[str, Any]:
        if str(schema.get("$ref", "")).startswith("http"):
            with urllib.request.urlopen(schema["$ref"], timeout=2) as answer:
                return dict(json.load(answer))
        return schema


class Searching(Wrong):
    def verify(self, structured: StructuredOutput, text: str, *, complete: bool) -> bool:
        if structured.kind == "regex" and complete:
            return re.search(str(structured.value), text) is not None
        return super().verify(structured, text, complete=complete)


class DotAll(Wrong):
    def altered(self, structured: StructuredOutput) -> StructuredOutput:
        with suppress(TypeError, LLMEngineError):
            if structured.kind == "regex":
                LLGuidanceDecoder.check(self, structured)
                return StructuredOutput("regex", "(?s)" + str(structured.value))
        return structured


class NeverPruning(Wrong):
    def verify(self, structured: StructuredOutput, text: str, *, complete: bool) -> bool:
        return not complete or super().verify(structured, text, complete=True)


class Easy(Wrong):
    """A beginning is enough."""

    def verify(self, structured: StructuredOutput, text: str, *, complete: bool) -> bool:
        return super().verify(structured, text, complete=False)


class WholeOnly(Wrong):
    def verify(self, structured: StructuredOutput, text: str, *, complete: bool) -> bool:
        return super().verify(structured, text, complete=complete or structured.kind in ("choice", "json"))


class Stripping(Wrong):
    def verify(self, structured: StructuredOutput, text: str, *, complete: bool) -> bool:
        return super().verify(structured, text.strip() if complete else text, complete=complete)


class Trusting(Wrong):
    """What doesn't compile is taken for anything at all."""

    def altered(self, structured: StructuredOutput) -> StructuredOutput:
        try:
            LLGuidanceDecoder.check(self, structured)
        except UnsupportedFeatureError:
            pass
        except BadRequestError:
            return StructuredOutput(structured.kind, ANYTHING[structured.kind])
        return structured


class Speechless(Wrong):
    def check(self, structured: StructuredOutput) -> None:
        try:
            super().check(structured)
        except UnsupportedFeatureError:
            raise
        except BadRequestError:
            raise BadRequestError("the constraint is invalid") from None


class LarkOnly(Wrong):
    def check(self, structured: StructuredOutput) -> None:
        if structured.kind == "grammar" and "::=" in str(structured.value):
            raise BadRequestError("this is no Lark grammar: ':' is missing")
        super().check(structured)


class OnePerKind(Wrong):
    """What was compiled is kept by its kind."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[str, StructuredOutput] = {}

    def check(self, structured: StructuredOutput) -> None:
        super().check(structured)
        self._kept[structured.kind] = structured

    def altered(self, structured: StructuredOutput) -> StructuredOutput:
        return self._kept.get(structured.kind, structured)


class Racing(Wrong):
    """What is asked about is kept where the next thread finds it."""

    def verify(self, structured: StructuredOutput, text: str, *, complete: bool) -> bool:
        self._asked = structured
        threading.Event().wait(1e-5)
        return super().verify(self._asked, text, complete=complete)


class Mislabelled(Wrong):
    def translate(self, structured: StructuredOutput, dialect: str) -> Translation:
        return Translation("lark", super().translate(structured, dialect).text)


class AnyDialect(Wrong):
    def translate(self, structured: StructuredOutput, dialect: str) -> Translation:
        return Translation(dialect, super().translate(structured, "llguidance").text)


class Raising(Wrong):
    """The compiler's errors go through."""

    def altered(self, structured: StructuredOutput) -> StructuredOutput:
        try:
            LLGuidanceDecoder.check(self, structured)
        except UnsupportedFeatureError:
            pass
        except BadRequestError as error:
            raise ValueError(str(error)) from error
        return structured


class Exploding(Wrong):
    """A bomb is spelled out: CPU time without end."""

    def check(self, structured: StructuredOutput) -> None:
        counts = [int(each) for each in re.findall(r"\{([0-9]+)\}", str(structured.value))]
        for _ in range(min(counts, default=0) ** len(counts)):
            pass
        super().check(structured)


class Backtracking(Wrong):
    def verify(self, structured: StructuredOutput, text: str, *, complete: bool) -> bool:
        if structured.kind == "regex" and complete:
            return re.fullmatch(str(structured.value), text) is not None
        return super().verify(structured, text, complete=complete)
