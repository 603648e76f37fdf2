"""The reference's signatures, to the letter: names, order, kinds and defaults."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llmengine
from llmengine.completion import COMPLETION_TIMEOUT
from llmengine.data_types import LLMInferenceFramework, LLMSource, ModelEndpointType

REFERENCE = ast.parse((Path(__file__).parent / "reference_signatures.txt").read_text())
WORDS = {
    "COMPLETION_TIMEOUT": COMPLETION_TIMEOUT,
    "LLMInferenceFramework": LLMInferenceFramework,
    "LLMSource": LLMSource,
    "ModelEndpointType": ModelEndpointType,
}
Function = ast.FunctionDef | ast.AsyncFunctionDef
REQUIRED = inspect.Parameter.empty


def functions() -> Iterator[tuple[str, Function]]:
    for each in REFERENCE.body:
        assert isinstance(each, ast.ClassDef)
        for function in each.body:
            assert isinstance(function, Function)
            yield each.name, function


CASES = [pytest.param(owner, function, id=f"{owner}.{function.name}") for owner, function in functions()]


def default(node: ast.expr) -> Any:
    return eval(ast.unparse(node), WORDS)  # noqa: S307 - our own file


def method(owner: str, name: str) -> Any:
    return inspect.getattr_static(getattr(llmengine, owner), name)


def test_the_reference_has_19_functions() -> None:
    assert len(CASES) == 19
    assert COMPLETION_TIMEOUT == 300


@pytest.mark.parametrize(("owner", "function"), CASES)
def test_names_order_and_defaults(owner: str, function: Function) -> None:
    arguments = function.args.args
    missing = len(arguments) - len(function.args.defaults)
    wanted = [
        (argument.arg, REQUIRED if at < missing else default(function.args.defaults[at - missing]))
        for at, argument in enumerate(arguments)
    ]
    _, *ours = inspect.signature(method(owner, function.name).__func__).parameters.values()
    assert [(each.name, each.default) for each in ours[: len(wanted)]] == wanted
    assert all(each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for each in ours[: len(wanted)])
    assert all(each.kind in (each.KEYWORD_ONLY, each.VAR_KEYWORD) for each in ours[len(wanted) :])


@pytest.mark.parametrize(("owner", "function"), CASES)
def test_they_are_classmethods_and_coroutines_where_the_reference_says_so(
    owner: str, function: Function
) -> None:
    found = method(owner, function.name)
    assert isinstance(found, classmethod)
    assert inspect.iscoroutinefunction(found.__func__) is isinstance(function, ast.AsyncFunctionDef)
    assert inspect.getdoc(found.__func__)


@pytest.mark.parametrize(("owner", "function"), CASES)
def test_return_types_are_the_references(owner: str, function: Function) -> None:
    streams = {"Iterator": "CompletionStream", "AsyncIterable": "AsyncCompletionStream"}
    assert function.returns is not None
    wanted = {node.id for node in ast.walk(function.returns) if isinstance(node, ast.Name)} - {"Union"}
    if streams.keys() & wanted:
        wanted = {streams.get(each, each) for each in wanted} - {"CompletionStreamResponse"}
    ours = ast.parse(inspect.signature(method(owner, function.name).__func__).return_annotation)
    assert {node.id for node in ast.walk(ours) if isinstance(node, ast.Name)} == wanted
