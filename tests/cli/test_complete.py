"""``llmengine complete``, on a backend that echoes and on one that does what it is told."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import time
from importlib import import_module
from pathlib import Path

import pytest
from tests.cli.program import Program, Run, terminal

from llmengine.data_types.completion import CompletionStreamResponse, CompletionSyncResponse

PIPE_CAPACITY = 65536
TEXTS = ["one two", "  blanks around  ", "ünï 🎉\n\n two\tlines\n", "\x1b[31mred", "-"]


@pytest.mark.parametrize("text", TEXTS[:-1])
@pytest.mark.parametrize("stream", ["--stream", "--no-stream"])
def test_c01_text_is_printed_as_it_is(run: Run, text: str, stream: str) -> None:
    done = run("complete", "--model", "echo", stream, text)
    assert (done.stdout, done.stderr, done.exit_code) == (text, "", 0)


@pytest.mark.parametrize("text", TEXTS)
def test_c01_standard_input_is_the_prompt_as_it_is(run: Run, text: str) -> None:
    done = run("complete", "--model", "echo", "-", stdin=text.encode())
    assert (done.stdout, done.exit_code) == (text, 0)


def test_c02_standard_input_must_be_text(run: Run) -> None:
    done = run("complete", "--model", "echo", "-", stdin=b"abc\xff")
    assert done.exit_code == 2
    assert "UTF-8" in done.stderr
    assert "byte 3" in done.stderr


def test_json_is_one_response_of_the_api(run: Run) -> None:
    done = run("complete", "--model", "echo", "--json", "one two three")
    found = json.loads(done.stdout)
    output = {"text": "one two three", "num_prompt_tokens": 3, "num_completion_tokens": 4, "tokens": None}
    assert found == {"request_id": found["request_id"], "output": output}
    assert CompletionSyncResponse.parse_obj(found).dict() == found


def test_c07_log_probabilities_join_to_the_text(run: Run) -> None:
    done = run("complete", "--model", "echo", "--json", "--log-probs", "one two three")
    output = json.loads(done.stdout)["output"]
    assert "".join(each["token"] for each in output["tokens"]) == output["text"]
    assert all(each["log_prob"] <= 0 for each in output["tokens"])
    assert len(output["tokens"]) == output["num_completion_tokens"]


def test_c07_log_probabilities_are_never_dropped(run: Run) -> None:
    done = run("complete", "--model", "echo", "--log-probs", "one")
    assert done.exit_code == 2
    assert "--json" in done.stderr


@pytest.mark.parametrize("log_probs", [[], ["--log-probs"]], ids=["plain", "log-probs"])
def test_c09_json_lines_are_the_responses_of_a_stream(run: Run, log_probs: list[str]) -> None:
    done = run("complete", "--model", "echo", "--json", "--stream", *log_probs, "one two three")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [CompletionStreamResponse.parse_obj(line).dict() for line in lines] == lines
    outputs = [line["output"] for line in lines]
    counts = [output["num_completion_tokens"] for output in outputs]
    assert "".join(output["text"] for output in outputs) == "one two three"
    assert [output["finished"] for output in outputs] == [False] * (len(lines) - 1) + [True]
    assert counts == sorted(counts)
    assert (counts[-1], outputs[-1]["num_prompt_tokens"]) == (4, 3)
    assert len({line["request_id"] for line in lines}) == 1
    tokens = "".join(output["token"]["token"] for output in outputs if output["token"])
    assert tokens == ("one two three" if log_probs else "")


@pytest.mark.usefixtures("obedient")
def test_every_sampling_option_reaches_the_engine(run: Run) -> None:
    options = (
        "--max-new-tokens 7 --temperature 0.5 --top-k 3 --top-p 0.9 --presence-penalty 1 --frequency-penalty 2 "
        "--stop a --stop b --include-stop-str-in-output"
    )
    done = run("complete", "--model", "obedient", *options.split(), "tell")
    assert json.loads(done.stdout) == {
        "max_tokens": 7,
        "temperature": 0.5,
        "top_k": 3,
        "top_p": 0.9,
        "presence_penalty": 1.0,
        "frequency_penalty": 2.0,
        "stop": ["a", "b"],
        "include_stop": True,
        "logprobs": False,
        "seed": None,
    }


@pytest.mark.usefixtures("obedient")
def test_the_defaults_are_those_of_the_api(run: Run) -> None:
    done = run("complete", "--model", "obedient", "tell")
    found = json.loads(done.stdout)
    assert (found["max_tokens"], found["temperature"], found["stop"]) == (20, 0.2, [])


def test_c06_stop(run: Run) -> None:
    arguments = ["complete", "--model", "echo", "--stop", "three", "--stop", "four", "one two three four"]
    assert run(*arguments).stdout == "one two "
    assert run(*arguments, "--include-stop-str-in-output").stdout == "one two three"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--max-new-tokens", "0"], "max_new_tokens"),
        (["--max-new-tokens", "1.5"], "--max-new-tokens"),
        (["--temperature", "nan"], "temperature"),
        (["--temperature", "2"], "temperature"),
        (["--top-k", "0"], "top_k"),
        (["--top-p", "0"], "top_p"),
        (["--presence-penalty", "-1"], "presence_penalty"),
        (["--frequency-penalty", "inf"], "frequency_penalty"),
        (["--stop", ""], "stop_sequences"),
        (["--timeout", "0"], "timeout"),
        (["--guided-json", "{"], "--guided-json"),
        (["--guided-json", "[]"], "--guided-json"),
        (["--guided-json", "@missing.json"], "missing.json"),
        (["--guided-regex", "a", "--guided-choice", "a"], "guided_regex and guided_choice"),
        (["--nonsense"], "--nonsense"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_c02_what_is_out_of_range_ends_in_2_and_is_named(run: Run, options: list[str], named: str) -> None:
    done = run("complete", "--model", "echo", *options, "one")
    assert (done.exit_code, done.stdout) == (2, "")
    assert named in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("obedient")
@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--guided-json", '{"enum": ["Rome"]}'], '"Rome"'),
        (["--guided-json", "@schema.json"], '"Rome"'),
        (["--guided-regex", "R[a-z]+"], "Rome"),
        (["--guided-choice", "Paris", "--guided-choice", "Rome"], "Rome"),
        (["--guided-grammar", 'start: "Rome"'], "Rome"),
        (["--guided-grammar", "@city.lark"], "Rome"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_c03_every_guided_option_reaches_the_engine(run: Run, options: list[str], text: str) -> None:
    """An answer that doesn't obey would be an error, and so would a constraint of another kind."""
    import_module("llmengine_llguidance.decoder")  # here, where the tests' watch over the loop allows it
    Path("schema.json").write_text('{"enum": ["Rome"]}')
    Path("city.lark").write_text('start: "Rome"')
    done = run("complete", "--model", "obedient", *options, "obey")
    assert (done.stdout, done.stderr, done.exit_code) == (text, "", 0)
    other = run("complete", "--model", "obedient", "--guided-choice", "Paris", "obey")
    assert other.exit_code == 1


def test_c13_what_the_backend_cant_do_is_refused(run: Run) -> None:
    Path("schema.json").write_text('{"type": "object"}')
    done = run("complete", "--model", "echo", "--guided-json", "@schema.json", "one")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "guided_json" in done.stderr


def test_m10_an_unknown_model_ends_in_3(run: Run) -> None:
    done = run("complete", "--model", "ecko", "one")
    assert (done.exit_code, done.stdout) == (3, "")
    assert "did you mean 'echo'?" in done.stderr


@pytest.mark.usefixtures("obedient")
def test_a_full_queue_ends_in_5(run: Run) -> None:
    done = run("complete", "--model", "obedient", "be busy")
    assert (done.exit_code, done.stdout, done.stderr) == (5, "", "Error: the queue is full\n")


@pytest.mark.usefixtures("obedient")
def test_c11_a_timeout_ends_in_6(run: Run) -> None:
    done = run("complete", "--model", "obedient", "--timeout", "0.5", "go on")
    assert done.exit_code == 6
    assert done.stdout.startswith("on and on and ")
    assert done.stderr.startswith("Error: ")


@pytest.mark.usefixtures("obedient")
def test_c09_what_breaks_off_is_shown_then_explained(run: Run) -> None:
    done = run("complete", "--model", "obedient", "break")
    assert (done.exit_code, done.stdout, done.stderr) == (1, "half an", "Error: the engine fell over\n")


@pytest.mark.usefixtures("obedient")
def test_c09_a_late_error_is_the_last_json_line(run: Run) -> None:
    done = run("complete", "--model", "obedient", "--json", "--stream", "break")
    assert done.exit_code == 1
    first, last = [CompletionStreamResponse.parse_obj(json.loads(line)) for line in done.stdout.splitlines()]
    assert first.output is not None
    assert first.output.text == "half an"
    assert last.output is None
    assert last.error is not None
    assert (last.error.status_code, last.error.content.error) == (500, "the engine fell over")


@pytest.mark.usefixtures("obedient")
def test_c09_an_error_before_the_first_chunk_leaves_the_output_empty(run: Run) -> None:
    done = run("complete", "--model", "obedient", "--json", "--stream", "be busy")
    assert (done.exit_code, done.stdout) == (5, "")


def test_a_terminal_gets_a_line_break_at_the_end(program: Program) -> None:
    with (
        terminal() as (theirs, shown),
        program.running("complete", "--model", "echo", "one two", stdout=theirs) as process,
    ):
        assert shown() == "one two\r\n"
        _, complaints = process.communicate(timeout=30)
    assert (process.returncode, complaints) == (0, b"")


@pytest.mark.usefixtures("obedient")
def test_a_reader_that_goes_ends_it_quietly(program: Program) -> None:
    with program.running("complete", "--model", "obedient", "go on") as process:
        assert process.stdout is not None
        assert process.stdout.read(6) == b"on and"
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(10) == 141


@pytest.mark.usefixtures("obedient")
@pytest.mark.parametrize("stalled", [False, True], ids=["read", "stalled"])
def test_c10_ctrl_c_ends_it_within_a_second(program: Program, stalled: bool) -> None:
    """Also while a reader that fell behind holds the output up."""
    with program.running("complete", "--model", "obedient", "flood" if stalled else "go on") as process:
        assert process.stdout is not None
        assert process.stdout.read(6) == b"on and"
        if stalled:
            wait_until_full(process)
        began = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(10) == 130
        assert time.monotonic() - began < 1
        _, complaints = process.communicate()
    assert complaints.strip() == b""


def wait_until_full(process: subprocess.Popen[bytes]) -> None:
    """Wait until the pipe that nobody reads takes no more."""
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    while int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder) < 0.99 * PIPE_CAPACITY:
        time.sleep(0.01)


def test_a_terminal_of_another_encoding_gets_what_it_can_show(program: Program) -> None:
    program.environment["PYTHONIOENCODING"] = "ascii"
    assert program("complete", "--model", "echo", "ü").stdout == b"?"
    answer = program("complete", "--model", "echo", "--json", "ü").stdout
    assert json.loads(answer.decode("ascii"))["output"]["text"] == "ü"


def test_debug_shows_where_and_what_is_logged(program: Program) -> None:
    done = program("complete", "--model", "ecko", "--debug", "one")
    assert (done.returncode, done.stdout) == (3, b"")
    assert b"Traceback" in done.stderr
    assert b"DEBUG:asyncio:" in done.stderr
