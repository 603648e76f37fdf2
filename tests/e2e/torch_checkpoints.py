"""Little Llama checkpoints with random weights and a real tokenizer, written without any engine's library."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["config", "llama_weights", "pickled", "save", "tiny_llama"]

Tensors = Mapping[str, NDArray[np.float32]]
HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, VOCABULARY = 32, 64, 2, 4, 2, 49_152


def config(**changes: Any) -> dict[str, Any]:
    """What config.json says."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HIDDEN // HEADS,
        "max_position_embeddings": 256,
        "vocab_size": VOCABULARY,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float32",
        **changes,
    }


def llama_weights(seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Every parameter by name."""
    random = np.random.default_rng(seed)

    def matrix(*shape: int) -> NDArray[np.float32]:
        return random.normal(0, 0.05, shape).astype(np.float32)

    weights = {"model.embed_tokens.weight": matrix(VOCABULARY, HIDDEN)}
    for layer in range(LAYERS):
        name = f"model.layers.{layer}"
        width = HIDDEN // HEADS * KV_HEADS
        weights |= {
            f"{name}.self_attn.q_proj.weight": matrix(HIDDEN, HIDDEN),
            f"{name}.self_attn.k_proj.weight": matrix(width, HIDDEN),
            f"{name}.self_attn.v_proj.weight": matrix(width, HIDDEN),
            f"{name}.self_attn.o_proj.weight": matrix(HIDDEN, HIDDEN),
            f"{name}.mlp.gate_proj.weight": matrix(INNER, HIDDEN),
            f"{name}.mlp.up_proj.weight": matrix(INNER, HIDDEN),
            f"{name}.mlp.down_proj.weight": matrix(HIDDEN, INNER),
            f"{name}.input_layernorm.weight": np.ones(HIDDEN, np.float32),
            f"{name}.post_attention_layernorm.weight": np.ones(HIDDEN, np.float32),
        }
    return {**weights, "model.norm.weight": np.ones(HIDDEN, np.float32)}


def save(tensors: Tensors, path: Path) -> None:
    """As safetensors: https://github.com/huggingface/safetensors#format."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [end, end + tensor.nbytes],
        }
        end += tensor.nbytes
    written = json.dumps(header).encode()
    path.write_bytes(
        struct.pack("<Q", len(written)) + written + b"".join(each.tobytes() for each in tensors.values())
    )


def tiny_llama(folder: Path, tokenizer: Path, weights: Tensors | None = None, **changes: Any) -> Path:
    """A whole checkpoint in ``folder``, with the tokenizer of another; ``changes`` are to its config.json."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config(**changes)))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tokenizer / name, folder / name)
    save(llama_weights() if weights is None else weights, folder / "model.safetensors")
    return folder


def pickled(canary: Path) -> bytes:
    """A file as PyTorch's zip archives are, whose pickle makes the folder ``canary`` when it is trusted."""
    program = b"\x80\x02cos\nmkdir\nX" + struct.pack("<I", len(bytes(canary))) + bytes(canary) + b"\x85R."
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return content.getvalue()
