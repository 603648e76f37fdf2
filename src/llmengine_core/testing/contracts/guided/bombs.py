"""Constraints made to hurt, and texts; and the program that tries them in a process of its own.

It reads one JSON document from its standard input, and says what becomes of each thing on a line of its own.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import time
from typing import Any

from llmengine_core.errors import LLMEngineError
from llmengine_core.interfaces.guided import GuidedDecoder
from llmengine_core.plugins import import_object
from llmengine_core.types.sampling import StructuredKind, StructuredOutput

__all__ = ["BOMBS", "LONG_TEXTS"]


def _chain(length: int, link: str, end: str) -> str:
    return "".join(link.format(n, n + 1) + "\n" for n in range(length)) + end


def _doubling() -> dict[str, Any]:
    links = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    return {"$defs": {**links, "d40": {"type": "string"}}, "$ref": "#/$defs/d0"}


def _wide() -> dict[str, Any]:
    def options(n: int) -> list[Any]:
        return [{"type": "object", "properties": {f"p{n}{m}": {}}} for m in range(4)]

    return {"allOf": [{"anyOf": options(n)} for n in range(12)]}


BOMBS: dict[str, tuple[StructuredKind, str | tuple[str, ...]]] = {
    "a deep schema": ("json", '{"items":' * 5_000 + "{}" + "}" * 5_000),
    "a deep list": ("json", "[" * 200_000),
    "a reference to itself": ("json", '{"$ref": "#"}'),
    "references in a circle": (
        "json", '{"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}'),
    "doubling references": ("json", json.dumps(_doubling())),
    "combined options": ("json", json.dumps(_wide())),
    "a huge enum": ("json", json.dumps({"enum": [f"value {n}" for n in range(50_000)]})),
    "a huge count": ("json", '{"type": "array", "minItems": 4000000000}'),
    "counts of counts": ("json", '{"type": "array", "minItems": 65536, "items": ' * 6 + "{}" + "}" * 6),
    "many properties": (
        "json", json.dumps({"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(20_000)}})),
    "a catastrophic pattern in a schema": ("json", '{"type": "string", "pattern": "^(a{1000}){1000}$"}'),
    "repeated repetition": ("regex", "(a{1000}){1000}"),
    "thrice repeated repetition": ("regex", "((a{60000}){60000}){60000}"),
    "nested stars": ("regex", "(" * 40 + "a" + ")*" * 40),
    "many states": ("regex", "(a|b)*a(a|b){60}"),
    "deep groups": ("regex", "(" * 20_000 + "a" + ")" * 20_000),
    "a long pattern": ("regex", "a" * 1_000_000),
    "doubling rules": ("grammar", "start: r0\n" + _chain(400, "r{0}: r{1} r{1}", 'r400: "a"')),
    "doubling rules of GBNF": ("grammar", "root ::= r0\n" + _chain(400, "r{0} ::= r{1} r{1}", 'r400 ::= "a"')),
    "parentheses": ("grammar", "start: " + "(" * 50_000 + '"a"' + ")" * 50_000),
    "repetitions in a grammar": ("grammar", 'root ::= ((("a"{60000}){60000}){60000}){60000}'),
    "a rule that never ends": ("grammar", "start: a\na: a a | a"),
    "many choices": ("choice", tuple(f"choice {n}" for n in range(100_000))),
    "a long choice": ("choice", ("x" * 1_000_000,)),
}  # fmt: skip
"""By name; each is small enough to be sent to a server."""

LONG_TEXTS: dict[str, tuple[StructuredKind, str | tuple[str, ...], str]] = {
    "a pattern of stars": ("regex", "(a*)*b", "a" * 20_000),
    "a pattern of alternatives": ("regex", "(a|a)*b", "a" * 20_000),
    "a long match": ("regex", "[a-z]*", "a" * 50_000),
    "no choice": ("choice", ("yes", "no"), "yes" * 100_000),
    "recursion": ("grammar", 'root ::= "(" root ")" | "x"', "(" * 2_000),
    "a long string": ("json", '{"type": "string"}', '"' + "x" * 50_000 + '"'),
    "a long list": ("json", '{"type": "array", "items": {"type": "integer"}}', "[" + "1, " * 10_000 + "1]"),
    "a deep list": ("json", '{"type": "array"}', "[" * 30_000),
    "a deep object": ("json", '{"type": "object"}', '{"a": ' * 10_000),
}
"""By name: a constraint, and a text to judge. None of the constraints is anything but plain."""


def main() -> None:
    """Say of each thing how many CPU seconds it took, and the error where there was one."""
    order = json.loads(sys.stdin.readline())
    decoder: GuidedDecoder = import_object(order["factory"])()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _bound_memory(order["memory"])
    for name, kind, value, text in order["tasks"]:
        structured = StructuredOutput(kind, tuple(value) if isinstance(value, list) else value)
        spent = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, order["seconds"])  # the kernel ends us, also within native code
        error = ""
        try:
            if text is None:
                decoder.check(structured)
                if order["dialect"] is not None:
                    decoder.translate(structured, order["dialect"])
                text = "a"
            decoder.verify(structured, text, complete=True)
            decoder.verify(structured, text, complete=False)
        except LLMEngineError as raised:
            error = str(raised)
        except BaseException as raised:
            _say(name=name, foreign=f"{type(raised).__name__}: {str(raised)[:500]}")
            raise SystemExit(0) from None
        _say(name=name, seconds=time.process_time() - spent, length=len(error))


def _bound_memory(most: int) -> None:
    """End what takes more than ``most`` bytes beyond what is taken already."""
    with open("/proc/self/statm") as statm:
        taken = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + most, taken + most))


def _say(**words: Any) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
