"""Keys of objects, odd ones first of all."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

__all__ = ["keys", "not_keys"]

SEGMENTS = (
    "a", "b", "A", "a b", " ", "a.b", "...", ".hidden", "a~", "é", "e\u0301", "字", "😀", "%2e%2e", "a%2Fb", "a?b#c",
    "a\\b", "CON", "a:b", "*", "-rf", "a+b", "&amp;", "x" * 200,
)  # fmt: skip
"""Each is sound and has confused a storage: quoting, normalization, patterns, reserved names, length."""


def keys(*, depth: int = 3) -> SearchStrategy[str]:
    """Keys of at most ``depth`` segments: any Unicode but control characters; none empty, "." or ".."."""
    characters = st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="/")
    segment = st.sampled_from(SEGMENTS) | st.text(characters, min_size=1, max_size=8).filter(
        lambda each: each not in (".", "..")
    )
    return st.lists(segment, min_size=1, max_size=depth).map("/".join)


def not_keys() -> SearchStrategy[str]:
    """What is no key, and must be refused before anything is touched."""
    wrong = st.sampled_from(["", ".", "..", "a\0", "a\nb", "\x7f", "a\x85", "\ud800"])
    return st.builds(
        lambda before, segment, after: "/".join([*before, segment, *after]),
        st.lists(st.sampled_from(SEGMENTS), max_size=2),
        wrong,
        st.lists(st.sampled_from(SEGMENTS), max_size=2),
    )
