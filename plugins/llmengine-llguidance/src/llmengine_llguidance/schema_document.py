"""A JSON Schema as a document: is it one, and where do its references lead? Nothing is ever fetched."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import unquote, urldefrag, urljoin

from llmengine_llguidance import keywords, limits

__all__ = ["Place", "SchemaDocument", "SchemaError", "UnsupportedKeywordError", "shown"]


class SchemaError(Exception):
    """The schema is invalid; the message names the keyword and its place as a JSON pointer."""


class UnsupportedKeywordError(SchemaError):
    """The schema is valid, but the keyword that the message names can't be enforced."""


def shown(value: Any) -> str:
    """A value for a message: as JSON, and short."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:59]}…"


@dataclass(slots=True, eq=False)
class Place:
    """A schema within the document."""

    value: dict[str, Any] | bool
    pointer: str
    """JSON pointer from the root: "#/properties/name"."""
    base: str
    """The URI that its references start from; "" where the document has no ``$id``."""


class SchemaDocument:
    """A valid schema. The constructor raises ``SchemaError`` for any other text."""

    def __init__(self, text: str) -> None:
        value = _parse(text)
        if not isinstance(value, dict | bool):
            raise SchemaError(f"a schema is an object or a boolean, not {shown(value)}")
        self.is_draft4 = isinstance(value, dict) and "draft-04" in str(value.get("$schema"))
        """``id`` for ``$id``, and ``exclusiveMinimum`` is a boolean beside ``minimum``."""
        self._places: dict[int, Place] = {}
        self._by_uri: dict[str, Place] = {}
        self.root = Place(value, "#", "")
        self._read(self.root)

    def child(self, value: Any) -> Place:
        """The place of a schema that stands within one that was read."""
        return self._places[id(value)] if isinstance(value, dict) else Place(value, "#", "")

    def follow(self, reference: str, origin: Place) -> Place:
        """Where a ``$ref`` leads. Raises ``SchemaError`` where it leads out of the document, or nowhere."""
        try:
            joined = origin.base + reference if reference.startswith("#") else urljoin(origin.base, reference)
            uri, fragment = urldefrag(joined)
        except ValueError as error:
            raise SchemaError(f"$ref at {origin.pointer}: {shown(reference)} is no URI: {error}") from None
        resource = self._by_uri.get(uri)
        if resource is None:
            raise SchemaError(
                f"$ref at {origin.pointer} leads to {shown(reference)}, which is not in the schema and is never "
                "fetched; put it under $defs"
            )
        if fragment and not fragment.startswith("/"):
            anchored = self._by_uri.get(f"{uri}#{fragment}")
            if anchored is None:
                raise SchemaError(
                    f"$ref at {origin.pointer}: there is no anchor {shown(reference)} in the schema"
                )
            return anchored
        return self._descend(resource, unquote(fragment), reference, origin)

    @staticmethod
    def _joined(place: Place, identifier: str) -> str:
        try:
            return urldefrag(urljoin(place.base, identifier))[0]
        except ValueError as error:
            raise SchemaError(f"$id at {place.pointer}: {shown(identifier)} is no URI: {error}") from None

    def _descend(self, resource: Place, pointer: str, reference: str, origin: Place) -> Place:
        value: Any = resource.value
        base = resource.base
        for step in pointer.split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(value, list) and key.isascii() and key.isdigit() and int(key[:9]) < len(value):
                value = value[int(key[:9])]
            elif isinstance(value, dict) and key in value:
                value = value[key]
            else:
                raise SchemaError(f"$ref at {origin.pointer}: {shown(reference)} leads nowhere")
            base = self._places[id(value)].base if id(value) in self._places else base
        if not isinstance(value, dict | bool):
            raise SchemaError(
                f"$ref at {origin.pointer}: {shown(reference)} leads to {shown(value)}, not a schema"
            )
        place = self._places.get(id(value)) if isinstance(value, dict) else None
        if place is None:  # schemas may also stand under keywords that no draft knows
            place = Place(value, f"#{pointer}", base)
            self._read(place)
        return place

    def _read(self, place: Place) -> None:
        """Check a schema and all within it, and note where they are."""
        pending = [place]
        while pending:
            place = pending.pop()
            if isinstance(place.value, bool):
                continue
            for keyword, value in place.value.items():
                expected = keywords.violation(keyword, value)
                if expected:
                    raise SchemaError(
                        f"{keyword} at {place.pointer} has to be {expected}, not {shown(value)}"
                    )
            self._note(place)
            for step, value in keywords.subschemas(place.value):
                pending.append(Place(value, f"{place.pointer}/{step}", place.base))

    def _note(self, place: Place) -> None:
        assert isinstance(place.value, dict)
        identifier = place.value.get("id" if self.is_draft4 else "$id")
        if place.pointer == "#":
            self._by_uri[""] = place
        if isinstance(identifier, str):
            if identifier.startswith("#"):  # how drafts 4 to 7 spell an anchor
                self._by_uri[place.base + identifier] = place
            else:
                place.base = self._joined(place, identifier)
                self._by_uri[place.base] = place
        for keyword in ("$anchor", "$dynamicAnchor"):
            if keyword in place.value:
                self._by_uri[f"{place.base}#{place.value[keyword]}"] = place
        self._places[id(place.value)] = place


def _parse(text: str) -> Any:
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError:
        raise SchemaError("it is nested too deeply to read") from None
    except ValueError as error:
        raise SchemaError(f"it is not JSON: {error}") from None
    depth, level = 0, [value]
    while level:
        depth += 1
        if depth > 2 * limits.SCHEMA_DEPTH:
            raise SchemaError(f"it is nested more than {2 * limits.SCHEMA_DEPTH} levels deep")
        level = [each for outer in level for each in _inside(outer)]
    if "\\ud" in text.lower():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise SchemaError("it holds a lone surrogate; give whole characters") from None
    return value


def _inside(value: Any) -> list[Any]:
    inside = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [each for each in inside if isinstance(each, dict | list)]


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large a number")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")
