"""From a checkpoint's folder to a model that is ready, or the reason why it can't be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from llmengine_core.worker.contract import OnLoad, Refused
from llmengine_transformers.worker.checkpoint import Checkpoint, look
from llmengine_transformers.worker.files import listed, read_tensors
from llmengine_transformers.worker.memory import check_room, give_back, is_out_of_memory, out_of_memory
from llmengine_transformers.worker.text import Text
from llmengine_transformers.worker.wide import multiplies, widen

__all__ = ["Loaded", "load"]

PROBE = 4
"""Tokens of the forward whose logits are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model in memory, checked, and what its files say of it."""

    model: Any
    """A ``PreTrainedModel`` for inference: in evaluation mode, no parameter takes gradients."""
    text: Text
    vocabulary: int
    """Logits for each position."""
    end_tokens: tuple[int, ...]
    """Those that end a text, ascending; none where the checkpoint names none."""
    context_length: int | None
    """Tokens that it was trained for, without a stretch that depends on its input's length; None where its
    configuration doesn't say."""


def load(
    folder: str,
    on_load: OnLoad,
    *,
    dtype: str = "auto",
    device: str = "cpu",
    load_options: Mapping[str, Any] | None = None,
    allow_remote_code: bool = False,
    memory: int | None = None,
) -> Loaded:
    """Load the checkpoint in ``folder``: config.json, a tokenizer, weights as safetensors or PyTorch's.

    ``dtype`` is the name of one of torch's; "auto" is what the weights are stored in. That is the least memory and
    the fastest for one request, also where a processor computes in 32 bits only (``wide``), so nothing is converted
    unasked. ``load_options`` go to ``from_pretrained`` as they are. Code of the checkpoint's own runs only where that
    is allowed and the library doesn't have the architecture. ``memory`` is how many bytes of main memory may be used
    at most, where something limits them. Reports phase "load".

    Raises ``Refused`` for what can't be served: broken or missing files, pickles that are more than weights, code,
    parameters that are missing, left over, of another shape or not finite, a tokenizer for another model, too
    little memory.
    """
    options = dict(load_options or {})
    checkpoint = look(folder, options, allow_remote_code)
    if not options:  # which make less of the weights
        check_room(checkpoint.size, device, memory)
    if checkpoint.quantization:
        options.pop("quantization_config", None)  # says the same, or it would have been refused
    config = _config(checkpoint)
    tokenizer = _tokenizer(checkpoint, config)
    if device != "cpu":
        options["device_map"] = device
    model = _model(checkpoint, on_load, device, {"config": config, "dtype": dtype} | options)
    model.eval().requires_grad_(False)
    give_back()
    _check_numbers(checkpoint.folder, model)
    if device == "cpu" and not multiplies(model.dtype):
        widen(model)
    rows = model.get_input_embeddings().weight.shape[0]
    return Loaded(
        model=model,
        text=_text(checkpoint.folder, tokenizer, rows),
        vocabulary=_probe(checkpoint.folder, model, rows),
        end_tokens=_end_tokens(checkpoint.folder, tokenizer, model, rows),
        context_length=_context_length(config.get_text_config(decoder=True)),
    )


def _context_length(config: Any) -> int | None:
    """Positions that a model was trained for, as they are without a stretch that depends on the longest row of a
    batch: there each request's text would depend on the others."""
    trained: int | None = getattr(config, "max_position_embeddings", None)
    ropes = getattr(config, "rope_parameters", None) or {}
    for rope in [ropes] if "rope_type" in ropes else ropes.values():
        if rope.get("rope_type") in ("dynamic", "longrope"):
            whole = getattr(config, "original_max_position_embeddings", None)
            trained = rope.get("original_max_position_embeddings") or whole or trained
    return trained


def _config(checkpoint: Checkpoint) -> Any:
    try:
        return AutoConfig.from_pretrained(
            checkpoint.folder, local_files_only=True, trust_remote_code=checkpoint.own_code
        )
    except Exception as error:
        path = checkpoint.folder / "config.json"
        raise Refused(f"{path} is no configuration of a model: {type(error).__name__}: {error}") from error


def _model(checkpoint: Checkpoint, on_load: OnLoad, device: str, options: Mapping[str, Any]) -> Any:
    """What the library makes of it, every parameter from the files."""
    try:
        with _reported(on_load):
            model, info = AutoModelForCausalLM.from_pretrained(
                checkpoint.folder,
                local_files_only=True,
                trust_remote_code=checkpoint.own_code,
                use_safetensors=checkpoint.weights[0].suffix == ".safetensors",
                ignore_mismatched_sizes=True,  # told of below, by name
                output_loading_info=True,
                **options,
            )
    except Exception as error:
        if is_out_of_memory(error):
            raise Refused(out_of_memory(checkpoint.size, device, error)) from error
        for path in checkpoint.weights:
            if path.suffix != ".safetensors":
                read_tensors(path)  # says which file is to blame, where one is
        kind = f", quantized as {checkpoint.quantization!r}," if checkpoint.quantization else ""
        raise Refused(
            f"transformers {transformers.__version__} can't load {checkpoint.folder}{kind} here:"
            f" {type(error).__name__}: {error}"
        ) from error
    _check_names(checkpoint.folder, info)
    return model


def _check_names(folder: Path, info: Mapping[str, Any]) -> None:
    """Refuse what the library would make up, leave out or cut to size; tied parameters are none of these."""
    if wrong := {name: shapes for name, *shapes in info["mismatched_keys"]}:
        name = min(wrong)
        stored, expected = (tuple(shape) for shape in wrong[name])
        raise Refused(
            f"{folder} has weights of other shapes than its config.json says: {name} is {stored}, not {expected}"
            f" ({len(wrong)} in all)"
        )
    if missing := info["missing_keys"]:
        raise Refused(f"{folder} lacks weights that its config.json asks for: {listed(missing)}")
    if strangers := info["unexpected_keys"]:
        raise Refused(f"{folder} has weights that its config.json has no place for: {listed(strangers)}")


def _check_numbers(folder: Path, model: Any) -> None:
    """Refuse weights that are not finite; those that are quantized show in the logits."""
    for name, weight in model.named_parameters():
        if weight.is_floating_point() and weight.numel():
            numbers = weight if weight.element_size() > 1 else weight.to(torch.float32)
            if not all(bound.isfinite() for bound in torch.aminmax(numbers)):
                raise Refused(
                    f"{folder} is damaged: its weights {name} have numbers that are infinite or none at all"
                )


def _probe(folder: Path, model: Any, rows: int) -> int:
    """How many logits a forward gives for each token; all of them must be finite."""
    tokens = torch.arange(PROBE, device=model.device)[None] * (rows // PROBE)
    with torch.inference_mode():
        logits = model(input_ids=tokens, use_cache=False).logits
    if not bool(logits.isfinite().all()):
        raise Refused(
            f"{folder} computes logits that are infinite or no numbers in {str(model.dtype).removeprefix('torch.')};"
            " load it as float32 or fetch it again"
        )
    return int(logits.shape[-1])


def _tokenizer(checkpoint: Checkpoint, config: Any) -> Any:
    folder = checkpoint.folder
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=checkpoint.own_code
        )
    except Exception as error:
        raise Refused(
            f"the tokenizer in {folder} can't be loaded: {type(error).__name__}: {error}"
        ) from error
    if not tokenizer.is_fast or not len(tokenizer):
        raise Refused(
            f"the tokenizer in {folder} has no form that works here; save it with its tokenizer.json"
        )
    return tokenizer


def _text(folder: Path, tokenizer: Any, rows: int) -> Text:
    name, last = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if last >= rows:
        raise Refused(
            f"the tokenizer in {folder} is for another model: its token {name!r} is {last}, and the embedding has"
            f" {rows} rows"
        )
    return Text(tokenizer, rows)


def _end_tokens(folder: Path, tokenizer: Any, model: Any, rows: int) -> tuple[int, ...]:
    """All that the configurations and the tokenizer name."""
    config = model.config.get_text_config(decoder=True)
    ends = {
        token
        for said in (model.generation_config.eos_token_id, config.eos_token_id, tokenizer.eos_token_id)
        for token in (said if isinstance(said, list) else [said])
        if token is not None
    }
    if outside := [token for token in ends if not 0 <= token < rows]:
        raise Refused(
            f"{folder} says that token {outside[0]} ends a text; this model's go from 0 to {rows - 1}"
        )
    if ends and not ends & tokenizer.added_tokens_decoder.keys():
        token = min(ends)
        raise Refused(
            f"the tokenizer in {folder} is for another model: token {token}, which ends its texts, is"
            f" {tokenizer.convert_ids_to_tokens(token)!r} there"
        )
    return tuple(sorted(ends))


@contextmanager
def _reported(on_load: OnLoad) -> Iterator[None]:
    """Tell of each parameter that the library loads."""
    on_load("load", 0.0)
    before = logging.set_tqdm_hook(lambda _, args, kwargs: _Progress(on_load, *args, **kwargs))
    try:
        yield
    finally:
        logging.set_tqdm_hook(before)


class _Progress:
    """What the library takes for its progress bar."""

    def __init__(self, on_load: OnLoad, steps: Sequence[Any] = (), **_: Any) -> None:
        self._on_load, self._steps = on_load, steps

    def __iter__(self) -> Iterator[Any]:
        for at, step in enumerate(self._steps, 1):
            yield step
            self._on_load("load", at / len(self._steps))
