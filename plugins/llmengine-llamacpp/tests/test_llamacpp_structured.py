"""C03: constraints, as the core hands them over, enforced by the real engine."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from llamacpp_engine import Engine, lark

from llmengine_core.errors import ServerError, UnsupportedFeatureError
from llmengine_core.types.sampling import StructuredOutput, Translation

pytestmark = pytest.mark.engine

SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["Ada", "Bob"]}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


async def test_c03_a_schema_is_obeyed(engine: Engine) -> None:
    answer = await engine.complete(
        "A person:", structured=lark(f"%json {json.dumps(SCHEMA)}"), max_tokens=200
    )
    assert answer.finish_reason == "stop"
    person = json.loads(answer.text)
    assert person["name"] in ("Ada", "Bob")
    assert 0 <= person["age"] <= 99


@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_c03_a_pattern_is_obeyed(engine: Engine, temperature: float) -> None:
    constraint = lark("/[0-9]{3}-[a-f]{4}/")
    answer = await engine.complete("Number:", structured=constraint, max_tokens=50, temperature=temperature)
    assert re.fullmatch("[0-9]{3}-[a-f]{4}", answer.text)


async def test_c03_a_choice_is_obeyed(engine: Engine) -> None:
    answer = await engine.complete("Yes or no?", structured=lark('" yes" | " no"'), frequency_penalty=0.5)
    assert answer.text in (" yes", " no")


async def test_c03_what_is_cut_obeys_so_far(engine: Engine) -> None:
    whole = await engine.complete("Number:", structured=lark('"12345678901234567890"'), max_tokens=50)
    cut = await engine.complete("Number:", structured=lark('"12345678901234567890"'), max_tokens=3)
    assert whole.text.startswith(cut.text)
    assert cut.finish_reason == "length"


@pytest.mark.parametrize("translation", [None, Translation("gbnf", 'root ::= "a"')])
async def test_c03_nothing_untranslated_reaches_the_engine(
    engine: Engine, translation: Translation | None
) -> None:
    constraint = StructuredOutput("regex", "a", translation)
    with pytest.raises(ServerError, match="not translated"):
        await engine.complete("Hi", structured=constraint)


async def test_c13_what_the_session_refuses_is_declared(engine: Engine) -> None:
    params: dict[str, Any] = {"temperature": 0.9, "top_k": 9, "top_p": 0.9, "seed": 1, "logprobs": True}
    assert engine.session.facts.capabilities.structured_excludes == {"presence_penalty"}
    answer = await engine.complete("Hi", structured=lark('"a"'), frequency_penalty=0.5, **params)
    assert answer.text == "a"


async def test_c13_a_presence_penalty_under_a_constraint_is_refused(engine: Engine) -> None:
    constraint = replace(lark('"a"'), kind="regex", value="a")
    with pytest.raises(UnsupportedFeatureError, match="presence_penalty together with guided_regex"):
        await engine.complete("Hi", structured=constraint, presence_penalty=0.5)
    await engine.complete("Hi", structured=constraint)  # its slot is free
