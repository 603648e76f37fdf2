"""The second kind of engine, whole: weights converted for it, an environment of its own, driven token by token."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from tests.e2e.facade import MODEL, answer, endless, rest
from tests.e2e.procfs import cpu_seconds, processes_of, until, working
from tests.e2e.torch_checkpoints import llama_weights, pickled, tiny_llama

from llmengine import Completion, CompletionSyncResponse, Model, errors
from llmengine_core import home as home_engine

pytestmark = pytest.mark.environment
WORKER = b"llmengine_core/worker/"
SERVED = "smollm2-on-torch"


@pytest.fixture(scope="module")
def torch_home(engines_home: Path, smollm2_folder: Path, own_home: Path) -> Path:
    """The home of this process's own calls, with the engine environments and the small model served on torch."""
    own_home.mkdir(parents=True)
    (own_home / "environments").symlink_to(engines_home / "environments")
    create(SERVED, smollm2_folder)
    return own_home


def create(name: str, checkpoint: Path | None, **options: Any) -> None:
    Model.create(
        **{
            "name": name,
            "model": MODEL,
            "inference_framework": "transformers",
            "inference_framework_image_tag": "latest",
            "checkpoint_path": str(checkpoint) if checkpoint else None,
            **options,
        }
    )


def workers_of(home: Path) -> set[int]:
    """The children that drive an engine of ours."""
    return {pid for pid in processes_of(home) if WORKER in Path(f"/proc/{pid}/cmdline").read_bytes()}


def plan_of(name: str) -> dict[str, Any]:
    """What was decided for a model."""
    spec = Model.get(name).spec
    assert spec is not None
    assert spec.plan is not None
    return spec.plan


@pytest.fixture
def worker(torch_home: Path) -> int:
    """The process id of the one that serves the small model, and of no other; it stands ready."""
    home_engine.shutdown()
    until(lambda: not workers_of(torch_home), 5, "the workers of other models are gone")
    assert answer(model=SERVED) == " Paris.\n"
    (worker,) = workers_of(torch_home)
    return worker


def ask(**options: Any) -> CompletionSyncResponse:
    response = Completion.create(SERVED, **options)
    assert isinstance(response, CompletionSyncResponse)
    return response


# -- it answers --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("torch_home")
def test_c09_the_stream_joined_is_the_answer() -> None:
    whole = answer("Once upon a time", SERVED, max_new_tokens=24)
    stream = endless(model=SERVED, max_new_tokens=24)
    texts = [chunk.output.text for chunk in stream if chunk.output]
    assert "".join(texts) == whole
    assert len(texts) > 12


@pytest.mark.usefixtures("torch_home")
def test_c03_every_kind_of_constraint_is_obeyed() -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "maximum": 99},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    prompt = "Describe a person as JSON: "
    text = ask(prompt=prompt, max_new_tokens=60, temperature=0.0, guided_json=schema).output.text
    jsonschema.validate(json.loads(text), schema)
    text = ask(
        prompt="Call me: ", max_new_tokens=20, temperature=0.9, guided_regex=r"\d{3}-\d{4}"
    ).output.text
    assert re.fullmatch(r"\d{3}-\d{4}", text)
    text = ask(
        prompt="A colour: ", max_new_tokens=8, temperature=0.9, guided_choice=["teal", "tan"]
    ).output.text
    assert text in ("teal", "tan")
    grammar = 'start: "<" WORD ">"\nWORD: /[a-z]{2,5}/'
    text = ask(prompt="A tag: ", max_new_tokens=12, temperature=0.9, guided_grammar=grammar).output.text
    assert re.fullmatch("<[a-z]{2,5}>", text)


@pytest.mark.usefixtures("torch_home")
def test_c07_log_probs_belong_to_the_tokens_of_the_answer() -> None:
    output = ask(
        prompt="The capital of France is", max_new_tokens=6, temperature=0.0, return_token_log_probs=True
    ).output
    assert output.tokens is not None
    assert "".join(token.token for token in output.tokens) == output.text
    assert len(output.tokens) == output.num_completion_tokens
    assert all(token.log_prob <= 0 for token in output.tokens)


@pytest.mark.usefixtures("torch_home")
def test_c04_what_does_not_fit_is_refused_with_the_three_numbers() -> None:
    with pytest.raises(errors.BadRequestError, match=r"8192"):
        ask(prompt="The capital", max_new_tokens=8192, temperature=0.0)


def test_a_gguf_model_is_converted_and_served(torch_home: Path) -> None:
    create("converted", None)
    assert answer(model="converted") == " Paris.\n"
    plan = plan_of("converted")
    (candidate,) = [each for each in plan["candidates"] if each["name"] == plan["chosen"]]
    assert [step["transform"] for step in candidate["transforms"]] == ["gguf_to_safetensors"]
    assert candidate["environment"]["name"].startswith("transformers-")
    assert (torch_home / "environments" / candidate["environment"]["name"]).is_dir()


@pytest.mark.usefixtures("torch_home")
@pytest.mark.parametrize("method", ["bitsandbytes", "bitsandbytes-nf4"])
def test_m05_weights_are_quantized_as_they_load(method: str, smollm2_folder: Path) -> None:
    create(method, smollm2_folder, quantize=method)
    assert " Paris" in answer("The capital of France is", method, max_new_tokens=4)


@pytest.mark.usefixtures("torch_home")
def test_auto_takes_what_loads_the_weights_as_they_are(smollm2_folder: Path) -> None:
    create("auto-folder", smollm2_folder, inference_framework="auto")
    create("auto-file", None, inference_framework="auto")
    plans = {name: plan_of(name) for name in ("auto-folder", "auto-file")}
    assert {name: plan["chosen"] for name, plan in plans.items()} == {
        "auto-folder": "transformers",
        "auto-file": "llama_cpp",
    }
    assert "llama_cpp" in plans["auto-folder"]["why"]
    assert "transformers" in plans["auto-file"]["why"]


@pytest.mark.usefixtures("torch_home")
def test_m03_the_tag_picks_the_version(smollm2_folder: Path) -> None:
    create("older", smollm2_folder, inference_framework_image_tag="5.12.1")
    assert answer(model="older") == " Paris.\n"
    (candidate,) = [each for each in plan_of("older")["candidates"] if each["name"] == "transformers"]
    assert candidate["version"] == "5.12.1"
    assert candidate["environment"]["name"].startswith("transformers-5.12.1-")


@pytest.mark.usefixtures("torch_home")
def test_m03_a_version_that_nobody_builds_is_refused_with_those_that_there_are(smollm2_folder: Path) -> None:
    with pytest.raises(errors.ResolutionError, match=re.escape("only of 5.23.0, 5.12.1")):
        create("refused", smollm2_folder, inference_framework_image_tag="0.0.1")


def test_m03_a_version_that_is_not_here_is_refused_with_the_command_that_brings_it(
    home: Path, smollm2_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMENGINE_HOME", str(home))
    home_engine.shutdown()
    try:
        with pytest.raises(errors.ResolutionError, match=r"engines install transformers --version 5\.12\.1"):
            create("refused", smollm2_folder, inference_framework_image_tag="5.12.1")
    finally:
        home_engine.shutdown()


# -- checkpoints that can't be served ----------------------------------------------------------------------------


def reason_for(name: str, folder: Path, **options: Any) -> str:
    """Why a checkpoint is not served: its refusal, or what its first request is told."""
    try:
        create(name, folder, **options)
        answer(model=name)
    except errors.LLMEngineError as error:
        return str(error)
    raise AssertionError(f"{name} is served")


@pytest.mark.usefixtures("torch_home")
def test_a_little_model_is_served(tmp_path: Path, smollm2_folder: Path) -> None:
    create("tiny", tiny_llama(tmp_path / "tiny", smollm2_folder))
    assert ask_tiny("tiny").output.num_completion_tokens == 4


def ask_tiny(name: str) -> CompletionSyncResponse:
    response = Completion.create(name, "The", 4, 0.0)
    assert isinstance(response, CompletionSyncResponse)
    return response


@pytest.mark.usefixtures("torch_home")
def test_m04_a_pickle_that_is_more_than_weights_is_refused_and_never_run(
    tmp_path: Path, smollm2_folder: Path
) -> None:
    folder, canary = tiny_llama(tmp_path / "pickled", smollm2_folder), tmp_path / "canary"
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickled(canary))
    assert "pytorch_model.bin" in reason_for("pickled", folder)
    assert not canary.exists()


@pytest.mark.usefixtures("torch_home")
def test_weights_that_are_not_numbers_are_refused_by_name(tmp_path: Path, smollm2_folder: Path) -> None:
    weights = llama_weights()
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = np.nan
    folder = tiny_llama(tmp_path / "nan", smollm2_folder, weights)
    assert "model.layers.1.mlp.up_proj.weight" in reason_for("nan", folder)


@pytest.mark.usefixtures("torch_home")
def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path, smollm2_folder: Path) -> None:
    weights = llama_weights()
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:1000]
    folder = tiny_llama(tmp_path / "mismatch", smollm2_folder, weights, vocab_size=1000)
    reason = reason_for("mismatch", folder)
    assert "tokenizer" in reason
    assert "1000" in reason.replace(",", "")


@pytest.mark.usefixtures("torch_home")
def test_code_of_a_checkpoint_is_refused_unless_the_settings_allow_it(
    tmp_path: Path, smollm2_folder: Path
) -> None:
    folder = tiny_llama(
        tmp_path / "coded",
        smollm2_folder,
        model_type="of_its_own",
        auto_map={"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"},
    )
    canary = tmp_path / "canary"
    (folder / "code.py").write_text(f"import os\nos.mkdir({str(canary)!r})\n")
    assert "LLMENGINE_ALLOW_REMOTE_CODE" in reason_for("coded", folder)
    assert not canary.exists()


@pytest.mark.usefixtures("torch_home")
def test_m05_what_is_quantized_one_way_is_not_quantized_another(tmp_path: Path, smollm2_folder: Path) -> None:
    folder = tiny_llama(
        tmp_path / "gptq", smollm2_folder, quantization_config={"quant_method": "gptq", "bits": 4}
    )
    with pytest.raises(errors.ResolutionError, match="gptq"):
        create("gptq", folder)
    with pytest.raises(errors.ResolutionError, match="bitsandbytes"):
        create("gptq-bitsandbytes", folder, quantize="bitsandbytes")


# -- what happens to engines -------------------------------------------------------------------------------------


def test_c10_a_closed_stream_stops_the_work(worker: int) -> None:
    with endless(model=SERVED) as stream:
        next(stream)
    used = cpu_seconds(worker)
    until(lambda: not working(worker), 10, "the engine computes no more")
    assert cpu_seconds(worker) - used < 3
    assert answer(model=SERVED) == " Paris.\n"


def test_c09_a_killed_worker_ends_streams_with_its_end_and_the_next_call_is_answered(worker: int) -> None:
    stream = endless(model=SERVED)
    next(stream)
    os.kill(worker, signal.SIGKILL)
    last = rest(stream)
    assert last.error is not None
    assert last.error.status_code == 500
    assert "signal 9" in last.error.content.error
    assert answer(model=SERVED) == " Paris.\n"


@pytest.fixture
def linked_copy(engines_home: Path, tmp_path: Path) -> Iterator[Path]:
    """A home whose environments may be deleted: hard links to the real ones."""
    copy = tmp_path / "home"
    copy.mkdir()
    subprocess.run(["cp", "-al", str(engines_home / "environments"), str(copy / "environments")], check=True)
    yield copy
    until(lambda: not processes_of(copy), 5, f"nothing runs on in {copy}")


def test_an_environment_that_is_deleted_or_damaged_under_a_model_is_named_with_its_mend(
    linked_copy: Path, tmp_path: Path, smollm2_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home_engine.shutdown()
    monkeypatch.setenv("LLMENGINE_HOME", str(linked_copy))
    try:
        create("tiny", tiny_llama(tmp_path / "tiny", smollm2_folder))
        before = ask_tiny("tiny").output.text
        (environment,) = (linked_copy / "environments").glob("transformers-5.23.0-*")
        environment.rename(linked_copy / "away")
        (worker,) = workers_of(linked_copy)
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(errors.LLMEngineError, match="llmengine engines install transformers"):
            ask_tiny("tiny")
        (linked_copy / "away").rename(environment)
        home_engine.shutdown()
        assert ask_tiny("tiny").output.text == before
        home_engine.shutdown()
        (package,) = environment.glob("lib/*/site-packages/safetensors")
        shutil.rmtree(package)
        with pytest.raises(errors.LLMEngineError, match="llmengine engines check transformers"):
            ask_tiny("tiny")
    finally:
        home_engine.shutdown()
