"""JSON Schema, reduced to what llguidance enforces in full.

The schema that the compiler sees is written anew: every reference is local and named by a number, formats
and patterns are regular expressions in the common dialect, bounds are whole where they have to be, and no
keyword is left that one version of llguidance ignores and another obeys. What can't be said this way is
refused. Where an exact bound is out of reach but a stricter one isn't, the stricter one is taken: what then
comes out still obeys the schema.

In every draft, keywords beside a ``$ref`` hold as well; a result that obeys both is valid under any reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from llmengine_llguidance import formats, keywords, limits
from llmengine_llguidance.matcher import Matcher
from llmengine_llguidance.patterns import COMPANION, Flavour, PatternError, UnsupportedPatternError, translate
from llmengine_llguidance.reduced_schema import REFERENCE, Schema
from llmengine_llguidance.schema_document import (
    Place,
    SchemaDocument,
    SchemaError,
    UnsupportedKeywordError,
    shown,
)
from llmengine_llguidance.schema_endings import without_endless
from llmengine_llguidance.schema_exclusion import Exclusion
from llmengine_llguidance.schema_numbers import InexactNumberError, is_exact, number_range
from llmengine_llguidance.schema_shape import check_shape
from llmengine_llguidance.schema_width import check_width

__all__ = ["reduce_schema"]

_UNENFORCEABLE: Final[dict[str, Callable[[Schema], bool]]] = {
    # A keyword, and when it asks for nothing.
    "$dynamicRef": lambda schema: False,
    "$recursiveRef": lambda schema: False,
    "contains": lambda schema: schema.get("minContains") == 0 and "maxContains" not in schema,
    "dependencies": lambda schema: not schema["dependencies"],
    "dependentRequired": lambda schema: not schema["dependentRequired"],
    "dependentSchemas": lambda schema: not schema["dependentSchemas"],
    "if": lambda schema: "then" not in schema and "else" not in schema,
    "not": lambda schema: schema["not"] is False,
    "propertyNames": lambda schema: schema["propertyNames"] in (True, {}, {"type": "string"}),
    "unevaluatedItems": lambda schema: schema["unevaluatedItems"] in (True, {}),
    "unevaluatedProperties": lambda schema: schema["unevaluatedProperties"] in (True, {}),
    "uniqueItems": lambda schema: not schema["uniqueItems"] or schema.get("maxItems", 2) <= 1,
}
_ALL_TYPES: Final = [each for each in keywords.TYPES if each != "integer"]
_DECIMAL_PLACES: Final = 9
_APPLICATORS: Final = {"allOf": limits.CONJUNCTS, "anyOf": limits.OPTIONS, "oneOf": limits.EXCLUSIVE_OPTIONS}


def reduce_schema(text: str) -> Schema:
    """The JSON Schema in ``text``, reduced.

    Raises ``SchemaError`` where it is invalid, ``UnsupportedKeywordError`` where it can't be enforced.
    """
    return _Reduction(SchemaDocument(text)).run()


class _Reduction:
    def __init__(self, document: SchemaDocument) -> None:
        self._document = document
        self._names: dict[int, str] = {}
        self._pending: list[tuple[str, Place]] = []
        self._properties = 0
        self._multiples = 0
        self._alternatives: list[tuple[Schema, Place]] = []

    def run(self) -> Schema:
        root = self._schema(self._document.root)
        definitions: Schema = {}
        while self._pending:
            name, place = self._pending.pop()
            definitions[name] = self._schema(place)
        if root is False:
            raise SchemaError("nothing obeys it: it is false, or its bounds leave no number")
        check_shape(root, definitions)
        check_width(root, definitions)
        self._replace_one_of(Exclusion(definitions))
        root, definitions = without_endless(root, definitions)
        if root is False:
            raise SchemaError("nothing obeys it: what it requires is false, or holds itself without end")
        return {**root, "$defs": definitions} if definitions else root

    def _unsupported(self, keyword: str, place: Place, why: str) -> UnsupportedKeywordError:
        return UnsupportedKeywordError(f"{keyword} at {place.pointer} can't be enforced: {why}")

    def _schema(self, place: Place) -> Any:
        schema = place.value
        if isinstance(schema, bool):
            return {} if schema else False
        for keyword, asks_nothing in _UNENFORCEABLE.items():
            if keyword in schema and not asks_nothing(schema):
                raise self._unsupported(keyword, place, "no grammar can express it")
        types = self._types(schema)
        reduced: Schema = {}
        number = next((each for each in types if each in ("integer", "number")), None)
        if number is not None:
            bounds = self._number(schema, place, whole=number == "integer")
            if bounds is None:
                types.remove(number)
            else:
                reduced |= bounds
        if not types:
            return False
        if len(types) < len(_ALL_TYPES):
            reduced["type"] = types[0] if len(types) == 1 else types
        if "string" in types:
            reduced |= self._string(schema, place)
        if "array" in types:
            reduced |= self._array(schema, place)
        if "object" in types:
            reduced |= self._object(schema, place)
        return self._applicators(schema, place, reduced)

    @staticmethod
    def _types(schema: Schema) -> list[str]:
        given = schema.get("type", _ALL_TYPES)
        types = [given] if isinstance(given, str) else list(dict.fromkeys(given))
        return [each for each in types if each != "integer" or "number" not in types]

    def _applicators(self, schema: Schema, place: Place, reduced: Schema) -> Schema:
        if "$ref" in schema:
            reduced["$ref"] = self._reference(schema["$ref"], place)
        for keyword, most in _APPLICATORS.items():
            if keyword in schema:
                self._bound(keyword, place, len(schema[keyword]), most)
                reduced[keyword] = reduced.get(keyword, []) + self._children(schema[keyword])
        if "oneOf" in schema:
            self._alternatives.append((reduced, place))
        if "enum" in schema:
            self._bound("enum", place, len(schema["enum"]), limits.CHOICES)
            self._bound(
                "enum", place, sum(isinstance(each, dict | list) for each in schema["enum"]), limits.OPTIONS
            )
            reduced["enum"] = [self._value("enum", each, place) for each in schema["enum"]]
        if "const" in schema:
            reduced["const"] = self._value("const", schema["const"], place)
        return reduced

    def _replace_one_of(self, exclusion: Exclusion) -> None:
        """``anyOf`` for each ``oneOf``, where its options exclude each other."""
        for reduced, place in self._alternatives:
            overlap = exclusion.overlap(reduced["oneOf"])
            if overlap is not None:
                why = f"options {overlap[0]} and {overlap[1]} may both hold; tell them apart by type or by a required"
                raise self._unsupported("oneOf", place, f"{why} constant, or use anyOf")
        for reduced, _ in self._alternatives:
            reduced.setdefault("allOf", []).append({"anyOf": reduced.pop("oneOf")})

    def _children(self, schemas: Iterable[Any]) -> list[Any]:
        return [self._schema(self._document.child(each)) for each in schemas]

    def _child(self, schema: Any) -> Any:
        return self._schema(self._document.child(schema))

    def _bound(self, keyword: str, place: Place, size: int, most: int) -> None:
        if size > most:
            raise self._unsupported(keyword, place, f"it holds {size:,} entries; at most {most:,} are taken")

    def _reference(self, reference: str, place: Place) -> str:
        target = self._document.follow(reference, place)
        name = self._names.get(id(target.value))
        if name is None:
            name = self._names[id(target.value)] = f"d{len(self._names)}"
            self._pending.append((name, target))
        return f"{REFERENCE}{name}"

    def _value(self, keyword: str, value: Any, place: Place) -> Any:
        """A constant, where all its numbers survive as doubles."""
        if keywords.is_number(value):
            if not is_exact(value):
                raise self._unsupported(keyword, place, f"{value} is not exact as a double")
            return int(value) if value == int(value) else value
        if isinstance(value, list):
            return [self._value(keyword, each, place) for each in value]
        if isinstance(value, dict):
            return {
                self._name(keyword, name, place): self._value(keyword, each, place)
                for name, each in value.items()
            }
        return value

    def _name(self, keyword: str, name: str, place: Place) -> str:
        """The name of a property, where there is one way to spell it in JSON."""
        if any(each < " " or each == "\x7f" for each in name):
            raise self._unsupported(keyword, place, f"the name {shown(name)} holds control characters")
        return name

    # ------------------------------------------------------------------------------------------ numbers

    def _number(self, schema: Schema, place: Place, *, whole: bool) -> Schema | None:
        """What holds for numbers, or None where no number is left."""
        bounds = {
            keyword: self._bound_value(schema, keyword, place)
            for keyword in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
        }
        given = {keyword: value for keyword, value in bounds.items() if value is not None}
        if "multipleOf" in schema:
            if min(given.get("maximum", 0), given.get("exclusiveMaximum", 0)) < 0:
                raise self._unsupported("multipleOf", place, "all numbers in the range are negative")
            given["minimum"] = max(given.get("minimum", 0), 0)  # llguidance 1.0 knows no negative multiples
        try:
            reduced = number_range(given, whole=whole)
        except InexactNumberError as error:
            raise self._unsupported(error.keyword, place, str(error)) from None
        if reduced is not None and "multipleOf" in schema:
            reduced["multipleOf"] = self._multiple(schema["multipleOf"], place, whole=whole)
        return reduced

    def _bound_value(self, schema: Schema, keyword: str, place: Place) -> Any:
        value = schema.get(keyword)
        if not isinstance(value, bool):
            return value
        if not self._document.is_draft4:
            raise SchemaError(f"{keyword} at {place.pointer} has to be a number, not {shown(value)}")
        return schema.get(keyword.removeprefix("exclusive").lower()) if value else None

    def _multiple(self, value: Any, place: Place, *, whole: bool) -> Any:
        decimal = Decimal(repr(value))
        places = -min(int(decimal.as_tuple().exponent), 0)
        if decimal > limits.MULTIPLE or places > _DECIMAL_PLACES:
            raise self._unsupported("multipleOf", place, f"{value} has too many digits")
        fraction = Fraction(decimal)
        if whole:
            value, places = fraction.numerator, 0  # the integers among the multiples of 1.5 are those of 3
        self._multiples += int(Decimal(value if whole else repr(value)).scaleb(places))
        if self._multiples > limits.MULTIPLE:
            most = f"all of a schema, their points left out, may add up to {limits.MULTIPLE:,}"
            raise self._unsupported("multipleOf", place, f"{value} is too much; {most}")
        return value

    # ------------------------------------------------------------------------------------------ strings

    def _string(self, schema: Schema, place: Place) -> Schema:
        reduced = self._counts(schema, place, "minLength", "maxLength")
        patterns = []
        if "pattern" in schema:
            patterns.append(self._pattern("pattern", schema["pattern"], place))
        if "format" in schema and schema["format"] not in formats.ANNOTATIONS:
            name = schema["format"]
            if name not in formats.PATTERNS:
                known = ", ".join(formats.PATTERNS)
                raise self._unsupported(
                    "format", place, f"{shown(name)} is not among those that are: {known}"
                )
            patterns.append(f"^{formats.format_pattern(name)}$")
        if any(COMPANION in pattern for pattern in patterns):
            patterns.append(f"^[^{COMPANION}]*$")
        if patterns:
            reduced["pattern"] = patterns[0]
        if len(patterns) > 1:
            reduced["allOf"] = [{"pattern": pattern} for pattern in patterns[1:]]
        return reduced

    def _pattern(self, keyword: str, pattern: str, place: Place) -> str:
        try:
            return f"^{translate(pattern, Flavour.SEARCH)}$"
        except UnsupportedPatternError as error:
            raise self._unsupported(keyword, place, f"in {shown(pattern)}, {error}") from None
        except PatternError as error:
            message = f"{keyword} at {place.pointer}: {shown(pattern)} is no regular expression: {error}"
            raise SchemaError(message) from None

    def _counts(self, schema: Schema, place: Place, minimum: str, maximum: str) -> Schema:
        reduced: Schema = {}
        if schema.get(minimum, 0) > limits.REPETITIONS:
            raise self._unsupported(minimum, place, f"{schema[minimum]} is over {limits.REPETITIONS}")
        if schema.get(minimum):
            reduced[minimum] = int(schema[minimum])
        if maximum in schema:
            reduced[maximum] = int(min(schema[maximum], limits.REPETITIONS))
        return reduced

    # ------------------------------------------------------------------------------------------- arrays

    def _array(self, schema: Schema, place: Place) -> Schema:
        reduced = self._counts(schema, place, "minItems", "maxItems")
        prefix, items = schema.get("prefixItems"), schema.get("items")
        if isinstance(items, list):  # up to draft 2019-09
            prefix, items = items, schema.get("additionalItems")
        if prefix:
            self._bound("prefixItems", place, len(prefix), limits.OPTIONS)
            reduced["prefixItems"] = self._children(prefix)
        if items is not None:
            reduced["items"] = self._child(items)
        return reduced

    # ------------------------------------------------------------------------------------------ objects

    def _object(self, schema: Schema, place: Place) -> Schema:
        reduced = self._counts(schema, place, "minProperties", "maxProperties")
        required = list(dict.fromkeys(schema.get("required", [])))
        properties = schema.get("properties", {})
        names = list(dict.fromkeys([*properties, *required]))
        self._count_properties(len(names), place)
        if reduced.get("minProperties", 0) > len(required) + 1:
            # Additional names may repeat, and what repeats a name adds no property.
            raise self._unsupported("minProperties", place, "names may repeat beyond those that are required")
        if "patternProperties" in schema:
            reduced["patternProperties"] = self._pattern_properties(schema["patternProperties"], names, place)
        if properties:
            reduced["properties"] = {
                self._name("properties", name, place): self._child(value)
                for name, value in properties.items()
            }
        if required:
            reduced["required"] = [self._name("required", name, place) for name in required]
        if "additionalProperties" in schema:
            reduced["additionalProperties"] = self._child(schema["additionalProperties"])
        return reduced

    def _count_properties(self, count: int, place: Place) -> None:
        self._properties += count * count
        if self._properties > limits.PROPERTIES**2:
            why = f"there are too many of them; one object may name {limits.PROPERTIES:,}"
            raise self._unsupported("properties", place, why)

    def _pattern_properties(self, patterns: Schema, names: list[str], place: Place) -> Schema:
        self._bound("patternProperties", place, len(patterns), limits.SCHEMA_NAME_PATTERNS)
        reduced: Schema = {}
        for pattern, value in patterns.items():
            source = self._pattern("patternProperties", pattern, place)
            if COMPANION in source:
                raise self._unsupported(
                    "patternProperties", place, f"{shown(pattern)} names what JSON escapes"
                )
            matcher = Matcher(f"start: /{source[1:-1]}/") if names else None
            clash = next((name for name in names if matcher and matcher.accepts(name, complete=True)), None)
            if clash is not None or source in reduced:
                why = (
                    f"{shown(pattern)} also matches the property {shown(clash)}"
                    if clash
                    else "two are the same"
                )
                raise self._unsupported("patternProperties", place, why)
            reduced[source] = self._child(value)
        return reduced
