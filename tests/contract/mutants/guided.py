"""Guided decoders that are wrong."""

from __future__ import annotations

import json
import re
import threading
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar

from tests.contract.mutants import Mutant

from llmengine_core.errors import BadRequestError, LLMEngineError, UnsupportedFeatureError
from llmengine_core.testing.contracts.guided import GuidedDecoderContract
from llmengine_core.types.declarations import GuidedDecoderInfo
from llmengine_core.types.sampling import StructuredKind, StructuredOutput, Translation
from llmengine_llguidance.decoder import LLGuidanceDecoder

KINDS: frozenset[StructuredKind] = frozenset({"json", "regex", "choice", "grammar"})
ANYTHING: Mapping[StructuredKind, str | tuple[str, ...]] = {
    "json": "{}", "regex": "(?s).*", "choice": ("",), "grammar": 'start: "a"'}  # fmt: skip
INVALID = (
    "test_c03_json_an_invalid_schema_is_refused",
    "test_c03_regex_an_invalid_pattern_is_refused",
    "test_c03_choice_of_nothing_is_refused",
    "test_c03_grammar_an_invalid_one_is_refused",
)
MEANT = (
    "test_c03_json_what_does_not_obey_is_refused",
    "test_c03_regex_means_the_whole_text",
    "test_c03_choice_means_one_of_them",
    "test_c03_grammar_means_its_language",
)


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
        if structured.kind == "json":
            raise UnsupportedFeatureError("'type', 'enum' and whatever else there is can't be enforced")
        if structured.kind != "choice":
            raise UnsupportedFeatureError("it can't be enforced")


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


def _mutant(
    name: str,
    bug: str,
    decoder: type[Wrong],
    *killers: str,
    shipped: str = "",
    kinds: frozenset[StructuredKind] = KINDS,
) -> Mutant:
    declared = GuidedDecoderInfo(
        name=name,
        factory=f"{decoder.__module__}:{decoder.__name__}",
        kinds=kinds,
        dialects=frozenset({"llguidance"}),
    )
    about = {
        "subject": name,
        "info": classmethod(lambda cls: declared),
        "answering_seconds": 0.3,
        "patience": 20.0,
    }
    return Mutant(name, bug, type(decoder.__name__, (GuidedDecoderContract,), about), killers, shipped)


MUTANTS: list[Mutant] = [
    _mutant(
        "blind", "checks nothing, and says yes to every text", Blind, *INVALID, *MEANT,
        "test_c03_json_combined_keywords_hold", "test_c03_json_a_dead_end_is_refused_at_once",
        shipped="vllm-project/vllm#53975",
    ),
    _mutant("drops_not", "drops the keyword not", DropsNot, "test_c03_json_no_keyword_is_ignored"),
    _mutant("drops_unique_items", "drops the keyword uniqueItems", DropsUniqueItems,
            "test_c03_json_no_keyword_is_ignored"),
    _mutant("drops_required", "drops the keyword required", DropsRequired, "test_c03_json_no_keyword_is_ignored"),
    _mutant("drops_additional", "lets any further member pass", DropsAdditional, "test_c03_json_no_keyword_is_ignored"),
    _mutant("drops_references", "takes a $ref for anything", DropsReferences,
            "test_c03_json_local_references_are_followed"),
    _mutant("requires_all", "requires all members that a schema describes", RequiresAll,
            "test_c03_json_what_obeys_is_accepted"),
    _mutant("strict", "refuses annotations as unknown keywords", Strict, "test_c03_json_annotations_change_nothing"),
    _mutant("unable", "can enforce next to nothing of what it declares", Unable,
            "test_c03_json_everyday_schemas_are_enforced", "test_c03_regex_everyday_patterns_are_enforced",
            "test_c03_grammar_both_notations_are_enforced"),
    _mutant("fetching", "fetches remote references", Fetching, "test_c03_json_remote_references_are_never_fetched"),
    _mutant("searching", "searches for a pattern instead of matching all", Searching,
            "test_c03_regex_means_the_whole_text"),
    _mutant("dot_all", "lets a dot match a line end", DotAll, "test_c03_regex_no_construct_is_ignored"),
    _mutant("never_pruning", "takes anything for a beginning", NeverPruning,
            "test_c03_json_a_dead_end_is_refused_at_once", *MEANT[1:]),
    _mutant("easy", "takes a beginning for the whole", Easy, *MEANT),
    _mutant("whole_only", "takes only the whole for a beginning", WholeOnly,
            "test_c03_what_is_accepted_is_accepted_so_far"),
    _mutant("stripping", "strips a text before it is judged", Stripping, *MEANT[1:]),
    _mutant("trusting", "takes what doesn't compile for no constraint", Trusting, *INVALID),
    _mutant("speechless", "gives the same reason whatever is wrong", Speechless, INVALID[0], INVALID[1], INVALID[3]),
    _mutant("lark_only", "takes grammars of one notation only", LarkOnly,
            "test_c03_grammar_both_notations_are_enforced"),
    _mutant("one_per_kind", "keeps one compiled constraint of each kind", OnePerKind,
            "test_order_of_calls_makes_no_difference"),
    _mutant("racing", "keeps what is asked about in an attribute", Racing, "test_many_threads_share_one_decoder"),
    _mutant("mislabelled", "names another dialect than it was asked for", Mislabelled,
            "test_c03_translates_into_each_declared_dialect"),
    _mutant("any_dialect", "calls its translation whatever it is asked for", AnyDialect,
            "test_c03_another_dialect_is_refused"),
    _mutant("raising", "lets the compiler's errors through", Raising, "test_c03_errors_are_ours"),
    _mutant("undeclared", "takes kinds that it doesn't declare", Wrong, "test_c03_an_undeclared_kind_is_refused",
            kinds=frozenset({"json"})),
    _mutant("exploding", "spells counted repetitions out", Exploding, "test_c03_a_constraint_of_any_size_is_answered"),
    _mutant("backtracking", "matches patterns by backtracking", Backtracking,
            "test_c03_a_text_of_any_size_is_judged"),
]  # fmt: skip
