"""llama.cpp in a process of its own: ``python -I serve.py``, told what to do on its standard input.

It reads one line, the document of ``LlamaCppBackend.launch`` with ``address`` and ``key`` added, serves on
that unix socket, and ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmengine_llamacpp.worker.ggml import Checkpoint

PREFILL_WORK = 1.2e10
"""Weights × prompt tokens that one thread is given at a time: some 0.7 s of a slow core."""
LEAST_BATCH, LARGEST_BATCH = 16, 2048


def batch_tokens(parameters: int, threads: int) -> int:
    """How many prompt tokens are read at a time; a power of two.

    Between two such batches other requests get their next token, and cancelled ones are noticed. It must not
    depend on what else is running: greedy text is repeatable because batches are cut at the same places.
    """
    tokens = int(PREFILL_WORK * threads / max(1, parameters))
    return min(LARGEST_BATCH, max(LEAST_BATCH, 1 << max(0, tokens.bit_length() - 1)))


def affordable_context(checkpoint: Checkpoint, slots: int, memory: int) -> int:
    """Tokens for each of ``slots`` requests whose cache takes no more than half of ``memory`` bytes.

    0 where the checkpoint doesn't say in plain numbers what a token takes.
    """
    architecture = checkpoint.text("general.architecture")

    def number(name: str) -> int:
        return checkpoint.number(f"{architecture}.{name}") or 0

    heads = number("attention.head_count")
    width = number("embedding_length") // heads if heads else 0
    key, value = (number(f"attention.{each}_length") or width for each in ("key", "value"))
    per_token = 2 * number("block_count") * number("attention.head_count_kv") * (key + value)
    return memory // 2 // (per_token * slots) // 256 * 256 if per_token else 0


def context_of(checkpoint: Checkpoint, slots: int) -> int:
    """As much as the model was trained for, as far as this machine's memory goes."""
    trained = checkpoint.number(f"{checkpoint.text('general.architecture')}.context_length") or 0
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    affordable = affordable_context(checkpoint, slots, memory)
    return min(trained, affordable) if affordable else trained


def report(**facts: Any) -> None:
    """Say one thing to whoever started us."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Serve until standard input ends."""
    document = json.loads(sys.stdin.readline())
    # Threads that spin while they wait for work bring everything down where cores are few or shared.
    os.environ.setdefault("GOMP_SPINCOUNT", "100")
    sys.path.append(str(Path(__file__).parents[2]))
    try:
        import xllamacpp  # type: ignore[import-untyped]

        from llmengine_llamacpp.worker.ggml import Checkpoint

        with Checkpoint(document["weights"]) as checkpoint:
            context = document["context_length"] or context_of(checkpoint, document["slots"])
            tokenizer = checkpoint.text("tokenizer.ggml.model")
            parameters = sum(tensor.elements for tensor in checkpoint.tensors())
        params = xllamacpp.CommonParams()
        configure(params, document, context, parameters)
        report(progress=0.1, phase="load")
        server = xllamacpp.Server(params)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except RuntimeError:
        sys.exit(1)  # the library has said why
    report(
        ready=True,
        context_length=context,
        slots=document["slots"],
        batch_tokens=params.n_batch,
        tokenizer=tokenizer,
        xllamacpp=xllamacpp.__version__,
        pid=os.getpid(),
    )
    sys.stdin.read()
    del server


def configure(params: Any, document: dict[str, Any], context: int, parameters: int) -> None:
    """Every setting that differs from llama.cpp's own default."""
    slots, threads = document["slots"], document["threads"]
    params.model.path = document["weights"]
    params.n_parallel = slots
    params.n_ctx = slots * context
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_batch = params.n_ubatch = max(slots, batch_tokens(parameters, threads))
    params.hostnames = [document["address"].removeprefix("unix:")]
    params.api_keys = [document["key"]]
    params.n_threads_http = 2 * slots + 4
    params.ui = False
    params.warmup = False
    params.fit_params = False
    params.cache_ram_mib = 0
    params.verbosity = 1  # errors; the reason of a failure reaches us in no other way


if __name__ == "__main__":
    main()
