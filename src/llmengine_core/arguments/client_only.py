"""Arguments that the original client knows and this API doesn't: taken, and honoured or refused (C13)."""

from __future__ import annotations

from collections.abc import Mapping

from llmengine_core.arguments.checks import shown
from llmengine_core.errors import UnsupportedFeatureError

__all__ = ["refuse_client_only"]


def refuse_client_only(
    function: str, given: Mapping[str, object], known: Mapping[str, tuple[object, ...]]
) -> None:
    """Raise for each of the given arguments that asks for something, or that nobody knows.

    ``known`` holds, by name, the values that ask for nothing: those that behave as if the argument
    weren't there.
    """
    for field, value in given.items():
        if field not in known:
            raise TypeError(f"{function}() got an unexpected keyword argument {field!r}")
        neutral = known[field]
        if not any(value is each or (type(value) is type(each) and value == each) for each in neutral):
            raise UnsupportedFeatureError(
                f"{field} is {shown(value)}; llmengine knows the name from the original client, but nothing "
                f"here can honour it: leave it out, or give {' or '.join(map(repr, neutral))}"
            )
