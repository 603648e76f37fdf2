from __future__ import annotations

import json
import random
from typing import Any

import pytest
from byte_matchers import MATCHERS, EmbeddedMatcher, accepts, random_text
from hypothesis import given
from hypothesis import strategies as st

from llmengine_core.errors import BadRequestError, UnsupportedFeatureError
from llmengine_core.testing.checkers import legal
from llmengine_core.testing.strategies import any_schemas, json_values, numeric_schemas
from llmengine_core.testing.strategies.schemas import NAMES
from llmengine_core.types.sampling import StructuredOutput
from llmengine_llguidance.decoder import LLGuidanceDecoder

SCHEMAS = any_schemas(formats=["date", "ipv4", "uuid", "email", "ipv6"])
VALUES = json_values()
SCALARS = VALUES.filter(lambda value: not isinstance(value, list | dict))


def constrained(schema: Any) -> StructuredOutput:
    return StructuredOutput("json", json.dumps(schema))


def spaced(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


# ------------------------------------------------------------------------------------------------ soundness


@given(schema=SCHEMAS | numeric_schemas(), seed=st.integers(0, 2**32))
def test_c03_what_a_schema_lets_through_is_valid(decoder: LLGuidanceDecoder, schema: Any, seed: int) -> None:
    """Texts are drawn from both matchers, so that whatever either would let an engine write is judged."""
    constraint = constrained(schema)
    try:
        engine = decoder.translate(constraint, "llguidance").text
    except BadRequestError:
        return
    choices = random.Random(seed)
    for name, matcher in MATCHERS.items():
        for _ in range(3):
            start = matcher(engine)
            assert start.error == "", name
            text = random_text(start, choices)
            if text is not None:
                assert decoder.verify(constraint, text[: choices.randint(0, len(text))], complete=False), (
                    name,
                    text,
                )
                assert decoder.verify(constraint, text, complete=True) == legal(constrained(schema), text), (
                    name,
                    text,
                )


# --------------------------------------------------------------------------------------------- completeness


@given(value=VALUES)
def test_c03_constants_of_any_shape(decoder: LLGuidanceDecoder, value: Any) -> None:
    for schema in ({"const": value}, {"enum": [[value], value]}):
        constraint = constrained(schema)
        engine = EmbeddedMatcher(decoder.translate(constraint, "llguidance").text)
        assert accepts(engine, spaced(value)) == (True, True)
        for text in (spaced(value), json.dumps(value, indent=1), json.dumps(value, separators=(",", ":"))):
            assert decoder.verify(constraint, text, complete=True)


@given(
    fields=st.dictionaries(st.sampled_from(NAMES), SCALARS, max_size=4),
    extra=st.dictionaries(st.sampled_from(["z", "zz"]), VALUES, max_size=2),
    data=st.data(),
)
def test_c03_properties_in_their_order(
    decoder: LLGuidanceDecoder, fields: dict[str, Any], extra: dict[str, Any], data: st.DataObject
) -> None:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
    required = data.draw(st.lists(st.sampled_from(sorted(fields)), unique=True)) if fields else []
    schema = {
        "type": "object",
        "properties": {name: {"type": kinds[type(value)]} for name, value in fields.items()},
        "required": required,
    }
    given_fields = {
        name: value for name, value in fields.items() if name in required or data.draw(st.booleans())
    }
    text = spaced({**given_fields, **extra})
    assert legal(constrained(schema), text)
    assert decoder.verify(constrained(schema), text, complete=True)
    assert accepts(EmbeddedMatcher(decoder.translate(constrained(schema), "llguidance").text), text) == (
        True,
        True,
    )


EVERYDAY: list[tuple[Any, list[Any], list[Any]]] = [
    (True, [1, "a", None, [{"a": 1}]], []),
    ({}, [1, "a", None, [{"a": 1}]], []),
    ({"type": ["string", "null"], "minLength": 2}, ["ab", None], ["a", 1]),
    ({"type": "integer", "minimum": -3, "exclusiveMaximum": 2.5}, [-3, 0, 2], [-4, 3, 1.5]),
    ({"type": "integer", "maximum": 2**63 - 1}, [0, 2**53 - 1, -(10**20)], []),
    ({"type": "number", "multipleOf": 0.25}, [0.25, 3], [0.3]),
    ({"type": "integer", "multipleOf": 1.5, "exclusiveMinimum": 0, "maximum": 6}, [3, 6], [0, 2, 9]),
    ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}, [0.5, 0.1, 0.001], [0, 0.51, -0.1]),
    ({"type": "number", "exclusiveMaximum": 0}, [-0.5, -3], [0, 1]),
    ({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2},
     [[1], [1, 2]], [[], [1, 2, 3], ["a"]]),
    ({"prefixItems": [{"type": "integer"}], "items": False}, [[1], []], [["a"], [1, 2]]),
    ({"items": [{"type": "integer"}], "additionalItems": False}, [[1], []], [["a"], [1, 2]]),
    ({"enum": [1, "1", None, [], {"a": 1.5}]}, [1, "1", None, [], {"a": 1.5}], [2, {"a": 1}, [1]]),
    ({"$defs": {"n": {"type": "null"}}, "anyOf": [{"$ref": "#/$defs/n"}, {"type": "integer"}]}, [None, 3], ["a"]),
    ({"type": "object", "patternProperties": {"^n_": {"type": "integer"}}, "additionalProperties": False},
     [{}, {"n_a": 1, "n_b": 2}], [{"n_a": "x"}, {"m": 1}]),
    ({"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1}, [{"a": 1}], [{}, {"a": "x"}]),
    ({"properties": {"a": {"const": 1}}, "allOf": [{"properties": {"b": {"const": 2}}, "required": ["b"]}]},
     [{"a": 1, "b": 2}, {"b": 2}, "no object"], [{"a": 1}, {"a": 2, "b": 2}]),
    ({"type": "object", "properties": {"next": {"$ref": "#"}}, "additionalProperties": False},
     [{}, {"next": {"next": {}}}], [{"next": 1}, {"next": {"next": None}}]),
    ({"type": "array", "prefixItems": [True, {"$ref": "#/$defs/endless"}],
      "$defs": {"endless": {"type": "array", "items": {"$ref": "#/$defs/endless"}, "minItems": 1}}},
     [[], [1]], [[1, []]]),
    ({"not": False, "uniqueItems": False, "if": True, "dependentRequired": {}, "unevaluatedProperties": True},
     [1, [1, 1]], []),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "legal", "illegal"), EVERYDAY)
def test_c03_everyday_schemas(
    decoder: LLGuidanceDecoder, schema: Any, legal: list[Any], illegal: list[Any]
) -> None:
    constraint = constrained(schema)
    engine = decoder.translate(constraint, "llguidance").text
    for value in legal:
        assert decoder.verify(constraint, spaced(value), complete=True)
        assert accepts(EmbeddedMatcher(engine), spaced(value)) == (True, True)
    for value in illegal:
        assert not decoder.verify(constraint, spaced(value), complete=True)
        assert not accepts(EmbeddedMatcher(engine), spaced(value))[1]


CAT = {
    "properties": {"kind": {"const": "cat"}, "friend": {"$ref": "#/$defs/pet"}},
    "required": ["kind"],
    "type": "object",
}
DOG = {"properties": {"kind": {"enum": ["dog", "wolf"]}}, "required": ["kind"], "type": "object"}


@pytest.mark.parametrize(
    ("options", "legal"),
    [
        ([{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}], {"kind": "cat", "friend": {"kind": "wolf"}}),
        ([{"$ref": "#/$defs/cat"}, {"type": "null"}], None),
        ([{"const": 1}, {"const": 2}, {"enum": ["a", None]}], 2),
        ([{"type": ["integer", "string"]}, {"anyOf": [{"type": "null"}, {"type": "boolean"}]}], "x"),
        (
            [{"allOf": [{"$ref": "#/$defs/cat"}, {"required": ["friend"]}]}, {"$ref": "#/$defs/dog"}],
            {"kind": "dog"},
        ),
    ],
)
def test_c03_options_that_exclude_each_other_are_one_of(
    decoder: LLGuidanceDecoder, options: list[Any], legal: Any
) -> None:
    pet = {
        "oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}],
        "discriminator": {"propertyName": "kind"},
    }
    schema = {"oneOf": options, "$defs": {"cat": CAT, "dog": DOG, "pet": pet}}
    assert decoder.verify(constrained(schema), json.dumps(legal), complete=True)
    engine = EmbeddedMatcher(decoder.translate(constrained(schema), "llguidance").text)
    assert accepts(engine, json.dumps(legal)) == (True, True)


def test_c03_json_is_judged_in_any_spelling(decoder: LLGuidanceDecoder) -> None:
    schema = constrained(
        {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}}
    )
    for text in ('{"a":1}', '{ "a" : 1 ,\n\t"b": "\\u00e9\\/" }', '{"a": 1, "z": 2, "z": 3}'):
        assert decoder.verify(schema, text, complete=True)
    # Names are the same however they are spelled, and the last of two counts.
    for text in (
        '{"\\u0061": "x"}',
        '{"a": 1, "\\u0061": "x"}',
        '{"a": 1,}',
        "{'a': 1}",
        '{"a": 1} x',
        '{"a": NaN}',
        "",
    ):
        assert not decoder.verify(schema, text, complete=True)
    assert decoder.verify(schema, '{"z\\/": 1, "y', complete=False)
    assert not decoder.verify(schema, '{"a": "', complete=False)


def test_json_is_spaced_in_one_way_while_it_is_generated(decoder: LLGuidanceDecoder) -> None:
    engine = decoder.translate(constrained({"type": "object"}), "llguidance").text
    assert accepts(EmbeddedMatcher(engine), '{"a": [1, 2], "b": {}}') == (True, True)
    for text in ('{ "a"', '{"a" :', '{"a":  ', '{"a": 1 ', '{"a": 1,  ', "{\n"):
        assert accepts(EmbeddedMatcher(engine), text) == (False, False)


FORMATS = {
    "date": (["2024-02-29", "2000-02-29", "0400-02-29", "2023-12-31"],
             ["2023-02-29", "1900-02-29", "2023-04-31", "0000-01-01"]),
    "date-time": (["2024-02-29T23:59:59Z", "2023-01-01T00:00:00.25+01:30"],
                  ["2023-01-01 00:00:00Z", "2023-01-01T24:00:00Z"]),
    "time": (["00:00:00Z", "23:59:59.999-11:00"], ["24:00:00Z", "10:00:60Z", "10:00:00"]),
    "duration": (["P1D", "PT1H30M", "P1Y2M3DT4H5M6S", "P2W"], ["P", "PT", "P1DT", "P1W1D", "1D"]),
    "email": (["a@b", "a.b+c@d-e.com"], ["a", "a@", "@b", "a..b@c", "a b@c"]),
    "hostname": (["a", "a-b.c", "x" * 63], ["-a", "a-", "a..b", "x" * 64, "a_b"]),
    "ipv4": (["0.0.0.0", "255.255.255.255"], ["256.0.0.1", "01.0.0.1", "1.1.1"]),
    "ipv6": (["::", "::1", "1:2:3:4:5:6:7:8", "1::8", "1:2::"], [":::", "1::2::3", "1:2:3:4:5:6:7:8:9", "g::"]),
    "json-pointer": (["", "/a/b", "/~0~1"], ["a", "/~2"]),
    "uri": (["http://a.b/c?d#e", "mailto:a@b", "urn:x:y", "http://1.2.3.4:80"], ["a", "//a", "http://a b", "http://%zz"]),
    "uuid": (["123e4567-e89b-12d3-A456-426614174000"], ["123e4567e89b12d3a456426614174000", "x"]),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_c03_formats_are_enforced(decoder: LLGuidanceDecoder, name: str) -> None:
    constraint = constrained({"type": "string", "format": name})
    engine = decoder.translate(constraint, "llguidance").text
    for right, texts in zip((True, False), FORMATS[name], strict=True):
        for text in texts:
            assert decoder.verify(constraint, json.dumps(text), complete=True) == right, text
            assert accepts(EmbeddedMatcher(engine), json.dumps(text))[1] == right, text


# ------------------------------------------------------------------------------------- annotations, references


@pytest.mark.parametrize(
    "extra",
    [
        {"$id": "https://example.org/schema.json"},
        {"$id": "urn:uuid:6d3f4f1c-0000-0000-0000-000000000000"},
        {"$schema": "https://json-schema.org/draft/2020-12/schema"},
        {"$schema": "http://json-schema.org/draft-07/schema#"},
        {"$schema": "https://example.org/own-dialect"},
        {"title": "T", "description": "D", "default": 3, "examples": [1], "$comment": "C"},
        {"deprecated": True, "readOnly": True, "writeOnly": False, "contentMediaType": "text/plain"},
        {"x-guidance": {"lenient": True, "whitespace_flexible": True}, "nullable": True, "minLenght": 3},
        {
            "$vocabulary": {"https://example.org/v": True},
            "$anchor": "here",
            "definitions": {"unused": {"not": {}}},
        },
    ],
)
def test_c03_annotations_and_unknown_keywords_change_nothing(
    decoder: LLGuidanceDecoder, extra: dict[str, Any]
) -> None:
    plain = {"type": "integer", "minimum": 3}
    assert decoder.translate(constrained({**extra, **plain}), "llguidance") == decoder.translate(
        constrained(plain), "llguidance"
    )


@pytest.mark.parametrize(
    ("reference", "schema"),
    [
        ("#/$defs/a~1b~0c", {"$defs": {"a/b~c": {"type": "null"}}}),
        ("#/$defs/a%25%20b", {"$defs": {"a% b": {"type": "null"}}}),
        ("#/definitions/0/x", {"definitions": {"0": {"x": {"type": "null"}}}}),
        ("#/components/schemas/N", {"components": {"schemas": {"N": {"type": "null"}}}}),
        ("#/anyOf/1", {"x": {"anyOf": [1]}, "anyOf": [{"type": "integer"}, {"type": "null"}]}),
        ("#here", {"$defs": {"n": {"$anchor": "here", "type": "null"}}}),
        ("#here", {"$schema": "http://json-schema.org/draft-07/schema#",
                   "definitions": {"n": {"$id": "#here", "type": "null"}}}),
        ("n.json", {"$id": "http://a.example/s.json", "$defs": {"n": {"$id": "n.json", "type": "null"}}}),
        ("s.json#/$defs/n", {"$id": "http://a.example/s.json", "$defs": {"n": {"type": "null"}}}),
        ("#/$defs/n", {"$id": "urn:uuid:6d3f4f1c", "$defs": {"n": {"type": "null"}}}),
        ("http://a.example/n.json#/$defs/m",
         {"$id": "http://a.example/s.json", "$defs": {"n": {"$id": "n.json", "$defs": {"m": {"type": "null"}}}}}),
        ("n.json", {"$id": "http://a.example/s.json",
                    "$defs": {"n": {"$id": "n.json", "$ref": "#/$defs/m", "$defs": {"m": {"type": "null"}}}}}),
    ],
)  # fmt: skip
def test_c03_local_references_are_followed(
    decoder: LLGuidanceDecoder, reference: str, schema: dict[str, Any]
) -> None:
    constraint = constrained(
        {"type": "object", "properties": {"a": {"$ref": reference}}, "required": ["a"], **schema}
    )
    if "anyOf" in schema:
        constraint = constrained({"prefixItems": [{"$ref": reference}], **schema})
        assert decoder.verify(constraint, "null", complete=True)
        return
    assert decoder.verify(constraint, '{"a": null}', complete=True)
    assert not decoder.verify(constraint, '{"a": 1}', complete=False)


def test_c03_a_remote_reference_is_refused_with_what_mends_it(decoder: LLGuidanceDecoder) -> None:
    base = "http://127.0.0.1:9"
    for schema in ({"$ref": f"{base}/schema.json"}, {"$ref": "file:///etc/hostname"}):
        with pytest.raises(
            BadRequestError, match=r"is not in the schema and is never fetched; put it under \$defs"
        ):
            decoder.check(constrained(schema))
    decoder.check(constrained({"$schema": f"{base}/meta.json", "$id": f"{base}/root.json", "type": "null"}))


# ------------------------------------------------------------------------------------------------ rejections


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ("", "it is not JSON: Expecting value"),
        ('{"type": "string"', "it is not JSON: Expecting ',' delimiter: line 1"),
        ("[]", "a schema is an object or a boolean, not []"),
        ('{"minimum": NaN}', "NaN is no JSON value"),
        ('{"minimum": 1e999}', "1e999 is too large a number"),
        ({"type": "strin"},
         'type at # has to be one or more of null, boolean, integer, number, string, array, object, not "strin"'),
        ({"type": []}, "type at # has to be"),
        ({"properties": {"a": {"minLength": -1}}},
         "minLength at #/properties/a has to be a whole number from 0, not -1"),
        ({"items": {"maxItems": 1.5}}, "maxItems at #/items"),
        ({"minimum": "3"}, "minimum at # has to be a number"),
        ({"minimum": True}, "minimum at # has to be a number, not true"),
        ({"exclusiveMinimum": True, "minimum": 1}, "exclusiveMinimum at # has to be a number, not true"),
        ({"multipleOf": 0}, "multipleOf at # has to be a number over 0"),
        ({"required": "a"}, "required at # has to be a list of names"),
        ({"enum": []}, "enum at # has to be a list of values, not empty"),
        ({"anyOf": []}, "anyOf at # has to be a list of schemas, not empty"),
        ({"properties": {"a": 3}}, "properties at # has to be an object of schemas"),
        ({"$defs": {"unused": {"type": 3}}}, "type at #/$defs/unused"),
        ({"uniqueItems": "yes"}, "uniqueItems at # has to be true or false"),
        ({"pattern": "(a"}, 'pattern at #: "(a" is no regular expression: a ( is never closed at character 1'),
        ({"patternProperties": {"[": {}}}, "patternProperties at #"),
        ({"$ref": "#/$defs/missing"}, '"#/$defs/missing" leads nowhere'),
        ({"$ref": "#missing"}, 'there is no anchor "#missing"'),
        ({"$ref": "#/title", "title": "x"}, 'leads to "x", not a schema'),
        ({"$id": "http://a.example/", "$ref": "http://["}, "is no URI"),
        ({"$ref": "#"}, "a $ref leads back to itself without consuming anything"),
        ({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"anyOf": [{"$ref": "#/$defs/a"}, {}]}},
          "$ref": "#/$defs/a"},
         "a $ref leads back to itself"),
        (False, "nothing obeys it"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
         "nothing obeys it: what it requires is false, or holds itself without end"),
        ({"type": "array", "minItems": 1,
          "items": {"anyOf": [{"$ref": "#"}, {"type": "array", "items": {"$ref": "#"}, "minItems": 2}]}},
         "without end"),
        ({"type": "integer", "minimum": 2.1, "maximum": 2.9}, "nothing obeys it"),
        ({"type": "string", "const": 1}, "nothing obeys the schema: incompatible types"),
        ({"type": "object", "required": ["a"], "additionalProperties": False}, "nothing obeys it"),
        ({"const": "\ud800"}, "it holds a lone surrogate"),
    ],
)  # fmt: skip
def test_c03_an_invalid_schema_is_refused_with_its_reason(
    decoder: LLGuidanceDecoder, schema: Any, reason: str
) -> None:
    text = schema if isinstance(schema, str) else json.dumps(schema)
    with pytest.raises(BadRequestError) as caught:
        decoder.check(StructuredOutput("json", text))
    assert type(caught.value) is BadRequestError
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"uniqueItems": True}, "uniqueItems"),
        ({"not": {"type": "null"}}, "not"),
        ({"if": {"type": "null"}, "then": {}}, "if"),
        ({"dependentRequired": {"a": ["b"]}}, "dependentRequired"),
        ({"dependentSchemas": {"a": {}}}, "dependentSchemas"),
        ({"dependencies": {"a": ["b"]}}, "dependencies"),
        ({"contains": {"type": "null"}}, "contains"),
        ({"propertyNames": {"pattern": "^a"}}, "propertyNames"),
        ({"unevaluatedProperties": False}, "unevaluatedProperties"),
        ({"unevaluatedItems": {"type": "null"}}, "unevaluatedItems"),
        ({"$dynamicRef": "#x"}, "$dynamicRef"),
        ({"format": "regex"}, "format"),
        ({"type": "string", "format": "no-such-format"}, "format"),
        ({"pattern": "(?=a)"}, "pattern"),
        ({"patternProperties": {"(a)\\1": {}}}, "patternProperties"),
        ({"patternProperties": {'"a': {}}}, "patternProperties"),
        ({"patternProperties": {"^a": {}, "a$": {}}}, "patternProperties"),
        ({"patternProperties": {"^a": {}}, "properties": {"ab": {}}}, "patternProperties"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
        ({"oneOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"a": {"const": 2}}}]}, "oneOf"),
        ({"minProperties": 2}, "minProperties"),
        ({"maxProperties": 1, "properties": {"a": {}, "b": {}}}, "minProperties and maxProperties"),
        ({"minItems": 10**9}, "minItems"),
        ({"minimum": 2**60}, "minimum"),
        ({"maximum": -(2**60)}, "maximum"),
        ({"const": 2**53}, "const"),
        ({"enum": [{"a": [2**53 + 1]}]}, "enum"),
        ({"multipleOf": 1_000_003}, "multipleOf"),
        ({"multipleOf": 1e-20}, "multipleOf"),
        ({"multipleOf": 2, "maximum": -1}, "multipleOf"),
        ({"multipleOf": 0.5, "minimum": 0.3}, "minimum"),
        ({"enum": [1e-100]}, "enum"),
        ({"properties": {"a\nb": {}}}, "properties"),
        ({"type": "object", "properties": {"a": {"$ref": "#", "required": ["a"]}}}, "$ref"),
        ({"allOf": [{"minimum": 0.5}], "type": "integer"}, "minimum"),
        ({"type": "object", "properties": {f"p{n}": {} for n in range(500)}}, "properties"),
    ],
)
def test_c03_what_cannot_be_enforced_is_refused_by_its_keyword(
    decoder: LLGuidanceDecoder, schema: Any, keyword: str
) -> None:
    with pytest.raises(UnsupportedFeatureError) as caught:
        decoder.check(constrained({"type": "object", "properties": {"deep": {"items": schema}}}))
    assert str(caught.value).startswith(f"guided_json: {keyword} ")
    assert "can't be enforced" in str(caught.value)


def test_c03_draft_4_bounds_are_read(decoder: LLGuidanceDecoder) -> None:
    schema = {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "type": "integer",
        "minimum": 3,
        "exclusiveMinimum": True,
    }
    assert not decoder.verify(constrained(schema), "3", complete=True)
    assert decoder.verify(constrained(schema), "4", complete=True)
