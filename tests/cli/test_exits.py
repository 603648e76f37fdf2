"""Each error has its exit code and its one message."""

from __future__ import annotations

import inspect

import click
import pytest

from llmengine_core import errors
from llmengine_core.cli.exits import EXIT_CODES, exit_code, report
from llmengine_core.types.plan import CheckpointFacts, Plan

PLAN = Plan(model="m", framework="auto", checkpoint=CheckpointFacts(url=""), candidates=(), chosen=None)
OURS = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.LLMEngineError)
]


def made(kind: type[errors.LLMEngineError]) -> errors.LLMEngineError:
    if issubclass(kind, errors.ResolutionError):
        return kind("it went wrong", plan=PLAN)
    return kind("it went wrong")


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_every_error_ends_in_a_documented_code_and_one_line(
    kind: type[errors.LLMEngineError], capsys: pytest.CaptureFixture[str]
) -> None:
    error = made(kind)
    assert exit_code(error) in {each.code for each in EXIT_CODES} - {0}
    report(error, debug=False)
    assert capsys.readouterr() == ("", "Error: it went wrong\n")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ServerError("x"), 1),
        (RuntimeError("x"), 1),
        (errors.BadRequestError("x"), 2),
        (errors.UnsupportedFeatureError("x"), 2),
        (click.UsageError("x"), 2),
        (click.BadParameter("x"), 2),
        (errors.NotFoundError("x"), 3),
        (errors.ResolutionError("x", plan=PLAN), 4),
        (errors.RateLimitExceededError("x"), 5),
        (errors.RequestTimeoutError("x"), 6),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (BrokenPipeError(), 141),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else type(value).__name__,
)
def test_the_most_special_class_decides(error: BaseException, code: int) -> None:
    assert exit_code(error) == code


def test_codes_are_distinct() -> None:
    codes = [each.code for each in EXIT_CODES]
    assert len(set(codes)) == len(codes)


def test_only_debug_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    report(RuntimeError("odd"), debug=False)
    quiet = capsys.readouterr().err
    assert quiet.startswith("Error: RuntimeError: odd\n")
    assert "--debug" in quiet
    assert "Traceback" not in quiet
    try:
        raise RuntimeError("odd")
    except RuntimeError as error:
        report(error, debug=True)
    assert "Traceback" in capsys.readouterr().err
