"""Two programs with one home, at once."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.procfs import engines_of
from tests.e2e.program import Program

pytestmark = pytest.mark.engine

RACES = 20
CODE = f"""
import io
other = sys.argv[1]
say("here")
def attempt(number):
    heard()
    try:
        Model.create(f"raced-{{number}}", MODEL, "latest", inference_framework="llama_cpp", labels={{"by": other}})
    except errors.BadRequestError as error:
        say("lost", str(error))
    else:
        say("won", None)
for number in range({RACES}):
    attempt(number)
heard()
say(sorted(model.name for model in Model.list().model_endpoints))
heard()
say(ask(model="raced-0").output.text)
uploaded = [File.upload(io.BytesIO(f"{{other}} {{n}}".encode())).id for n in range({RACES})]
say(len(uploaded))
heard()
contents = {{File.download(file.id).content for file in File.list().files}}
say(sorted(contents))
"""


def test_m10_of_two_that_create_one_name_at_once_exactly_one_wins_and_nothing_is_lost(
    program: Program, home: Path
) -> None:
    with ExitStack() as started:
        both = [started.enter_context(program.start(CODE, each)) for each in ("a", "b")]

        def say_to_both() -> None:
            for each in both:
                each.tell()

        def hear_both() -> list[list[Any]]:
            return [each.hear() for each in both]

        assert hear_both() == [["here"], ["here"]]
        for number in range(RACES):
            say_to_both()
            (lost, why), (won, _) = sorted(hear_both())
            assert (lost, won) == ("lost", "won")
            assert f"name='raced-{number}': a model of that name exists" in why
        say_to_both()
        names = sorted(f"raced-{number}" for number in range(RACES))
        for (listed,) in hear_both():
            assert listed[:-1] == names
        say_to_both()
        assert hear_both() == [[" Paris.\n"]] * 2
        assert len(engines_of(home)) == 2
        assert hear_both() == [[RACES]] * 2
        say_to_both()
        uploaded = sorted(f"{each} {number}" for each in "ab" for number in range(RACES))
        assert hear_both() == [[uploaded]] * 2
        assert [each.end() for each in both] == [0, 0]
        assert [each.stderr() for each in both] == ["", ""]
