"""What each keyword of JSON Schema asks for: schemas, with values that obey them and values that don't."""

from __future__ import annotations

from typing import Any

__all__ = ["ANNOTATED", "DEAD_ENDS", "EVERYDAY", "INVALID", "KEYWORDS", "NO_JSON", "REFERENCES", "REMOTE"]

Case = tuple[Any, list[Any], list[Any]]

KEYWORDS: dict[str, Case] = {
    "type": ({"type": "integer"}, [1], ["1", 1.5, None, True, [1]]),
    "type, several": ({"type": ["integer", "null"]}, [1, None], ["1", False]),
    "enum": ({"enum": ["red", 2, None]}, ["red", 2, None], ["blue", 3, "re", "redd", False]),
    "const": ({"const": {"a": [1]}}, [{"a": [1]}], [{"a": [2]}, {"a": []}, {}, [1]]),
    "multipleOf": ({"type": "integer", "multipleOf": 5}, [10, 0], [7, 11]),
    "maximum": ({"type": "integer", "maximum": 7}, [7, -3], [8, 70]),
    "exclusiveMaximum": ({"type": "integer", "exclusiveMaximum": 7}, [6], [7, 8]),
    "minimum": ({"type": "integer", "minimum": 7}, [7, 70], [6, -7, 0]),
    "exclusiveMinimum": ({"type": "integer", "exclusiveMinimum": 7}, [8], [7, 0]),
    "maxLength": ({"type": "string", "maxLength": 2}, ["", "é😀"], ["abc", "😀😀😀"]),
    "minLength": ({"type": "string", "minLength": 2}, ["ab", "é😀"], ["", "a", "😀"]),
    "pattern": ({"type": "string", "pattern": "^a[0-9]$"}, ["a1"], ["b1", "a", "a12", "xa1"]),
    "pattern, anywhere": ({"type": "string", "pattern": "b"}, ["b", "abc"], ["", "ac"]),
    "items": ({"type": "array", "items": {"type": "integer"}}, [[], [1, 2]], [["a"], [1, "a"]]),
    "prefixItems": ({"type": "array", "prefixItems": [{"type": "integer"}]}, [[1]], [["a"]]),
    "items after prefixItems": (
        {"type": "array", "prefixItems": [{"type": "integer"}], "items": False}, [[1]], [[1, 2]]),
    "maxItems": ({"type": "array", "items": {"type": "null"}, "maxItems": 1}, [[], [None]], [[None, None]]),
    "minItems": ({"type": "array", "items": {"type": "null"}, "minItems": 1}, [[None]], [[]]),
    "uniqueItems": ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, [[1, 2]], [[1, 1]]),
    "contains": ({"type": "array", "contains": {"const": 5}}, [[5]], [[], [4]]),
    "minContains": ({"type": "array", "contains": {"const": 5}, "minContains": 2}, [[5, 5]], [[5]]),
    "maxContains": ({"type": "array", "contains": {"const": 5}, "maxContains": 1}, [[5]], [[5, 5]]),
    "maxProperties": ({"type": "object", "maxProperties": 1}, [{}, {"a": 1}], [{"a": 1, "b": 2}]),
    "minProperties": ({"type": "object", "minProperties": 1}, [{"a": 1}], [{}]),
    "required": (
        {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}, [{"a": 1}], [{}, {"b": 1}]),
    "required, not in properties": ({"type": "object", "required": ["z"]}, [{"z": 1}], [{}, {"a": 1}]),
    "dependentRequired": (
        {"type": "object", "dependentRequired": {"a": ["b"]}}, [{}, {"a": 1, "b": 2}], [{"a": 1}]),
    "properties": ({"type": "object", "properties": {"a": {"type": "integer"}}}, [{"a": 1}, {}], [{"a": "x"}]),
    "patternProperties": (
        {"type": "object", "patternProperties": {"^n_": {"type": "integer"}}}, [{"n_a": 1}], [{"n_a": "x"}]),
    "additionalProperties": (
        {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False},
        [{}, {"a": 1}], [{"b": 1}, {"a": 1, "b": 1}]),
    "additionalProperties, a schema": (
        {"type": "object", "additionalProperties": {"type": "integer"}}, [{"a": 1}], [{"a": "x"}]),
    "propertyNames": ({"type": "object", "propertyNames": {"pattern": "^a"}}, [{"ab": 1}], [{"b": 1}]),
    "allOf": ({"allOf": [{"type": "integer"}, {"minimum": 3}, {"maximum": 5}]}, [3, 5], [2, 6, "4"]),
    "anyOf": ({"anyOf": [{"type": "integer"}, {"const": "a"}]}, [1, "a"], ["b", None]),
    "oneOf": (
        {"oneOf": [{"type": "integer", "minimum": 0}, {"type": "integer", "maximum": 5}]}, [9, -9], [3, 0]),
    "not": ({"type": "string", "not": {"const": "ab"}}, ["a"], ["ab"]),
    "if, then, else": (
        {"type": "integer", "if": {"minimum": 10}, "then": {"multipleOf": 10}, "else": {"maximum": 5}},
        [20, 5], [15, 6]),
    "dependentSchemas": (
        {"type": "object", "dependentSchemas": {"a": {"required": ["b"]}}}, [{}, {"a": 1, "b": 1}], [{"a": 1}]),
    "unevaluatedProperties": (
        {"type": "object", "properties": {"a": {"type": "integer"}}, "unevaluatedProperties": False},
        [{"a": 1}], [{"b": 1}]),
    "unevaluatedItems": (
        {"type": "array", "prefixItems": [{"type": "integer"}], "unevaluatedItems": False}, [[1]], [[1, 2]]),
    "$ref beside others": (
        {"$defs": {"n": {"type": "integer"}}, "$ref": "#/$defs/n", "minimum": 3}, [3], [2, "a"]),
    "false": ({"type": "array", "items": False}, [[]], [[1]]),
}  # fmt: skip
"""By the keyword, or what about it; all of them of draft 2020-12 that ask for something of a value."""

EVERYDAY: tuple[Any, ...] = (
    {"type": "object",
     "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "member": {"type": "boolean"}},
     "required": ["name", "age", "member"], "additionalProperties": False},
    {"type": "array", "items": {"type": "integer"}},
    {"enum": ["red", "green"]},
)  # fmt: skip
"""Schemas that each decoder of schemas enforces."""

INVALID: dict[str, str] = {
    "nothing": "",
    "no JSON": "nope",
    "broken JSON": '{"type": "object"',
    "a trailing comma": '{"type": "object",}',
    "a number": "5",
    "a list": '[{"type": "object"}]',
    "a text": '"object"',
    "an unknown type": '{"type": "strin"}',
    "a type that is no name": '{"properties": {"a": {"type": 5}}}',
    "a length that is a text": '{"items": {"minLength": "3"}}',
    "a negative length": '{"maxLength": -1}',
    "required without a list": '{"type": "object", "required": "a"}',
    "properties in a list": '{"properties": [{"type": "string"}]}',
    "items that are a number": '{"items": 3}',
    "no options": '{"anyOf": []}',
    "multiples of nothing": '{"multipleOf": 0}',
    "an enum of one number": '{"enum": 3}',
    "a pattern that isn't one": '{"type": "string", "pattern": "(ab"}',
}
"""JSON texts that are no schemas, by what is wrong with them."""

ANNOTATED: tuple[dict[str, Any], ...] = (
    {"$id": "https://example.org/schema.json"},
    {"$id": "urn:uuid:6d3f4f1c-0000-0000-0000-000000000000"},
    {"$schema": "https://json-schema.org/draft/2020-12/schema"},
    {"title": "T", "description": "D", "default": 3, "examples": [1], "$comment": "C"},
    {"deprecated": True, "readOnly": True, "writeOnly": False},
    {"$defs": {"unused": {"type": "string"}}},
)
"""What may stand beside anything and changes nothing."""

REFERENCES: dict[str, dict[str, Any]] = {
    "#/$defs/n": {"$defs": {"n": {"type": "null"}}},
    "#/definitions/n": {"definitions": {"n": {"type": "null"}}},
    "#/$defs/a~1b~0c": {"$defs": {"a/b~c": {"type": "null"}}},
    "#/$defs/a%20b": {"$defs": {"a b": {"type": "null"}}},
    "#/properties/b": {
        "properties": {"a": {"$ref": "#/properties/b"}, "b": {"type": "null"}},
        "required": ["a", "b"],
    },
    "#/$defs/one": {"$defs": {"one": {"$ref": "#/$defs/two"}, "two": {"type": "null"}}},
}
"""Local references to a schema of null, by where they stand."""

REMOTE: tuple[Any, ...] = (
    {"$ref": "{base}/schema.json"},
    {"type": "object", "properties": {"a": {"items": {"$ref": "{base}/schema.json#/$defs/x"}}}},
    {"$id": "{base}/root.json", "$ref": "other.json"},
    {"$schema": "{base}/meta.json", "$ref": "{base}/schema.json"},
    {"anyOf": [{"type": "null"}, {"$ref": "{base}/schema.json"}]},
)
"""Schemas whose references lead to a server at ``{base}``."""

NO_JSON: dict[str, tuple[str, ...]] = {
    "number": ("NaN", "Infinity", "-Infinity", "01", "1.", ".5", "+1", "0x1", "1_000", "1e", "--1", "1 2", ""),
    "boolean": ("True", "false false", "TRUE", "yes"),
    "string": ("'a'", "a", '"a', '"a\nb"', '"\\x41"', '"\\u00g0"', '"a" // said'),
    "array": ("[1,]", "[1 2]", "[,]", "[1", "[1]]", "(1,)", "[1]\n[2]"),
    "object": (
        "{'a': 1}", "{a: 1}", '{"a": 1,}', '{"a": 1} x', '{"a": 1}{"a": 1}', '{"a" 1}', '{"a"}', "{1: 1}",
        '```json\n{"a": 1}\n```', 'Sure: {"a": 1}', '\ufeff{"a": 1}', '{"a": 1 /* b */}',
    ),
}  # fmt: skip
"""By the type that a schema asks for, texts that only look like JSON of it."""

DEAD_ENDS: tuple[tuple[Any, tuple[str, ...]], ...] = (
    ({"type": "integer"}, ('"', "a", "[", "{", "-x", "tru")),
    ({"type": "object"}, ("[", '"', "1", "{1", "{]", '{"a" 1')),
    ({"type": "boolean"}, ("trx", "nul", '"t')),
    ({"enum": ["red", "green"]}, ('"bl', '"red!', "red")),
    ({"const": 12}, ("2", "13", "123")),
    ({"type": "string", "maxLength": 2}, ('"abc', "1")),
    ({"type": "array", "items": {"type": "integer"}, "maxItems": 2}, ('["', "[1, 2, 3", "[1, 2,", "[]]")),
    ({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False},
     ('{"b"', '{"a": "', "{}", '{"a": 1, "b')),
)  # fmt: skip
"""Schemas, and texts that begin nothing which they allow."""
