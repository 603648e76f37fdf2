"""Runs in a child of its own: a real llama.cpp that completes prompts under grammars, one per line of stdin.

A request is ``{"prompt", "grammar", "max_tokens", "seed"}`` as JSON; the answer is ``{"text", "reason"}``.
"""

from __future__ import annotations

import json
import sys

import xllamacpp  # type: ignore[import-untyped]


def main(weights: str) -> None:
    params = xllamacpp.CommonParams()
    params.model.path = weights
    params.n_ctx = 2048
    params.n_parallel = 1
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.verbosity = 0
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.warmup = False
    params.fit_params = False
    server = xllamacpp.Server(params)
    for line in sys.stdin:
        request = json.loads(line)
        answer = server.handle_completions(
            {
                "prompt": request["prompt"],
                "grammar": request["grammar"],
                "max_tokens": request["max_tokens"],
                "seed": request["seed"],
                "temperature": 1.0,
                "top_k": 0,
                "top_p": 1.0,
                "min_p": 0.0,
            }
        )
        choice = (
            answer["choices"][0] if "choices" in answer else {"text": str(answer), "finish_reason": "error"}
        )
        json.dump({"text": choice["text"], "reason": choice["finish_reason"]}, sys.stdout)
        sys.stdout.write("\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
