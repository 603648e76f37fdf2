"""Arguments of ``Model.create``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

__all__ = ["specs"]


def specs(model: str, inference_framework: str = "auto") -> SearchStrategy[Mapping[str, Any]]:
    """Sound keyword arguments of ``Model.create`` for a base model, without ``gpus``: what M02 to M09 allow.

    The names are few, so that they meet each other.
    """
    workers = st.sampled_from([(0, 1), (1, 1), (1, 2), (2, 3)])
    return st.builds(
        lambda bounds, given: {**given, "min_workers": bounds[0], "max_workers": bounds[1]},
        workers,
        st.fixed_dictionaries(
            {
                "name": st.sampled_from(["one", "two", "three-3", "a.b_c"]),
                "model": st.just(model),
                "inference_framework": st.just(inference_framework),
            },
            optional={
                "per_worker": st.integers(1, 8),
                "cpus": st.integers(1, 4),
                "memory": st.sampled_from(["512Mi", "2Gi", 2_000_000_000]),
                "storage": st.sampled_from(["1Gi", "10G"]),
                "public_inference": st.booleans(),
                "high_priority": st.booleans(),
                "labels": st.dictionaries(
                    st.sampled_from(["team", "stage"]), st.text(max_size=5), max_size=2
                ),
            },
        ),
    )
