"""Errors of HTTP answers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmengine import errors


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.BadRequestError),
        (401, errors.UnauthorizedError),
        (404, errors.NotFoundError),
        (429, errors.RateLimitExceededError),
        (500, errors.ServerError),
        (503, errors.ServerError),
        (599, errors.ServerError),
        (504, errors.RequestTimeoutError),
        (302, errors.UnknownError),
        (418, errors.UnknownError),
        (422, errors.UnknownError),
        (600, errors.UnknownError),
    ],
)
def test_each_status_has_its_class(status: int, kind: type[errors.LLMEngineError]) -> None:
    error = errors.parse_error(status, b'{"detail": "the reason"}')
    assert type(error) is kind
    assert error.status_code == status
    assert str(error) == "the reason"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the server answered 500 and gave no reason"),
        (b"  \n", "the server answered 500 and gave no reason"),
        (b"Bad Gateway", "Bad Gateway"),
        (b"\xff", "�"),
        (b'{"error": "x"}', '{"error": "x"}'),
        (b'{"detail": null}', '{"detail": null}'),
        (b'["x"]', '["x"]'),
        (b'{"detail": [{"loc": ["body"], "msg": "m"}]}', '[{"loc": ["body"], "msg": "m"}]'),
        (b'{"detail": ""}', "the server answered 500 and gave no reason"),
    ],
)
def test_the_message_is_the_detail_else_the_body(content: bytes, message: str) -> None:
    assert str(errors.parse_error(500, content)) == message


@given(st.integers(100, 999), st.binary() | st.text().map(lambda text: json.dumps({"detail": text}).encode()))
def test_any_answer_is_an_error_with_a_message(status: int, content: bytes) -> None:
    error = errors.parse_error(status, content)
    assert isinstance(error, errors.LLMEngineError)
    assert str(error)


def test_deep_json_is_no_trouble() -> None:
    assert errors.parse_error(500, b"[" * 100_000).status_code == 500


def test_all_errors_have_one_root() -> None:
    for name in errors.__all__:
        kind = getattr(errors, name)
        if isinstance(kind, type):
            assert issubclass(kind, errors.LLMEngineError)
    assert issubclass(errors.ValidationError, ValueError)
