"""Chunks become the API's responses: C07, C08, C09."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmengine_core.errors import RequestTimeoutError, ServerError
from llmengine_core.responses import StreamResponses, completion_response, file_response
from llmengine_core.services.completions import Completed
from llmengine_core.types.generation import GenerationChunk, Token, Usage
from llmengine_core.types.objects import FileRecord

tokens = st.builds(Token, id=st.integers(0, 99), text=st.text(max_size=4), logprob=st.floats(-50, 0))


@st.composite
def chunkings(draw: st.DrawFn) -> list[GenerationChunk]:
    """One answer, cut into chunks anywhere; text may be held back, but never comes before its tokens."""
    answer = draw(st.lists(tokens, min_size=1, max_size=12))
    text = "".join(token.text for token in answer)
    chunks: list[GenerationChunk] = []
    given_tokens = given_text = 0
    while given_tokens < len(answer):
        step = draw(st.integers(1, len(answer) - given_tokens))
        piece = answer[given_tokens : given_tokens + step]
        given_tokens += step
        known = len("".join(token.text for token in answer[:given_tokens]))
        end = draw(st.integers(given_text, known))
        chunks.append(GenerationChunk(text[given_text:end], tuple(piece)))
        given_text = end
    usage = Usage(draw(st.integers(1, 99)), len(answer))
    if draw(st.booleans()):
        chunks.append(GenerationChunk(text[given_text:]))
    else:
        chunks[-1] = replace(chunks[-1], text=chunks[-1].text + text[given_text:])
    chunks[-1] = replace(chunks[-1], finish_reason="stop", usage=usage)
    return chunks


def outputs(chunks: list[GenerationChunk], *, log_probs: bool) -> list[dict[str, Any]]:
    responses = StreamResponses("request-1", log_probs=log_probs)
    found = [response for chunk in chunks for response in responses.chunk(chunk)]
    assert {response["request_id"] for response in found} == {"request-1"}
    assert all(response["error"] is None for response in found)
    return [response["output"] for response in found]


@given(chunkings(), st.booleans())
def test_c09_any_chunking_gives_the_same_text_and_counts(
    chunks: list[GenerationChunk], log_probs: bool
) -> None:
    found = outputs(chunks, log_probs=log_probs)
    usage = chunks[-1].usage
    assert usage is not None
    assert "".join(each["text"] for each in found) == "".join(chunk.text for chunk in chunks)
    assert [each["finished"] for each in found] == [False] * (len(found) - 1) + [True]
    counts = [each["num_completion_tokens"] for each in found]
    assert counts == sorted(counts)
    assert counts[-1] == usage.completion_tokens
    assert found[-1]["num_prompt_tokens"] == usage.prompt_tokens
    assert json.loads(json.dumps(found)) == found


@given(chunkings())
def test_c07_every_token_has_a_response_of_its_own(chunks: list[GenerationChunk]) -> None:
    found = outputs(chunks, log_probs=True)
    wanted = [{"token": token.text, "log_prob": token.logprob} for chunk in chunks for token in chunk.tokens]
    assert [each["token"] for each in found if each["token"] is not None] == wanted
    seen = ""
    shown = ""
    for each in found:
        seen += each["token"]["token"] if each["token"] else ""
        shown += each["text"]
        assert seen.startswith(shown)  # text never comes before the token that it is part of


@given(chunkings())
def test_c07_tokens_are_left_out_unless_asked_for(chunks: list[GenerationChunk]) -> None:
    found = outputs(chunks, log_probs=False)
    assert len(found) == len(chunks)
    assert all(each["token"] is None for each in found)


def test_c07_tokens_of_one_chunk_take_their_own_text_where_none_is_held_back() -> None:
    both = (Token(1, "a", logprob=-1.0), Token(2, "b", logprob=-2.0))
    whole = outputs([GenerationChunk("ab", both)], log_probs=True)
    assert [(each["text"], each["num_completion_tokens"]) for each in whole] == [("a", 1), ("b", 2)]
    held = outputs([GenerationChunk("a", both)], log_probs=True)
    assert [each["text"] for each in held] == ["", "a"]


def test_c08_a_count_never_falls_even_where_a_backend_reports_less() -> None:
    chunks = [
        GenerationChunk("ab", (Token(1, "a"), Token(2, "b"))),
        GenerationChunk("", finish_reason="stop", usage=Usage(3, 1)),
    ]
    assert [each["num_completion_tokens"] for each in outputs(chunks, log_probs=False)] == [2, 2]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RequestTimeoutError("late"), 504),
        (ServerError("broken", status_code=503), 503),
        (ServerError("broken"), 500),
    ],
)
def test_c09_a_late_failure_is_a_response(error: ServerError, status: int) -> None:
    response = StreamResponses("request-1", log_probs=False).error(error)
    content = response["error"]["content"]
    assert (response["request_id"], response["output"]) == ("request-1", None)
    assert (response["error"]["status_code"], content["error"]) == (status, str(error))
    assert datetime.now(UTC) - datetime.fromisoformat(content["timestamp"]) < timedelta(minutes=1)


@pytest.mark.parametrize("log_probs", [True, False])
def test_c07_a_whole_answer(log_probs: bool) -> None:
    done = Completed(
        "request-1", "a", (Token(1, "a", logprob=-1.0), Token(0, "", logprob=-0.5)), "stop", Usage(3, 2)
    )
    assert completion_response(done, log_probs=log_probs) == {
        "request_id": "request-1",
        "output": {
            "text": "a",
            "num_prompt_tokens": 3,
            "num_completion_tokens": 2,
            "tokens": [{"token": "a", "log_prob": -1.0}, {"token": "", "log_prob": -0.5}]
            if log_probs
            else None,
        },
    }


def test_l01_a_file_shows_its_name_and_size_only() -> None:
    record = FileRecord(
        id="file-1", filename="a.csv", size=5, owner="root", created_at=0.0, object_key="files/1"
    )
    assert file_response(record) == {"id": "file-1", "filename": "a.csv", "size": 5}
