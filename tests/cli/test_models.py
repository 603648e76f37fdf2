"""``llmengine models``."""

from __future__ import annotations

import json
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from tests.cli.program import Run

import llmengine_core.testing
from llmengine import Model
from llmengine.data_types.model import (
    DeleteLLMEndpointResponse,
    GetLLMEndpointResponse,
    ListLLMEndpointsResponse,
    ModelDownloadResponse,
)
from llmengine_core.cli.models import create, update


def created(run: Run, *options: str) -> dict[str, Any]:
    """The model ``mine``, as JSON shows it."""
    done = run("models", "create", "mine", "--model", "echo", "--json", *options)
    assert (done.exit_code, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(("command", "function"), [(create, Model.create), (update, Model.update)])
def test_every_argument_of_the_api_is_an_option(command: Any, function: Any) -> None:
    arguments = set(signature(function).parameters) - {"request_headers", "client_only"}
    options = {parameter.name for parameter in command.params if parameter.expose_value}
    assert options - {"spec_file", "wait"} == arguments


def test_m01_what_was_created_is_ready_and_answers(run: Run) -> None:
    assert created(run)["status"] == "READY"
    assert run("complete", "--model", "mine", "one two").stdout == "one two"


def test_m11_json_is_the_response_of_the_api(run: Run) -> None:
    shown = created(
        run, "--per-worker", "3", "--labels", "team=ours", "--labels", "a=b=c", "--no-public-inference"
    )
    assert json.loads(run("models", "show", "mine", "--json").stdout) == shown
    listed = json.loads(run("models", "list", "--json").stdout)
    assert shown in listed["model_endpoints"]
    assert {each["name"] for each in listed["model_endpoints"]} >= {"echo", "mine"}
    assert GetLLMEndpointResponse.parse_obj(shown).status == "READY"
    assert len(ListLLMEndpointsResponse.parse_obj(listed).model_endpoints) == len(listed["model_endpoints"])
    assert shown["spec"]["labels"] == {"team": "ours", "a": "b=c"}
    assert shown["spec"]["deployment_state"]["per_worker"] == 3
    assert shown["spec"]["public_inference"] is False


def test_m11_text_shows_what_it_is_and_why(run: Run) -> None:
    created(run)
    text = run("models", "show", "mine").stdout
    assert "base model  echo" in text
    assert "status      READY" in text
    assert "chosen" in text
    header, *rows = run("models", "list").stdout.splitlines()
    assert header.split() == ["NAME", "STATUS", "BASE", "ENGINE", "OWNER"]
    assert ["mine", "READY", "echo", "echo", "root"] in [row.split() for row in rows]


def test_m10_no_wait_leaves_it_to_who_needs_it(run: Run) -> None:
    assert created(run, "--no-wait")["status"] == "UPDATE_PENDING"
    waited = run("models", "wait", "mine")
    assert (waited.stdout, waited.exit_code) == ("mine READY\n", 0)


def test_m10_update_changes_only_what_is_given(run: Run) -> None:
    before = created(run, "--labels", "team=ours")
    done = run("models", "update", "mine", "--per-worker", "7", "--json")
    assert done.exit_code == 0
    after = json.loads(done.stdout)
    assert after["spec"].pop("deployment_state")["per_worker"] == 7
    before["spec"].pop("deployment_state")
    assert after == before


def test_m10_an_update_of_nothing_is_refused(run: Run) -> None:
    assert run("models", "update", "mine").exit_code == 2


def test_m10_delete(run: Run) -> None:
    created(run)
    done = run("models", "delete", "mine", "--json")
    assert DeleteLLMEndpointResponse.parse_obj(json.loads(done.stdout)).deleted
    again = run("models", "delete", "mine")
    assert (again.exit_code, again.stdout) == (3, "")
    assert "'mine'" in again.stderr


@pytest.mark.parametrize("command", ["show", "update", "delete", "wait"])
def test_m10_a_model_that_is_missing_ends_in_3(run: Run, command: str) -> None:
    change = ["--per-worker", "1"] if command == "update" else []
    assert run("models", command, "missing", *change).exit_code == 3


def test_m10_a_name_that_exists_ends_in_2(run: Run) -> None:
    created(run)
    again = run("models", "create", "mine", "--model", "echo")
    assert again.exit_code == 2
    assert "'mine'" in again.stderr


def test_m01_what_nothing_serves_ends_in_4_and_shows_the_plan(run: Run) -> None:
    done = run("models", "create", "mine", "--model", "echo", "--inference-framework", "vllm")
    assert (done.exit_code, done.stdout) == (4, "")
    assert done.stderr.startswith("Error: nothing here can serve 'echo'")
    assert "vllm" in done.stderr
    assert "mend:" in done.stderr


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--labels", "team"], "--labels"),
        (["--min-workers", "-1"], "min_workers"),
        (["--memory", "lots"], "memory"),
        (["--gpu-type", "nvidia-ampere-a10"], "gpu_type"),
        (["--post-inference-hooks", "log"], "post_inference_hooks"),
        (["--default-callback-url", "ftp://x"], "default_callback_url"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_is_out_of_range_ends_in_2_and_is_named(run: Run, options: list[str], named: str) -> None:
    done = run("models", "create", "mine", "--model", "echo", *options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert named in done.stderr


def test_a_model_without_a_base_is_refused(run: Run) -> None:
    done = run("models", "create", "mine")
    assert done.exit_code == 2
    assert "--model" in done.stderr


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("spec.json", '{"model": "echo", "per_worker": 5, "labels": {"a": "b"}}'),
        ("spec.toml", 'model = "echo"\nper_worker = 5\nlabels = {a = "b"}\n'),
    ],
)
def test_a_file_gives_what_options_do_not(run: Run, name: str, text: str) -> None:
    Path(name).write_text(text)
    done = run("models", "create", "mine", "--spec", name, "--per-worker", "6", "--json")
    shown = json.loads(done.stdout)
    assert (shown["model_name"], shown["spec"]["labels"]) == ("echo", {"a": "b"})
    assert shown["spec"]["deployment_state"]["per_worker"] == 6


@pytest.mark.parametrize("text", ["[]", "{", '{"model": "echo", "per_wroker": 5}', '{"model": 1}'])
def test_a_file_that_is_wrong_ends_in_2(run: Run, text: str) -> None:
    Path("spec.json").write_text(text)
    done = run("models", "create", "mine", "--spec", "spec.json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_m09_calls_are_made_in_the_callers_name(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    created(run)
    monkeypatch.setenv("SCALE_API_KEY", "somebody-else")
    done = run("models", "delete", "mine")
    assert done.exit_code == 2
    assert "owner" in done.stderr


def test_calls_that_should_go_to_a_server_stay_nowhere(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_ENGINE_BASE_PATH", "http://127.0.0.1:1")
    done = run("models", "list")
    assert done.exit_code == 2
    assert "LLM_ENGINE_BASE_PATH" in done.stderr


def test_m12_urls_of_a_models_files_are_printed(run: Run) -> None:
    weights = Path(llmengine_core.testing.__file__).with_name("echo.gguf")
    created(run, "--checkpoint-path", str(weights))
    done = run("models", "download", "mine", "--json")
    answer = ModelDownloadResponse.parse_obj(json.loads(done.stdout))
    assert answer.urls == {"echo.gguf": weights.as_uri()}
    header, row = run("models", "download", "mine").stdout.splitlines()
    assert header.split() == ["FILE", "URL"]
    assert row.split() == ["echo.gguf", weights.as_uri()]
    assert run("models", "download", "echo").exit_code == 2
    assert run("models", "download", "mine", "--format", "onnx").exit_code == 2
    assert run("models", "download", "theirs").exit_code == 3


def test_the_zoo_lists_base_models_whether_or_not_they_are_here(run: Run) -> None:
    found = {each["name"]: each for each in json.loads(run("models", "zoo", "--json").stdout)["models"]}
    assert list(found) == sorted(found)
    assert found["echo"]["here"]
    far = found["llama-2-7b"]
    assert (far["here"], far["context_length"], far["parameters"]) == (False, 4096, 6_738_415_616)
    assert far["sources"] == ["hf://meta-llama/Llama-2-7b-hf"]
    assert far["license"].startswith("https://")
    header, *rows = run("models", "zoo").stdout.splitlines()
    assert header.split() == ["NAME", "PARAMETERS", "SIZE", "CONTEXT", "HERE", "LICENSE"]
    (row,) = [row.split() for row in rows if row.startswith("llama-2-7b ")]
    assert row[1:6] == ["6.74B", "13.5", "GB", "4096", "no"]
    names = [row.split()[0] for row in run("models", "zoo", "--here").stdout.splitlines()[1:]]
    assert "echo" in names
    assert "llama-2-7b" not in names
    listed = json.loads(run("models", "list", "--json").stdout)["model_endpoints"]
    assert {each["name"] for each in listed} <= set(names)


def test_m10_hints_stay_readable_with_many_base_models(run: Run) -> None:
    done = run("models", "create", "mine", "--model", "nothing-like-it")
    assert done.exit_code == 4
    assert "`llmengine models zoo` lists the " in done.stderr
    assert "falcon" not in done.stderr
    done = run("models", "create", "mine", "--model", "llama-2-7")
    assert "did you mean 'llama-2-70b' or 'llama-2-70b-chat' or 'llama-2-7b'?" in done.stderr
    done = run("models", "show", "llama-2-77b")
    assert done.exit_code == 3
    assert "did you mean 'llama-2-7" in done.stderr
