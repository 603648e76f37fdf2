"""The plugin declares its quantizer, which keeps its contract, and a model may ask for each of its methods."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points, requires
from importlib.resources import files

import pytest

from llmengine_bitsandbytes import plugin
from llmengine_bitsandbytes.quantizer import BitsAndBytes
from llmengine_core.arguments.model import parse_model
from llmengine_core.declaration_rules import flaws
from llmengine_core.errors import BadRequestError
from llmengine_core.interfaces.quantizer import Quantizer
from llmengine_core.testing.contracts.quantizer import QuantizerContract
from llmengine_core.types.declarations import CONTRACT_VERSION, QuantizerInfo

(INFO,) = plugin.register_quantizers()
NAMES = [method.name for method in INFO.methods]


class TestBitsAndBytes(QuantizerContract):
    quantizer = "bitsandbytes"


def test_it_is_found_and_speaks_the_contract() -> None:
    [entry] = entry_points(group="llmengine", name="bitsandbytes")
    assert entry.load() is plugin
    assert plugin.CONTRACT == CONTRACT_VERSION
    module, name = INFO.factory.split(":")
    assert issubclass(getattr(import_module(module), name), Quantizer)


def test_its_declaration_breaks_no_rule() -> None:
    assert flaws(INFO, QuantizerInfo) == []


def test_what_it_needs_is_pinned_and_never_in_this_environment() -> None:
    assert INFO.environment is not None
    for build in INFO.environment.builds:
        assert build.pins is not None
        package, path = build.pins.split(":")
        assert files(package).joinpath(path).read_text().split() == list(build.requirements)
    assert [each.split(">")[0] for each in requires("llmengine-bitsandbytes") or ()] == ["llmengine-core"]


@pytest.mark.parametrize("method", NAMES)
def test_m05_a_model_may_ask_for_each_method(method: str) -> None:
    spec = parse_model(name="small", model="small", inference_framework_image_tag="latest", quantize=method)
    assert spec.quantize == method


@pytest.mark.parametrize("method", NAMES)
def test_each_method_is_told_in_its_own_words(method: str) -> None:
    said = BitsAndBytes().load_options(method, "transformers")
    assert said["quantization_config"]["quant_method"] == "bitsandbytes"
    assert [other for other in NAMES if BitsAndBytes().load_options(other, "transformers") == said] == [
        method
    ]


def test_another_method_is_refused_by_name() -> None:
    with pytest.raises(BadRequestError, match="no method 'awq'; it has bitsandbytes, bitsandbytes-nf4"):
        BitsAndBytes().load_options("awq", "transformers")
