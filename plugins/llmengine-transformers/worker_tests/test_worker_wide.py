"""Linear layers that widen their weights compute what the library's do."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmengine_transformers.worker import wide


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@given(
    shape=st.lists(st.integers(0, 9), min_size=1, max_size=2), outputs=st.integers(1, 40), block=st.integers(40, 200),
    biased=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_widened_layers_give_the_sums_of_32_bits(
    dtype: torch.dtype, shape: list[int], outputs: int, block: int, biased: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = torch.nn.Linear(40, outputs, bias=biased).to(dtype).requires_grad_(False)
    exact = torch.nn.Linear(40, outputs, bias=biased).requires_grad_(False)
    exact.load_state_dict(layer.state_dict())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wide, "BLOCK", block)
        wide.widen(layer)
        x = torch.randn(*shape, 40).to(dtype)
        found = layer(x)
    assert found.dtype == dtype
    torch.testing.assert_close(found, exact(x.float()).to(dtype))


def test_only_linear_layers_of_16_bits_are_widened() -> None:
    layers = torch.nn.ModuleList(
        [torch.nn.Linear(2, 2), torch.nn.Linear(2, 2).half(), torch.nn.Embedding(2, 2).half()]
    )
    wide.widen(layers)
    assert [type(layer) in (torch.nn.Linear, torch.nn.Embedding) for layer in layers] == [True, False, True]
