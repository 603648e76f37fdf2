"""Constraints on a text: satisfiable, and mostly answered in a dozen tokens."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

import lark
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from llmengine_core.testing.gbnf import Choice, Class, Literal, Node, Repeated, Rule, Sequence
from llmengine_core.testing.strategies.schemas import schemas_with_instances
from llmengine_core.types.sampling import StructuredKind, StructuredOutput

__all__ = ["choices", "constraints", "constraints_with_texts", "grammars", "regexes", "twin_grammars"]


def constraints(kind: StructuredKind | None = None) -> SearchStrategy[StructuredOutput]:
    """Constraints of a kind, or of all kinds, not translated; some text of a few characters obeys each."""
    return constraints_with_texts(kind).map(lambda both: both[0])


def constraints_with_texts(
    kind: StructuredKind | None = None,
) -> SearchStrategy[tuple[StructuredOutput, str]]:
    """Constraints, each with a text that obeys it; JSON is written as ``json.dumps`` does, members in order."""
    kinds: dict[StructuredKind, SearchStrategy[tuple[StructuredOutput, str]]] = {
        "json": schemas_with_instances().map(
            lambda both: (
                StructuredOutput("json", json.dumps(both[0], ensure_ascii=False)),
                json.dumps(both[1], ensure_ascii=False),
            )
        ),
        "regex": _regexes_with_texts(),
        "choice": choices().flatmap(
            lambda each: st.tuples(st.just(StructuredOutput("choice", each)), st.sampled_from(each))
        ),
        "grammar": _grammars_with_texts(),
    }
    return kinds[kind] if kind is not None else st.one_of(*kinds.values())


# --------------------------------------------------------------------------------------------------- choices

LIKELY = (
    "yes", "no", "yes, please", "ye", "Yes", " yes", "maybe", "1", "10", 'say "no"', "it's", "a\\b", "é", "e\u0301",
    "東京", "😀", "😀😀", "a\nb", "<|x|>", "# a", "/", "%", "\u2028",
)  # fmt: skip


def choices(*, max_size: int = 5) -> SearchStrategy[tuple[str, ...]]:
    """Texts to choose from, none empty: beginnings of each other, quotes, several scripts, and any other."""
    other = st.text(
        st.sampled_from("abc é\"'\\") | st.characters(codec="utf-8", exclude_characters="\0"), max_size=5
    )
    choice = st.sampled_from(LIKELY) | other.filter(bool)
    return st.lists(choice, min_size=1, max_size=max_size, unique=True).map(tuple)


# --------------------------------------------------------------------------------------------------- regexes

_ATOMS = st.sampled_from(
    [
        *"ab1_/\"'é😀-",
        r"\.",
        r"\\",
        r"\{",
        r"\d",
        r"\w",
        r"\x61",
        "[ab]",
        "[a-c1]",
        "[^a]",
        r"[\d_-]",
        r"[^\n\\]",
        ".",
    ]
)
_TIMES = st.sampled_from(["?", "{2}", "{0,2}", "{1,3}", "??", "{1}", "+"])
_ALPHABET = "aAbBcC1_-/\"'\\{}.,: é😀"


def regexes() -> SearchStrategy[str]:
    """Patterns that Rust and Python read alike, and ECMAScript but for classes beyond ASCII; none has an anchor."""
    return st.recursive(
        _ATOMS,
        lambda inner: st.one_of(
            st.builds(lambda one, other: one + other, inner, inner),
            st.builds(lambda one, other: f"(?:{one}|{other})", inner, inner),
            st.builds(lambda one, times: f"({one}){times}", _ATOMS, _TIMES),
        ),
        max_leaves=5,
    )


def _regexes_with_texts() -> SearchStrategy[tuple[StructuredOutput, str]]:
    return regexes().flatmap(
        lambda pattern: st.tuples(
            st.just(StructuredOutput("regex", pattern)),
            st.from_regex(re.compile(pattern), fullmatch=True, alphabet=st.sampled_from(_ALPHABET)),
        )
    )


# -------------------------------------------------------------------------------------------------- grammars

_WORDS = ("yes", "no", "maybe", "(", ")", ",", "é", '"', "\\", "\n", "😀")
_CLASSES = ((("a", "c"),), (("0", "9"),), (("d", "d"), ("t", "w")), (("A", "F"),))
# No word begins another, and none begins with a letter of a class: greedy lexers read them as all others do.


def _nodes() -> SearchStrategy[Node]:
    leaves: SearchStrategy[Node] = st.sampled_from(_WORDS).map(Literal) | st.sampled_from(_CLASSES).map(Class)
    return st.recursive(
        leaves | st.just(Rule("item")),
        lambda inner: st.one_of(
            st.lists(inner, min_size=2, max_size=3, unique=True).map(lambda each: Choice(tuple(each))),
            st.lists(inner, min_size=2, max_size=3).map(lambda each: Sequence(tuple(each))),
            st.builds(
                lambda one, times: Repeated(one, *times),
                leaves,
                st.sampled_from([(0, 1), (1, 2), (2, 2), (0, 2), (1, None)]),
            ),
        ),
        max_leaves=4,
    )


def _rules() -> SearchStrategy[dict[str, Node]]:
    """``item`` names no rule but, at its end, itself."""

    def ruled(root: Node, item: Node, recursive: bool) -> dict[str, Node]:
        item = Literal("no") if _names(item) else item
        again = Sequence((Literal("("), Rule("item"), Literal(")")))
        return {"root": root, "item": Choice((item, again)) if recursive and item != again else item}

    return st.builds(ruled, _nodes(), _nodes(), st.booleans())


def _names(node: Node) -> bool:
    match node:
        case Rule(_):
            return True
        case Choice(inner) | Sequence(inner):
            return any(map(_names, inner))
        case Repeated(inner, _, _):
            return _names(inner)
        case _:
            return False


def grammars(*, lark: bool = True, gbnf: bool = True) -> SearchStrategy[str]:
    """Lark and GBNF grammars of short words and single characters; some hold themselves."""
    return _grammars_with_texts(lark=lark, gbnf=gbnf).map(lambda both: str(both[0].value))


class Twins(NamedTuple):
    """One language in two notations, and a text of it."""

    lark: str
    gbnf: str
    text: str


def twin_grammars() -> SearchStrategy[Twins]:
    """Grammars as ``grammars`` draws them, each written as Lark and as GBNF."""
    return (
        _rules()
        .filter(lambda rules: _is_lark(_lark(rules)))
        .flatmap(
            lambda rules: st.builds(
                Twins, st.just(_lark(rules)), st.just(_gbnf(rules)), _spelled(rules["root"], rules, depth=2)
            )
        )
    )


def _grammars_with_texts(
    *, lark: bool = True, gbnf: bool = True
) -> SearchStrategy[tuple[StructuredOutput, str]]:
    notations = [name for name, wanted in (("lark", lark), ("gbnf", gbnf)) if wanted]
    return st.builds(
        lambda twins, name: (StructuredOutput("grammar", getattr(twins, name)), twins.text),
        twin_grammars(),
        st.sampled_from(notations),
    )


def _is_lark(grammar: str) -> bool:
    try:
        lark.Lark(grammar, parser="earley", lexer="dynamic_complete")
    except lark.exceptions.GrammarError:  # Lark takes no alternative twice
        return False
    return True


def _gbnf(rules: dict[str, Node]) -> str:
    return "".join(f"{name} ::= {_written(node, gbnf=True)}\n" for name, node in rules.items())


def _lark(rules: dict[str, Node]) -> str:
    return "".join(
        f"{'start' if name == 'root' else name}: {_written(node, gbnf=False)}\n"
        for name, node in rules.items()
    )


def _written(node: Node, *, gbnf: bool) -> str:
    match node:
        case Literal(text):
            return json.dumps(text, ensure_ascii=False)
        case Class(ranges):
            inner = "".join(first if first == last else f"{first}-{last}" for first, last in ranges)
            return f"[{inner}]" if gbnf else f"/[{inner}]/"
        case Rule(name):
            return name
        case Choice(options):
            return "(" + " | ".join(_written(each, gbnf=gbnf) for each in options) + ")"
        case Sequence(parts):
            return "(" + " ".join(_written(each, gbnf=gbnf) for each in parts) + ")"
        case Repeated(inner, least, most):
            plain = {(0, 1): "?", (1, None): "+"}.get((least, most))
            counted = (f"{{{least},{most}}}" if gbnf else f"~{least}..{most}") if plain is None else plain
            return f"({_written(inner, gbnf=gbnf)}){counted}"


def _spelled(node: Node, rules: dict[str, Node], *, depth: int) -> SearchStrategy[str]:
    """Texts that a node spells; rules that hold themselves are gone into ``depth`` times."""
    match node:
        case Literal(text):
            return st.just(text)
        case Class(ranges):
            return st.one_of(*(st.characters(min_codepoint=ord(a), max_codepoint=ord(b)) for a, b in ranges))
        case Rule(name):
            inner = rules[name]
            if isinstance(inner, Choice) and depth == 0:
                inner = inner.options[0]
            return _spelled(inner, rules, depth=depth - 1)
        case Choice(options):
            return st.one_of(*(_spelled(each, rules, depth=depth) for each in options))
        case Sequence(parts):
            return st.tuples(*(_spelled(each, rules, depth=depth) for each in parts)).map("".join)
        case Repeated(inner, least, most):
            each = _spelled(inner, rules, depth=depth)
            return st.lists(each, min_size=least, max_size=least + 2 if most is None else most).map("".join)
