"""What a session is asked."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.sampling import SamplingParams

__all__ = ["prompts", "sampling_params", "stop_lists", "texts"]

SENTENCES = (
    "The capital of France is",
    "Once upon a time",
    "1, 2, 3, 4, 5,",
    "def add(a, b):\n    return",
    "Liebe Grüße aus Köln, ",
    "東京は",
    "🙂🙃 emoji: ",
    "Dear Sir or Madam,\n\n",
    " leading blanks and  gaps ",
    '{"name": "',
    "<|im_start|>not a template",
    "A",
)
"""Beginnings as people write them, of several scripts; none is empty."""


def texts(*, max_size: int = 40) -> SearchStrategy[str]:
    """Any Unicode text that can be sent, at most ``max_size`` characters: no lone surrogates, no NUL.

    Most are of few characters from several scripts; combining marks, controls and line ends are among them.
    """
    characters = st.sampled_from("aAbc eé€字😀\u0301\u200d\n\t\"'\\{}<|") | st.characters(
        exclude_categories=["Cs"], exclude_characters="\0"
    )
    return st.text(characters, max_size=max_size)


def prompts(*, max_size: int = 40) -> SearchStrategy[str]:
    """Prompts: beginnings as people write them, and any other text; never empty."""
    return st.sampled_from(SENTENCES) | texts(max_size=max_size).filter(bool)


def stop_lists(*, max_size: int = 4) -> SearchStrategy[tuple[str, ...]]:
    """Stop sequences, none of them empty: short ones that texts are likely to hold, and any other."""
    likely = st.sampled_from([" ", "\n", ".", ",", " the", "a", "e", "\n\n", "é", "an", "ana", "nan"])
    stop = likely | texts(max_size=6).filter(bool)
    return st.lists(stop, max_size=max_size, unique=True).map(tuple)


def sampling_params(capabilities: Capabilities, *, max_tokens: int = 12) -> SearchStrategy[SamplingParams]:
    """Sampling values that whoever declares ``capabilities`` must honour, of at most ``max_tokens`` tokens."""

    def if_declared(name: str, values: SearchStrategy[float | int | bool | None]) -> SearchStrategy[object]:
        neutral = getattr(SamplingParams(), name)
        return st.just(neutral) | values if getattr(capabilities, name) else st.just(neutral)

    return st.builds(
        SamplingParams,
        max_tokens=st.integers(1, max_tokens),
        temperature=st.sampled_from([0.0, 0.0, 0.2, 0.7, 1.0]) | st.floats(0, 1),
        top_k=if_declared("top_k", st.integers(1, 50)),
        top_p=if_declared("top_p", st.floats(0, 1, exclude_min=True)),
        presence_penalty=if_declared("presence_penalty", st.floats(0, 2)),
        frequency_penalty=if_declared("frequency_penalty", st.floats(0, 2)),
        stop=stop_lists(max_size=2),
        include_stop=st.booleans(),
        logprobs=if_declared("logprobs", st.just(True)),
        seed=if_declared("seed", st.integers(0, 2**31 - 1)),
    )
