"""The lines between the core and a worker, both ways."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmengine_core.worker.contract import Emitted, Order, Prompt
from llmengine_core.worker.wire import CHECKS, Broken, Command, Lines, command_of, entry_of, frame
from llmengine_core.worker_session import _finish, _token

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
NAMES = ["generate", "cancel", "count", "load_adapter", "unload_adapter"]
LIKE_COMMANDS = st.builds(
    lambda name, rest: [name, *rest], st.sampled_from(NAMES), st.lists(JSON, max_size=4)
)
VALUES: dict[str, Any] = {
    "max_tokens": 20, "temperature": 0.2, "top_k": None, "top_p": 1.0, "presence_penalty": 0.0,
    "frequency_penalty": 0.0, "logprobs": False, "seed": None, "grammar": None, "adapter": None,
}  # fmt: skip


@given(line=st.binary(max_size=100) | (JSON | LIKE_COMMANDS).map(lambda value: json.dumps(value).encode()))
@example(line=b"[" * 100_000)
@example(line=b'["cancel",true]')
@example(line=b'["count",1,"' + b"9" * 5000 + b'"]')
@example(line=b'["count",' + b"9" * 5000 + b',"x"]')
def test_whatever_comes_is_a_command_or_broken(line: bytes) -> None:
    try:
        command = command_of(line)
    except Broken as error:
        told = str(error)
    else:
        told = command.name
        assert type(command.id) is int
        assert told in NAMES
    assert 0 < len(told) < 2000


def test_what_is_checked_is_what_an_order_holds() -> None:
    assert set(CHECKS) == set(Order.__dataclass_fields__) - {"id", "tokens"}


@pytest.mark.parametrize(
    ("sent", "prompt"),
    [
        ("é€\ud800", "é€\ud800"),
        ("", ""),
        ({"ids": [0, 7]}, (0, 7)),
        ({"messages": [["user", "hi"], ["assistant", ""]]}, (("user", "hi"), ("assistant", ""))),
    ],
)
def test_prompts_arrive_as_they_were_sent(sent: object, prompt: Prompt) -> None:
    assert command_of(frame("generate", 3, sent, VALUES)) == Command(
        name="generate",
        id=3,
        prompt=prompt,
        values=VALUES,
    )


@pytest.mark.parametrize("odd", [10**400, -(10**400), float("nan"), float("inf"), -0.1, 1.1, True, "1", None])
def test_c02_a_temperature_out_of_range_is_broken(odd: object) -> None:
    line = json.dumps(["generate", 3, "x", VALUES | {"temperature": odd}]).encode()
    with pytest.raises(Broken, match="temperature is"):
        command_of(line)


TOKENS = st.builds(
    Emitted,
    order=st.just(5),
    token=st.integers(0, 1 << 20),
    text=st.text(max_size=5),
    data=st.binary(max_size=8),
    logprob=st.none() | st.floats(-100, 0),
    finish=st.sampled_from([None, None, "stop", "length"]),
) | st.text(max_size=5).map(lambda text: Emitted(order=5, token=1, text=text, data=text.encode()))


@given(emitted=TOKENS)
def test_tokens_arrive_as_they_were_generated(emitted: Emitted) -> None:
    kind, (entry,) = json.loads(frame("step", [entry_of(7, emitted)]))
    token = _token(entry)
    assert (kind, entry[0]) == ("step", 7)
    assert (token.id, token.text, token.bytes, token.logprob) == (
        emitted.token,
        emitted.text,
        emitted.data,
        emitted.logprob,
    )
    assert _finish(entry) == emitted.finish


@pytest.mark.parametrize("logprob", [float("nan"), float("-inf")])
def test_what_is_no_number_does_not_travel(logprob: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        frame("step", [entry_of(7, Emitted(order=5, token=1, logprob=logprob))])


@given(
    lines=st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")), max_size=8),
    data=st.data(),
)
def test_lines_are_the_same_in_any_pieces(lines: list[bytes], data: st.DataObject) -> None:
    whole, found, reader = b"".join(line + b"\n" for line in lines) + b"rest", [], Lines()
    while whole:
        cut = data.draw(st.integers(1, len(whole)))
        found += reader.feed(memoryview(whole)[:cut])
        whole = whole[cut:]
    assert found == lines


@given(length=st.integers(0, 40), ended=st.booleans(), cut=st.integers(1, 40))
def test_a_line_may_be_as_long_as_is_said(length: int, ended: bool, cut: int) -> None:
    data, reader = b"x" * length + b"\n" * ended, Lines(20)

    def feed() -> None:
        reader.feed(data[:cut])
        reader.feed(data[cut:])

    if length > 20:
        with pytest.raises(Broken, match="more than 20 bytes"):
            feed()
    else:
        feed()
