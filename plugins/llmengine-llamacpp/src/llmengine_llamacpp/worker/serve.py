"""llama.cpp in a process of its own: ``python -I serve.py``, told what to do on its standard input.

It reads one line, the document of ``LlamaCppBackend.launch`` with ``address``, ``key``, ``threads`` and ``memory``
added, serves on that unix socket, and ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from llmengine_core.gguf import BadHeader, GGUFHeader, MoreBytes, read_header

__all__ = ["LARGEST_BATCH", "LEAST_BATCH", "affordable_context", "batch_tokens", "main"]

PREFILL_WORK = 1.2e10
"""Weights × prompt tokens that are worked on at a time: some 0.7 s of one slow core."""
LEAST_BATCH, LARGEST_BATCH = 16, 2048
LEAST_CONTEXT = 512
"""Tokens for each request where the file doesn't say how many it was trained for."""
HEAD = 1 << 22
"""Bytes of a file that are read at first; most headers are shorter."""


def batch_tokens(parameters: int) -> int:
    """How many prompt tokens are read at a time; a power of two.

    Between two such batches other requests get their next token, and cancelled ones are noticed. It must not
    depend on what else is running, nor on how many threads were free at the start: greedy text is repeatable
    because batches are cut at the same places.
    """
    tokens = int(PREFILL_WORK / max(1, parameters))
    return min(LARGEST_BATCH, max(LEAST_BATCH, 1 << max(0, tokens.bit_length() - 1)))


def affordable_context(header: GGUFHeader, slots: int, memory: int) -> int:
    """Tokens for each of ``slots`` requests: what the model was trained for, within half of ``memory`` bytes.

    The engine takes the memory for all of them when it starts.
    """

    def number(name: str) -> int:
        return header.number(f"{header.text('general.architecture')}.{name}") or 0

    heads = number("attention.head_count")
    width = number("embedding_length") // heads if heads else 0
    keys, values = (number(f"attention.{each}_length") or width for each in ("key", "value"))
    per_token = 2 * number("block_count") * number("attention.head_count_kv") * (keys + values)
    trained = number("context_length") or LEAST_CONTEXT
    return min(trained, memory // 2 // (per_token * slots)) if per_token else trained


def main() -> None:
    """Serve until standard input ends."""
    document = json.loads(sys.stdin.readline())
    # Threads that spin while they wait for work bring everything down where cores are few or shared.
    os.environ.setdefault("GOMP_SPINCOUNT", "100")
    try:
        import xllamacpp  # type: ignore[import-untyped]

        header = read(document["weights"])
        params = xllamacpp.CommonParams()
        context = configure(params, document, header)
        report(progress=0.1, phase="load")
        server = xllamacpp.Server(params)
    except (ImportError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except RuntimeError:
        sys.exit(1)  # the library has said why
    report(
        ready=True,
        context_length=context,
        slots=document["slots"],
        batch_tokens=params.n_batch,
        tokenizer=header.text("tokenizer.ggml.model") if header else None,
        xllamacpp=xllamacpp.__version__,
        pid=os.getpid(),
    )
    sys.stdin.read()
    del server


def read(path: str) -> GGUFHeader | None:
    """What the file says of its model; None where it can't be read, which is the engine's to explain."""
    size = os.path.getsize(path)
    stop = HEAD
    with open(path, "rb") as file:
        while True:
            file.seek(0)
            try:
                return read_header(file.read(stop), size)
            except MoreBytes as more:
                stop = more.stop
            except BadHeader as error:
                sys.stderr.write(f"{path}: {error.reason}\n")
                return None


def configure(params: Any, document: dict[str, Any], header: GGUFHeader | None) -> int:
    """Every setting that differs from llama.cpp's own default; gives the tokens for each request."""
    slots, threads = document["slots"], document["threads"]
    affordable = affordable_context(header, slots, document["memory"]) if header else LEAST_CONTEXT
    context: int = document["context_length"] or affordable
    params.model.path = document["weights"]
    params.n_parallel = slots
    params.n_ctx = slots * context
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_batch = params.n_ubatch = max(slots, batch_tokens(header.parameters if header else 0))
    params.hostnames = [document["address"].removeprefix("unix:")]
    params.api_keys = [document["key"]]
    params.n_threads_http = 2 * slots + 4
    params.ui = False
    params.warmup = False
    params.fit_params = False
    params.cache_ram_mib = 0  # prompts are read afresh, see wire.NEUTRAL
    params.verbosity = 1  # errors: the reason of a failure reaches us in no other way
    return context


def report(**facts: Any) -> None:
    """Say one thing to whoever started us."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
