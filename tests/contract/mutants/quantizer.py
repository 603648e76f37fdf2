"""Quantizers that are wrong."""

from __future__ import annotations

from tests.contract import wrong_quantizers as wrong
from tests.contract.mutants import Mutant

from llmengine_core.testing.contracts.quantizer import QuantizerContract
from llmengine_core.types.declarations import QuantizationMethod, QuantizerInfo

METHODS = (QuantizationMethod(name="half", bits=4.5), QuantizationMethod(name="quarter", bits=2.25))


def _mutant(
    name: str,
    bug: str,
    quantizer: type[wrong.Right],
    *killers: str,
    methods: tuple[QuantizationMethod, ...] = METHODS,
) -> Mutant:
    declared = QuantizerInfo(
        name=name,
        factory=f"{quantizer.__module__}:{quantizer.__name__}",
        methods=methods,
        backends=frozenset({"transformers", "other"}),
        stored=frozenset({"half-stored"}),
    )
    about = {"subject": name, "info": classmethod(lambda cls: declared)}
    return Mutant(name, bug, type(quantizer.__name__, (QuantizerContract,), about), killers)


JSON = "test_load_options_are_json"
SAME = "test_load_options_are_always_the_same"
LIGHT = "test_load_options_need_no_engine"
MEASURED = "test_methods_are_named_and_measured"
MUTANTS: list[Mutant] = [
    _mutant("not_json", "gives a set, which no JSON holds", wrong.NotJSON, JSON),
    _mutant("not_json_where_stored", "gives NaN for a stored form", wrong.NotJSONWhereStored, JSON),
    _mutant("aliased", "gives every caller the same dictionary", wrong.Aliased, SAME),
    _mutant("aliased_within", "gives every caller the same dictionary within another", wrong.AliasedWithin, SAME),
    _mutant("moody", "draws an option by lot", wrong.Moody, SAME),
    _mutant("hashing", "lists what has another order in each process", wrong.Hashing, LIGHT),
    _mutant("heavy", "imports an engine to answer", wrong.Heavy, LIGHT),
    _mutant("foreign", "raises KeyError for a method that it hasn't", wrong.Foreign,
            "test_an_unknown_method_is_no_surprise"),
    _mutant("weightless", "declares a method that takes no bits", wrong.Right, MEASURED,
            methods=(QuantizationMethod(name="half", bits=0),)),
    _mutant("growing", "declares a method that takes more than a full weight", wrong.Right, MEASURED,
            methods=(QuantizationMethod(name="half", bits=64),)),
    _mutant("twice", "declares two methods of one name", wrong.Right, MEASURED,
            methods=(QuantizationMethod(name="half", bits=4), QuantizationMethod(name="half", bits=2))),
    _mutant("unspeakable", "declares a method whose name has a blank", wrong.Right, MEASURED,
            methods=(QuantizationMethod(name="half a bit", bits=4),)),
]  # fmt: skip
