from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from importlib.metadata import entry_points
from importlib.resources import files
from time import perf_counter

import pytest

from llmengine_core.errors import UnsupportedFeatureError
from llmengine_core.types.sampling import StructuredOutput
from llmengine_core.worker.contract import Masker
from llmengine_llguidance import plugin
from llmengine_llguidance.decoder import LLGuidanceDecoder
from llmengine_llguidance.worker.masker import LLGuidanceMasker

SCHEMA = StructuredOutput(
    "json", '{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}'
)


def test_the_entry_point_registers_a_decoder_of_every_kind() -> None:
    (entry,) = entry_points(group="llmengine", name="llguidance")
    assert entry.load() is plugin
    assert plugin.CONTRACT == 1
    (info,) = plugin.register_guided_decoders()
    assert info.name == "llguidance"
    assert info.kinds == {"json", "regex", "choice", "grammar"}
    assert info.dialects == {"llguidance"}
    assert info.factory == f"{LLGuidanceDecoder.__module__}:{LLGuidanceDecoder.__name__}"


def test_the_masker_and_what_it_needs_are_declared() -> None:
    (info,) = plugin.register_guided_decoders()
    assert info.masker is not None
    module, name = info.masker.split(":")
    assert getattr(import_module(module), name) is LLGuidanceMasker
    assert issubclass(LLGuidanceMasker, Masker)
    assert info.environment is not None
    for build in info.environment.builds:
        assert build.pins is not None
        package, path = build.pins.split(":")
        pins = files(package).joinpath(path).read_text().split()
        assert pins == [f"llguidance=={build.version}"] == list(build.requirements)


def test_registering_imports_no_compiler() -> None:
    code = """
import sys
from llmengine_llguidance.plugin import register_guided_decoders
register_guided_decoders()
sys.exit("llguidance" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_another_dialect_is_refused_by_name(decoder: LLGuidanceDecoder) -> None:
    with pytest.raises(UnsupportedFeatureError, match=r"'llguidance', not into 'xgrammar'.*install a plugin"):
        decoder.translate(SCHEMA, "xgrammar")


def test_a_constraint_is_compiled_once(decoder: LLGuidanceDecoder) -> None:
    decoder.check(SCHEMA)
    took = []
    for _ in range(50):
        again = StructuredOutput(SCHEMA.kind, str(SCHEMA.value))
        start = perf_counter()
        decoder.check(again)
        decoder.translate(again, "llguidance")
        took.append(perf_counter() - start)
    assert min(took) < 1e-3
