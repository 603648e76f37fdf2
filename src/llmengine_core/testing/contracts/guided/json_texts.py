"""Laws of guided decoders: JSON Schemas.

Soundness is strict: what a decoder accepts in full is valid to jsonschema. A decoder may insist on one spelling: of
what is valid it has to accept what ``json.dumps`` writes, spaced or compact, with members in the schema's order.
"""

from __future__ import annotations

import json
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from hypothesis import strategies as st

from llmengine_core.testing import strategies
from llmengine_core.testing.checkers import legal
from llmengine_core.testing.contracts.guided import keywords as tables
from llmengine_core.testing.contracts.guided.ground import (
    GuidedGround,
    as_json,
    json_forms,
    near,
    shown,
    variants,
)
from llmengine_core.testing.laws import law
from llmengine_core.types.sampling import StructuredOutput

__all__ = ["GuidedJSONLaws"]

PLACES = ("alone", "in a list", "in a member")


class GuidedJSONLaws(GuidedGround):
    """What holds for ``guided_json``."""

    schema_with_instance = strategies.schemas_with_instances()
    """Schemas, each with a value that obeys it."""
    any_schema = strategies.any_schemas()
    """Schemas that may ask for anything, also for what nothing obeys."""

    def sound(self, structured: StructuredOutput, text: str) -> None:
        """See that a text is accepted only where it is valid."""
        if self.accepts(structured, text) and not legal(structured, text):
            raise AssertionError(f"{text!r} does not obey {shown(structured)}, and was accepted in full")

    @law("C03", level="json")
    def test_c03_json_everyday_schemas_are_enforced(self) -> None:
        """Objects with members, lists and enumerations can be asked for."""
        for schema in tables.EVERYDAY:
            structured = as_json(schema)
            assert self.enforces(structured), (
                f"{shown(structured)} can't be enforced; that much is expected of anybody"
            )

    @law("C03", level="json")
    def test_c03_json_what_obeys_is_accepted(self, schema_with_instance: tuple[Any, Any]) -> None:
        """What obeys a schema is accepted in at least one way to write it, and so is each beginning of that."""
        schema, instance = schema_with_instance
        structured = as_json(schema)
        if not self.enforces(structured):
            return
        forms = json_forms(instance)
        assert any(self.accepts(structured, each) for each in forms), (
            f"{forms[0]} obeys {shown(structured)}, and is accepted neither so nor as any of {forms[1:]}"
        )
        for text in filter(lambda each: self.accepts(structured, each), forms):
            for length in range(len(text) + 1):
                assert self.accepts(structured, text[:length], complete=False), (
                    f"{text!r} is accepted for {shown(structured)}, but not that it begins with {text[:length]!r}"
                )

    @law("C03", level="json", seed=st.integers(0, 2**32))
    def test_c03_json_what_does_not_obey_is_refused(
        self, schema_with_instance: tuple[Any, Any], seed: int
    ) -> None:
        """What is accepted for a schema is valid to jsonschema; tried with all that nearly is."""
        schema, instance = schema_with_instance
        structured = as_json(schema)
        if not self.enforces(structured):
            return
        for value in variants(instance):
            self.sound(structured, json.dumps(value, ensure_ascii=False))
        for text in near(json.dumps(instance, ensure_ascii=False), random.Random(seed)):
            self.sound(structured, text)

    @law("C03", level="json")
    def test_c03_json_what_is_no_json_is_refused(self) -> None:
        """A text that only looks like JSON is refused: NaN, a trailing comma, single quotes, words around it."""
        for kind, texts in tables.NO_JSON.items():
            structured = as_json({"type": kind})
            for text in texts if self.enforces(structured) else ():
                assert not self.accepts(structured, text), (
                    f"{text!r} is no JSON, and was accepted in full for {shown(structured)}"
                )

    @law("C03", level="json", values=st.lists(strategies.json_values(), min_size=1, max_size=6))
    def test_c03_json_combined_keywords_hold(self, any_schema: Any, values: list[Any]) -> None:
        """Whatever a schema combines: what is accepted for it is valid to jsonschema."""
        structured = as_json(any_schema)
        if self.refusal(structured) is not None:
            return  # nothing obeys it, or it can't be enforced
        for value in values:
            self.sound(structured, json.dumps(value))

    @law("C03", level="json")
    def test_c03_json_no_keyword_is_ignored(self) -> None:
        """Each keyword is enforced wherever it stands, or refused by its name."""
        for name, (schema, obeying, breaking) in tables.KEYWORDS.items():
            for place in PLACES:
                structured = as_json(_placed_schema(schema, place))
                if not self.enforces(structured):
                    continue
                for value in breaking:
                    text = json.dumps(_placed(value, place), ensure_ascii=False)
                    assert not self.accepts(structured, text), (
                        f"{name} is ignored: {text!r} was accepted in full for {shown(structured)}"
                    )
                for value in obeying:
                    forms = json_forms(_placed(value, place))
                    assert any(self.accepts(structured, each) for each in forms), (
                        f"{name} is enforced too far: {forms[0]!r} was refused for {shown(structured)}"
                    )

    @law("C03", level="json")
    def test_c03_json_a_dead_end_is_refused_at_once(self) -> None:
        """A beginning that nothing valid has is refused before the text is complete."""
        for schema, beginnings in tables.DEAD_ENDS:
            structured = as_json(schema)
            for text in beginnings if self.enforces(structured) else ():
                assert not self.accepts(structured, text, complete=False), (
                    f"nothing that {shown(structured)} allows begins with {text!r}, and yet it may go on"
                )

    @law("C03", level="json")
    def test_c03_json_an_invalid_schema_is_refused(self) -> None:
        """What is no JSON Schema is a ``BadRequestError`` that says why."""
        self.quotes(
            {name: self.refused(StructuredOutput("json", text)) for name, text in tables.INVALID.items()}
        )

    @law("C03", level="json")
    def test_c03_json_annotations_change_nothing(self) -> None:
        """Titles, examples, ``$id``, ``$schema`` and the like are accepted, and what they stand beside is enforced."""
        for extra in tables.ANNOTATED:
            structured = as_json({**extra, "type": "integer", "minimum": 3})
            assert self.enforces(structured), (
                f"{shown(structured)} can't be enforced; what else is there is accepted"
            )
            assert self.accepts(structured, "3"), f"'3' was refused for {shown(structured)}"
            assert not self.accepts(structured, "2"), f"'2' was accepted in full for {shown(structured)}"

    @law("C03", level="json")
    def test_c03_json_local_references_are_followed(self) -> None:
        """A ``$ref`` within a schema is accepted and enforced, also one to the schema that holds it."""
        for reference, rest in tables.REFERENCES.items():
            member = {"type": "object", "properties": {"a": {"$ref": reference}}, "required": ["a"]}
            schema = {**member, "additionalProperties": False, **rest}
            names = schema["required"]
            self.follows(as_json(schema), dict.fromkeys(names), {**dict.fromkeys(names), "a": 1})
        endless = {
            "type": "object",
            "properties": {"next": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}},
            "required": ["next"],
            "additionalProperties": False,
        }
        self.follows(as_json(endless), {"next": {"next": None}}, {"next": {"next": 1}})

    def follows(self, structured: StructuredOutput, obeying: Any, breaking: Any) -> None:
        """See that a schema with a local reference does what it says."""
        assert self.enforces(structured), (
            f"{shown(structured)} can't be enforced; local references are followed"
        )
        assert any(self.accepts(structured, each) for each in json_forms(obeying)), (
            f"{json.dumps(obeying)} was refused for {shown(structured)}"
        )
        for text in json_forms(breaking):
            assert not self.accepts(structured, text), f"{text} was accepted in full for {shown(structured)}"

    @law("C03", level="json")
    def test_c03_json_remote_references_are_never_fetched(self) -> None:
        """A ``$ref`` to somewhere else is refused, and nobody is asked for what is there."""
        with _server() as (base, visits):
            for schema in tables.REMOTE:
                structured = StructuredOutput("json", json.dumps(schema).replace("{base}", base))
                refused = self.refusal(structured) is not None
                assert not visits, f"{shown(structured)} was checked by fetching {visits[0]!r}"
                assert refused, f"{shown(structured)} refers to another place, and check let it pass"


def _placed(value: Any, place: str) -> Any:
    return {"alone": value, "in a list": [value], "in a member": {"m": value}}[place]


def _placed_schema(schema: dict[str, Any], place: str) -> dict[str, Any]:
    """A schema whose values hold values of another, as ``_placed`` has it."""
    if place == "alone":
        return schema
    inner = {keyword: value for keyword, value in schema.items() if keyword != "$defs"}
    definitions = {"$defs": schema["$defs"]} if "$defs" in schema else {}
    if place == "in a list":
        return {"type": "array", "items": inner, "minItems": 1, **definitions}
    return {
        "type": "object",
        "properties": {"m": inner},
        "required": ["m"],
        "additionalProperties": False,
        **definitions,
    }


@contextmanager
def _server() -> Iterator[tuple[str, list[str]]]:
    """The base of URLs that give a schema of anything, and what is asked for there."""
    visits: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):  # closed
                while True:
                    visitor, _ = listener.accept()
                    with visitor, suppress(OSError):
                        visitor.settimeout(1.0)
                        visits.append(visitor.recv(4096).decode(errors="replace").partition("\r\n")[0])
                        visitor.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{}")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", visits
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
            thread.join(2.0)
