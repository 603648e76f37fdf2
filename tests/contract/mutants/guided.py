"""Guided decoders that are wrong."""

from __future__ import annotations

from tests.contract import wrong_decoders as wrong
from tests.contract.mutants import Mutant

from llmengine_core.testing.contracts.guided.contract import GuidedDecoderContract
from llmengine_core.types.declarations import GuidedDecoderInfo
from llmengine_core.types.sampling import StructuredKind

KINDS: frozenset[StructuredKind] = frozenset({"json", "regex", "choice", "grammar"})
INVALID = (
    "test_c03_json_an_invalid_schema_is_refused",
    "test_c03_regex_an_invalid_pattern_is_refused",
    "test_c03_choice_of_nothing_is_refused",
    "test_c03_grammar_an_invalid_one_is_refused",
)
MEANT = (
    "test_c03_json_what_does_not_obey_is_refused",
    "test_c03_regex_means_the_whole_text",
    "test_c03_choice_means_one_of_them",
    "test_c03_grammar_means_its_language",
)


def _mutant(
    name: str,
    bug: str,
    decoder: type[wrong.Wrong],
    *killers: str,
    shipped: str = "",
    kinds: frozenset[StructuredKind] = KINDS,
) -> Mutant:
    declared = GuidedDecoderInfo(
        name=name,
        factory=f"{decoder.__module__}:{decoder.__name__}",
        kinds=kinds,
        dialects=frozenset({"llguidance"}),
    )
    about = {
        "subject": name,
        "info": classmethod(lambda cls: declared),
        "answering_seconds": 0.3,
        "patience": 20.0,
    }
    return Mutant(name, bug, type(decoder.__name__, (GuidedDecoderContract,), about), killers, shipped)


MUTANTS: list[Mutant] = [
    _mutant(
        "blind", "checks nothing, and says yes to every text", wrong.Blind, *INVALID, *MEANT,
        "test_c03_json_combined_keywords_hold", "test_c03_json_a_dead_end_is_refused_at_once",
        shipped="vllm-project/vllm#53975",
    ),
    _mutant("drops_not", "drops the keyword not", wrong.DropsNot, "test_c03_json_no_keyword_is_ignored"),
    _mutant("drops_unique_items", "drops the keyword uniqueItems", wrong.DropsUniqueItems,
            "test_c03_json_no_keyword_is_ignored"),
    _mutant("drops_required", "drops the keyword required", wrong.DropsRequired,
            "test_c03_json_no_keyword_is_ignored"),
    _mutant("drops_additional", "lets any further member pass", wrong.DropsAdditional,
            "test_c03_json_no_keyword_is_ignored"),
    _mutant("drops_references", "takes a $ref for anything", wrong.DropsReferences,
            "test_c03_json_local_references_are_followed"),
    _mutant("requires_all", "requires all members that a schema describes", wrong.RequiresAll,
            "test_c03_json_no_keyword_is_ignored"),
    _mutant("objects_only", "takes no JSON but objects, whatever the schema says", wrong.ObjectsOnly,
            "test_c03_json_what_obeys_is_accepted"),
    _mutant("strict", "refuses annotations as unknown keywords", wrong.Strict,
            "test_c03_json_annotations_change_nothing"),
    _mutant("unable", "can enforce next to nothing of what it declares", wrong.Unable,
            "test_c03_json_everyday_schemas_are_enforced", "test_c03_choice_everyday_choices_are_enforced",
            "test_c03_regex_everyday_patterns_are_enforced",
            "test_c03_grammar_both_notations_are_enforced"),
    _mutant("lenient", "takes NaN and raw line ends for JSON", wrong.Lenient,
            "test_c03_json_what_is_no_json_is_refused"),
    _mutant("mute", "can't translate what it takes", wrong.Mute, "test_c03_translates_into_each_declared_dialect"),
    _mutant("constant", "translates everything into the same", wrong.Constant,
            "test_c03_translates_into_each_declared_dialect", shipped="mudler/LocalAI#8806"),
    _mutant("fetching", "fetches remote references", wrong.Fetching,
            "test_c03_json_remote_references_are_never_fetched"),
    _mutant("searching", "searches for a pattern instead of matching all", wrong.Searching,
            "test_c03_regex_means_the_whole_text"),
    _mutant("dot_all", "lets a dot match a line end", wrong.DotAll, "test_c03_regex_no_construct_is_ignored"),
    _mutant("never_pruning", "takes anything for a beginning", wrong.NeverPruning,
            "test_c03_json_a_dead_end_is_refused_at_once", *MEANT[1:]),
    _mutant("easy", "takes a beginning for the whole", wrong.Easy, *MEANT),
    _mutant("whole_only", "takes only the whole for a beginning", wrong.WholeOnly,
            "test_c03_what_is_accepted_is_accepted_so_far"),
    _mutant("stripping", "strips a text before it is judged", wrong.Stripping, *MEANT[1:]),
    _mutant("trusting", "takes what doesn't compile for no constraint", wrong.Trusting, *INVALID),
    _mutant("speechless", "gives the same reason whatever is wrong",
            wrong.Speechless, INVALID[0], INVALID[1], INVALID[3]),
    _mutant("lark_only", "takes grammars of one notation only", wrong.LarkOnly,
            "test_c03_grammar_both_notations_are_enforced"),
    _mutant("one_per_kind", "keeps one compiled constraint of each kind", wrong.OnePerKind,
            "test_order_of_calls_makes_no_difference"),
    _mutant("racing", "keeps what is asked about in an attribute", wrong.Racing,
            "test_many_threads_share_one_decoder"),
    _mutant("mislabelled", "names another dialect than it was asked for", wrong.Mislabelled,
            "test_c03_translates_into_each_declared_dialect"),
    _mutant("any_dialect", "calls its translation whatever it is asked for", wrong.AnyDialect,
            "test_c03_another_dialect_is_refused"),
    _mutant("raising", "lets the compiler's errors through", wrong.Raising, "test_c03_errors_are_ours"),
    _mutant("undeclared", "takes kinds that it doesn't declare", wrong.Wrong,
            "test_c03_an_undeclared_kind_is_refused",
            kinds=frozenset({"json"})),
    _mutant("exploding", "spells counted repetitions out", wrong.Exploding,
            "test_c03_a_constraint_of_any_size_is_answered"),
    _mutant("backtracking", "matches patterns by backtracking", wrong.Backtracking,
            "test_c03_a_text_of_any_size_is_judged"),
]  # fmt: skip
