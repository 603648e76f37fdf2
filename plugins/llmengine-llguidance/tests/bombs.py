"""Constraints made to hurt this decoder, besides those that the contract kit has for all: a program of its own."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from llmengine_core.errors import BadRequestError
from llmengine_core.types.sampling import StructuredKind, StructuredOutput
from llmengine_llguidance.decoder import LLGuidanceDecoder

MEMORY = 4 * 1024**3
CPU_SECONDS = 100


def _nested(depth: int, innermost: Any, wrap: Callable[[Any], Any]) -> Any:
    for _ in range(depth):
        innermost = wrap(innermost)
    return innermost


def _object(properties: dict[str, Any], **keywords: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, **keywords}


def _chain(length: int, link: Callable[[int], str], end: str) -> str:
    return "".join(f"{link(n)}\n" for n in range(length)) + end


_STRING = {"type": "string"}
_SCHEMAS: dict[str, Any] = {
    "many properties": _object({f"p{n}": _STRING for n in range(370)}),
    "required properties": _object(
        {f"p{n}": _STRING for n in range(1_000)}, required=[f"p{n}" for n in range(1_000)]
    ),
    "many formats": _object(
        {f"p{n}": {"type": "string", "format": "uri", "minLength": n} for n in range(370)}
    ),
    "many patterns": _object(
        {f"p{n}": {"pattern": f"(a|b)*a(a|b){{{n % 30}}}c.*d.{{5}}"} for n in range(300)}
    ),
    "patterns together": {"allOf": [{"pattern": f"a.{{{n}}}b"} for n in range(40)], "type": "string"},
    "patterns that meet in a property": {
        "allOf": [_object({"a": {"pattern": f"a.{{{n}}}b"}}) for n in range(40)]
    },
    "patterns and lengths": _object(
        {f"p{n}": {"pattern": "a.*b.*c", "minLength": n * 9} for n in range(300)}
    ),
    "many name patterns": {"patternProperties": {f"(a|b)*a(a|b){{{n}}}x{n}$": {} for n in range(200)}},
    "deep properties": _nested(200, _STRING, lambda inner: _object({"a": inner})),
    "deep references": {
        "$defs": {f"d{n}": _object({"a": {"$ref": f"#/$defs/d{n + 1}"}}) for n in range(2_000)}
        | {"d2000": {}},
        "$ref": "#/$defs/d0",
    },
    "doubling objects": {
        "$defs": {
            f"d{n}": _object({"a": {"$ref": f"#/$defs/d{n + 1}"}, "b": {"$ref": f"#/$defs/d{n + 1}"}})
            for n in range(40)
        }
        | {"d40": _STRING},
        "allOf": [{"$ref": "#/$defs/d0"}, {"additionalProperties": {"type": "object"}}],
    },
    "two recursions at once": {
        "$defs": {name: _object({"next": {"$ref": f"#/$defs/{name}"}}) for name in "ab"},
        "allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}],
    },
    "wide allOf": {"allOf": [{"anyOf": [_object({f"p{n}{m}": {}}) for m in range(60)]} for n in range(3)]},
    "wide anyOf": {
        "anyOf": [_object({"k": {"const": n}, f"p{n}": {}}, required=["k"]) for n in range(1_000)]
    },
    "wide oneOf": {
        "oneOf": [
            _object({f"k{m}": {"const": f"{n}-{m}"} for m in range(4)}, required=["k3"]) for n in range(200)
        ]
    },
    "long enum": {"enum": [f"value {n}" for n in range(10_000)]},
    "long enum of objects": {"enum": [{f"v{n}": n} for n in range(10_000)]},
    "enums together": {"allOf": [{"enum": list(range(3_000))}, {"enum": list(range(3_000))}]},
    "huge minLength": {"minLength": 4 * 10**9},
    "huge maxItems": {"type": "array", "maxItems": 4 * 10**9},
    "huge multipleOf": {"type": "integer", "multipleOf": 1_000_003},
    "multiples together": {
        "allOf": [{"multipleOf": prime} for prime in (97, 101, 103, 107)],
        "type": "integer",
    },
    "many multiples": _object({f"p{n}": {"type": "integer", "multipleOf": 9_000 + n} for n in range(100)}),
    "many ranges": _object(
        {f"p{n}": {"type": "number", "minimum": -1 / (n + 3), "maximum": 1e15 / 7} for n in range(370)}
    ),
    "long": {"description": "x" * 1_000_000},
}
_PATTERNS = {
    "ambiguous repetition": "((a|b){1,300}c?){1,300}",
    "ambiguous stars": "(a|a)*" * 30 + "b",
    "dots": "(.*a){50}",
    "alternatives": "|".join(f"w{n}" for n in range(2_000)),
    "long alternatives": "|".join(f"word{n}" for n in range(100_000)),
    "anchors": "(^|a)" * 40,
    "unicode classes": r"[\w\W]{1,300}" * 60,
    "ignoring case": "(?i)" + "é" * 16_000,
    "braces": "{" * 16_000,
    "brackets": "[" * 16_000,
    "backslashes": "\\" * 15_999,
}
_GRAMMARS = {
    "chain": "start: r0\n" + _chain(100_000, lambda n: f"r{n}: r{n + 1}", 'r100000: "a"'),
    "chain within bounds": "start: r0\n" + _chain(498, lambda n: f"r{n}: r{n + 1}", 'r498: "a"'),
    "chain of terminals": "start: R0\n" + _chain(498, lambda n: f"R{n}: R{n + 1}", 'R498: "a"'),
    "chain of parentheses": "start: r0\n"
    + _chain(490, lambda n: f"r{n}: {'(' * 19}r{n + 1}{')' * 19}", 'r490: "a"'),
    "doubling terminals": "start: R0\n" + _chain(40, lambda n: f"R{n}: R{n + 1} R{n + 1}", 'R40: "a"'),
    "repetitions": 'start: ((("a"{60000}){60000}){60000}){60000}',
    "alternatives": "start: " + " | ".join(f'"w{n}"' for n in range(20_000)),
    "alternatives of a terminal": "start: W\nW: " + " | ".join(f'"w{n}"' for n in range(20_000)),
    "nothing, many times": 'start: a a a a a a a a\na: b b b b b b b b\nb: c c c c c c c c\nc: "x" |',
    "comments": "//" * 100_000,
    "quotes": "start: " + '"' * 100_001,
    "slashes": "start: /" + "\\" * 100_001,
    "gbnf chain": "root ::= r0\n" + _chain(20_000, lambda n: f"r{n} ::= r{n + 1}", 'r20000 ::= "a"'),
    "gbnf groups": _chain(
        400, lambda n: f'{f"r{n}" if n else "root"} ::= {"(" * 19}"a" r{n + 1}{")?" * 19}', 'r400 ::= "x"'
    ),
    "gbnf literal": f'root ::= "{"x" * 200_000}"',
    "gbnf alternatives": "root ::= " + " | ".join(f'("w{n}" | "v")+' for n in range(10_000)),
    "gbnf parentheses": "root ::= " + "(" * 50_000,
    "gbnf nothing": "root ::= " + '("" | ' * 19 + '"a"' + ")*" * 19,
    "gbnf blanks": "root ::= " + "\n \t#\n" * 20_000 + '| "a"',
}
_CHOICES = {
    "many choices": tuple(f"choice number {n}" for n in range(10_000)),
    "choices that begin each other": tuple("a" * n for n in range(1, 700)),
    "a long choice": ("x" * 250_000,),
}

BOMBS: dict[str, StructuredOutput] = {}
_KINDS: list[tuple[StructuredKind, dict[str, Any]]] = [
    ("json", {name: json.dumps(schema) for name, schema in _SCHEMAS.items()}),
    ("regex", _PATTERNS),
    ("grammar", _GRAMMARS),
    ("choice", _CHOICES),
]
for kind, values in _KINDS:
    BOMBS |= {f"{kind}: {name}": StructuredOutput(kind, value) for name, value in values.items()}

TEXTS: dict[str, tuple[str, str]] = {
    "every reading of nothing": ('start: s\ns: s s s | s s | "a" |', "a" * 3_000),
    "a long list": ('start: l\nl: /[a-z]+,/ l | "x"', "ab," * 3_000 + "x"),
}
"""Grammars, and texts that are long to judge."""


def main() -> None:
    """Print, for each, its name, its CPU seconds and the error's class, one JSON list to a line."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    decoder = LLGuidanceDecoder()
    for name, bomb in BOMBS.items():
        start = time.process_time()
        try:
            decoder.check(bomb)
            outcome = ""
        except BadRequestError as error:
            outcome = str(error)
        _report(name, start, outcome)
    for name, (grammar, text) in TEXTS.items():
        start = time.process_time()
        decoder.verify(StructuredOutput("grammar", grammar), text, complete=True)
        _report(name, start, "")


def _report(name: str, start: float, outcome: str) -> None:
    json.dump([name, time.process_time() - start, outcome], sys.stdout)
    sys.stdout.write("\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
