"""What goes over the socket between the core and a worker: JSON arrays, one a line; pure.

The first line of a connection is the key. Then the core sends commands::

    ["generate", id, prompt, {"max_tokens": 20, ...}]     what ``Order`` holds besides the prompt
    ["cancel", id]
    ["count", id, prompt]
    ["load_adapter", id, name, path]
    ["unload_adapter", id, name]

and the worker answers, to each id that was sent::

    ["begun", id, prompt_tokens]       where prompt and answer don't fit the context, that is all
    ["step", entries]                  of all requests of this connection: see ``entry_of``
    ["done", id, value]                to any but "generate"
    ["refused", id, reason]            the caller must change something
    ["failed", id, reason]             the fault is the engine's

Ids are the core's, one of a kind in one connection. ``["welcome"]`` answers the key, before which nothing else may
be sent, and ``["broken", reason]`` is the last line to a core that can't be understood.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from llmengine_core.worker.contract import Emitted, Prompt

__all__ = ["LONGEST", "Broken", "Command", "Lines", "command_of", "entry_of", "frame"]

LONGEST = 32 << 20
"""Bytes that a line may have."""

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode


class Broken(ValueError):
    """The other side does not speak this protocol; says what it sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What a worker is asked, checked."""

    name: str
    id: int
    prompt: Prompt = ""
    values: Mapping[str, Any]
    """Of "generate", the arguments of ``Order``; of the adapters', ``name`` and ``path``."""


def frame(*parts: object) -> bytes:
    """One line."""
    return _encode(parts).encode("ascii") + b"\n"


class Lines:
    """Bytes as they come, as lines."""

    __slots__ = ("_rest", "longest")

    def __init__(self, longest: int = LONGEST) -> None:
        self.longest = longest
        """Bytes that a line may have."""
        self._rest = bytearray()

    def feed(self, data: bytes | memoryview) -> list[bytes]:
        """The lines that are complete now. Raises ``Broken`` where one is too long."""
        *lines, rest = bytes(data).split(b"\n")
        if lines and self._rest:
            lines[0] = bytes(self._rest) + lines[0]
            self._rest.clear()
        self._rest += rest
        if len(self._rest) > self.longest or any(len(line) > self.longest for line in lines):
            raise Broken(f"a line has more than {self.longest} bytes")
        return lines


def entry_of(request: int, emitted: Emitted) -> tuple[object, ...]:
    """A token as it travels: id, token, text, and where that isn't all: data, log probability, finish.

    ``data`` is null where it is the text's UTF-8, else a string with a character for each byte.
    """
    data = None if emitted.data == emitted.text.encode() else emitted.data.decode("latin-1")
    if data is None and emitted.logprob is None and emitted.finish is None:
        return request, emitted.token, emitted.text
    return request, emitted.token, emitted.text, data, emitted.logprob, emitted.finish


def command_of(line: bytes) -> Command:
    """A line from the core, as coming from outside. Raises ``Broken``."""
    try:
        match json.loads(line):
            case [_, bool(), *_]:
                pass  # to Python a number too
            case ["cancel", int(id)]:
                return Command(name="cancel", id=id, values={})
            case ["count", int(id), prompt]:
                return Command(name="count", id=id, prompt=_prompt(prompt), values={})
            case ["generate", int(id), prompt, {**values}]:
                return Command(name="generate", id=id, prompt=_prompt(prompt), values=_values(values))
            case ["load_adapter", int(id), str(name), str(path)]:
                return Command(name="load_adapter", id=id, values={"name": name, "path": path})
            case ["unload_adapter", int(id), str(name)]:
                return Command(name="unload_adapter", id=id, values={"name": name})
    except Broken:
        raise
    except (ValueError, RecursionError) as error:
        raise Broken(f"a line is no JSON ({error}): {line[:200]!r}") from error
    raise Broken(f"a line is no command: {line[:200]!r}")


def _prompt(value: object) -> Prompt:
    match value:
        case str():
            return value
        case {"ids": [*ids]} if ids and all(type(each) is int and each >= 0 for each in ids):
            return tuple(ids)
        case {"messages": [*turns]} if turns:
            return tuple(_turn(turn) for turn in turns)
    raise Broken(f"a prompt is {repr(value)[:200]}")


def _turn(value: object) -> tuple[str, str]:
    match value:
        case [str(role), str(content)]:
            return role, content
    raise Broken(f"a turn of a conversation is {repr(value)[:200]}")


def _number(low: float, high: float) -> Callable[[object], bool]:
    return lambda value: type(value) in (int, float) and low <= value <= high  # type: ignore[operator]


def _whole(low: int | None) -> Callable[[object], bool]:
    return lambda value: type(value) is int and (low is None or value >= low)


def _optional(check: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or check(value)


def _text(value: object) -> bool:
    return type(value) is str


Checks: TypeAlias = Mapping[str, Callable[[object], bool]]
CHECKS: Checks = {
    "max_tokens": _whole(1),
    "temperature": _number(0, 1),
    "top_k": _optional(_whole(1)),
    "top_p": _number(0, 1),
    "presence_penalty": _number(0, 2),
    "frequency_penalty": _number(0, 2),
    "logprobs": lambda value: type(value) is bool,
    "seed": _optional(_whole(None)),
    "grammar": _optional(_text),
    "adapter": _optional(_text),
}


def _values(given: Mapping[Any, object]) -> Mapping[str, Any]:
    _same_names(given, CHECKS)
    for name, check in CHECKS.items():
        if not check(given[name]):
            raise Broken(f"{name} is {repr(given[name])[:200]}")
    return given


def _same_names(given: Iterable[str], wanted: Iterable[str]) -> None:
    if odd := set(given) ^ set(wanted):
        raise Broken(f"a request lacks, or has besides: {', '.join(sorted(odd))[:200]}")
