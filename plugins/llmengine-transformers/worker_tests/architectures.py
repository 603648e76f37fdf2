"""Small models of many architectures with random weights, and an engine that runs one."""

from __future__ import annotations

import copy
from typing import Any

import torch
from small_tokenizers import KINDS, made
from transformers import AutoConfig, AutoModelForCausalLM

from llmengine_core.worker.contract import Emitted, Masker, Order
from llmengine_transformers.worker.engine import TransformersEngine
from llmengine_transformers.worker.forward import Forward
from llmengine_transformers.worker.loading import Loaded
from llmengine_transformers.worker.pace import WORK, Pace
from llmengine_transformers.worker.text import Text

__all__ = ["ARCHITECTURES", "CONTEXT", "END", "VOCABULARY", "engine_of", "run", "small"]

VOCABULARY, CONTEXT, WINDOW, END = 416, 128, 12, 1
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.4,
    "bos_token_id": 0,
    "eos_token_id": END,
    "pad_token_id": 0,
}
EXPERTS = {"moe_intermediate_size": 24, "num_experts_per_tok": 2}
HALF_WINDOWED = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "cohere": {},
    "cohere2": HALF_WINDOWED,
    "exaone4": HALF_WINDOWED,
    "gemma": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 5.0} | HALF_WINDOWED,
    "gemma3_text": {"head_dim": 8, "query_pre_attn_scalar": 8} | HALF_WINDOWED,
    "glm": {"head_dim": 8},
    "glm4": {"head_dim": 8},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT},
    "gpt_neox": {},
    "granite": {"attention_multiplier": 0.3, "logits_scaling": 2.0},
    "helium": {"head_dim": 8},
    "llama": {},
    "ministral": {"head_dim": 8} | HALF_WINDOWED,
    "mistral": {"sliding_window": WINDOW},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": WINDOW},
    "olmo": {},
    "olmo2": {},
    "olmo3": HALF_WINDOWED,
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32, "init_std": 0.4},
    "phi": {},
    "phi3": {"sliding_window": WINDOW},
    "phimoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2": {"use_sliding_window": True, "max_window_layers": 1, "sliding_window": WINDOW},
    "qwen2_moe": {"num_experts": 4, "shared_expert_intermediate_size": 24} | EXPERTS,
    "qwen3": {"head_dim": 8},
    "qwen3_moe": {"num_experts": 4, "head_dim": 8} | EXPERTS,
    "smollm3": {"no_rope_layers": [1, 0]},
    "starcoder2": {"sliding_window": WINDOW},
}
"""What each has besides, by ``model_type``: above all what makes its attention special."""


def small(architecture: str = "llama", **options: Any) -> Any:
    """A model whose next tokens depend on what came before, the same each time."""
    torch.manual_seed(7)
    config = AutoConfig.for_model(architecture, **COMMON | ARCHITECTURES[architecture] | options)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
    return model.eval().requires_grad_(False)


def engine_of(
    model: Any, *, rows: int = 4, at_once: int = 16, context: int = CONTEXT, masker: Masker | None = None
) -> TransformersEngine:
    """One that reads prompts in pieces of ``at_once`` tokens; the model given stays the library's."""
    model = copy.deepcopy(model)
    loaded = Loaded(
        model=model,
        text=Text(made(KINDS["byte_level"]()), VOCABULARY),
        vocabulary=VOCABULARY,
        end_tokens=(END,),
        context_length=CONTEXT,
    )
    with torch.inference_mode():
        forward = Forward(model)
    pace = Pace(weights=int(WORK / at_once), per_earlier=0)
    return TransformersEngine(loaded, forward, masker, rows, context, pace)


def run(engine: TransformersEngine, *orders: Order) -> dict[int, list[Emitted]]:
    """Everything that they generate together."""
    for order in orders:
        engine.join(order)
    found: dict[int, list[Emitted]] = {order.id: [] for order in orders}
    while any(not each or each[-1].finish is None for each in found.values()):
        for emitted in engine.step():
            found[emitted.order].append(emitted)
    return found
