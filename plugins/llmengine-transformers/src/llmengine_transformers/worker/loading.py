"""From a checkpoint's folder to a model that is ready, or the reason why it can't be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from llmengine_core.worker.contract import OnLoad
from llmengine_transformers.worker.text import Text

__all__ = ["Loaded", "load"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model in memory, checked, and what its files say of it."""

    model: Any
    """A ``PreTrainedModel`` for inference: in evaluation mode, no parameter takes gradients."""
    text: Text
    vocabulary: int
    """Logits for each position: the embedding's rows."""
    end_tokens: tuple[int, ...]
    """Those that end a text, ascending; none where the checkpoint names none."""
    context_length: int | None
    """Tokens that it was trained for; None where its configuration doesn't say."""


def load(
    folder: str,
    on_load: OnLoad,
    *,
    dtype: str = "auto",
    device: str = "cpu",
    load_options: Mapping[str, Any] | None = None,
    allow_remote_code: bool = False,
) -> Loaded:
    """Load the checkpoint in ``folder``: config.json, a tokenizer, weights as safetensors or PyTorch's.

    ``dtype`` is a name of torch's, or "auto" for what the weights are stored in. ``load_options`` go to
    ``from_pretrained`` as they are. Code of the checkpoint's own runs only where that is allowed and the library
    doesn't have the architecture. Reports phase "load". Raises ``Refused`` for what can't be served.
    """
    path = Path(folder)
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    with _reported(on_load):
        model = AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, local_files_only=True, trust_remote_code=False, **(load_options or {})
        )
    model.eval().requires_grad_(False)
    rows = model.get_input_embeddings().weight.shape[0]
    config = model.config.get_text_config(decoder=True)
    ends = {*_ids(model.generation_config.eos_token_id), *_ids(config.eos_token_id), *_ids(tokenizer.eos_token_id)}
    return Loaded(
        model=model,
        text=Text(tokenizer, rows),
        vocabulary=rows,
        end_tokens=tuple(sorted(ends)),
        context_length=getattr(config, "max_position_embeddings", None),
    )


def _ids(value: Any) -> list[int]:
    return [] if value is None else value if isinstance(value, list) else [value]


@contextmanager
def _reported(on_load: OnLoad) -> Iterator[None]:
    """Tell of each parameter that the library loads."""
    before = logging.set_tqdm_hook(lambda _, args, kwargs: _Progress(on_load, *args, **kwargs))
    try:
        yield
    finally:
        logging.set_tqdm_hook(before)


class _Progress:
    """What the library takes for its progress bar."""

    def __init__(self, on_load: OnLoad, steps: Any = (), *_: Any, **__: Any) -> None:
        self._on_load, self._steps = on_load, steps

    def __iter__(self) -> Iterator[Any]:
        for at, step in enumerate(self._steps, 1):
            yield step
            self._on_load("load", at / len(self._steps))
