"""Models through the facade; what will come later says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llmengine_core.testing
from llmengine import Completion, FineTune, Model
from llmengine.data_types import (
    LLMInferenceFramework,
    LLMSource,
    ModelEndpointStatus,
    ModelEndpointType,
    PostInferenceHooks,
)
from llmengine.errors import BadRequestError, NotFoundError, ResolutionError, UnsupportedFeatureError

pytestmark = pytest.mark.usefixtures("engine")

ECHO_WEIGHTS = Path(llmengine_core.testing.__file__).with_name("echo.gguf")


def create(name: str, **given: Any) -> str:
    arguments = {"inference_framework": "scripted", "inference_framework_image_tag": "latest"}
    return Model.create(name=name, model="scripted", **arguments | given).endpoint_creation_task_id


def test_m01_a_model_is_created_and_serves() -> None:
    assert create("mine")
    assert Completion.create("mine", "hello").output.text == "hello"
    assert Model.get("mine").status is ModelEndpointStatus.READY


def test_m11_get_gives_every_field() -> None:
    create(
        "full",
        source=LLMSource.HUGGING_FACE,
        endpoint_type=ModelEndpointType.STREAMING,
        cpus=1,
        memory="1Gi",
        storage=2e9,
        min_workers=1,
        max_workers=2,
        per_worker=3,
        high_priority=True,
        post_inference_hooks=[PostInferenceHooks.CALLBACK],
        default_callback_url="https://a.example/done",
        public_inference=False,
        labels={"team": "my-team"},
    )
    found = Model.get("full")
    assert found.id
    assert (found.name, found.model_name, found.source) == ("full", "scripted", LLMSource.HUGGING_FACE)
    assert (found.inference_framework, found.inference_framework_tag) == ("scripted", "latest")
    assert (found.num_shards, found.quantize, found.checkpoint_path, found.reason) == (1, None, None, None)
    spec = found.spec
    assert spec is not None
    assert (spec.id, spec.name, spec.created_by) == (found.id, "full", "root")
    assert (spec.post_inference_hooks, spec.default_callback_url) == (["callback"], "https://a.example/done")
    assert (spec.labels, spec.public_inference) == ({"team": "my-team"}, False)
    assert spec.deployment_state is not None
    assert (spec.deployment_state.min_workers, spec.deployment_state.max_workers) == (1, 2)
    assert spec.deployment_state.per_worker == 3
    assert spec.resource_state is not None
    assert (spec.resource_state.cpus, spec.resource_state.memory) == (1, "1Gi")
    assert spec.resource_state.storage == "2000000000.0"
    assert spec.plan is not None
    assert spec.plan["chosen"] == "scripted"
    assert json.loads(found.json(indent=2))["spec"]["plan"]["candidates"]


def test_m11_list_holds_base_models_and_ones_own() -> None:
    create("listed")
    names = [model.name for model in Model.list().model_endpoints]
    assert {"scripted", "listed"} <= set(names)
    assert Model.get("listed").name in Model.list().json()


def test_m02_auto_shows_the_framework_that_serves() -> None:
    assert Model.get("scripted").inference_framework == "scripted"


def test_m10_update_changes_what_is_given() -> None:
    create("changing", labels={"a": "b"})
    assert Completion.create("changing", "hello").output.text == "hello"
    assert Model.update("changing", per_worker=7).endpoint_creation_task_id
    assert Completion.create("changing", "hello").output.text == "hello"
    spec = Model.get("changing").spec
    assert spec is not None
    assert spec.labels == {"a": "b"}
    with pytest.raises(BadRequestError, match="max_workers"):
        Model.update("changing", min_workers=5)
    with pytest.raises(UnsupportedFeatureError, match="max_model_len"):
        Model.update("changing", max_model_len=100)
    with pytest.raises(TypeError, match=r"update\(\) got an unexpected keyword argument 'colour'"):
        Model.update("changing", colour="red")  # type: ignore[call-arg]


def test_m10_names_that_exist_and_names_that_do_not() -> None:
    create("twice")
    with pytest.raises(BadRequestError, match="twice"):
        create("twice")
    assert Model.delete("twice").deleted is True
    for call in (
        lambda: Model.get("twice"),
        lambda: Model.delete("twice"),
        lambda: Model.update("twice", cpus=1),
    ):
        with pytest.raises(NotFoundError, match="twice"):
            call()
    with pytest.raises(BadRequestError, match="base model"):
        Model.delete("scripted")


def test_m01_what_nothing_can_serve_fails_at_once_with_the_plan() -> None:
    with pytest.raises(ResolutionError, match="vllm") as caught:
        Model.create("nowhere", "scripted", "latest", inference_framework=LLMInferenceFramework.VLLM)
    assert caught.value.plan.chosen is None
    with pytest.raises(NotFoundError):
        Model.get("nowhere")


def test_m01_arguments_are_checked_before_any_work() -> None:
    with pytest.raises(BadRequestError, match="gpu_type"):
        create("a", gpu_type="gtx")
    with pytest.raises(UnsupportedFeatureError, match="nodes_per_worker"):
        create("a", nodes_per_worker=2)
    with pytest.raises(TypeError, match="colour"):
        create("a", colour="red")
    with pytest.raises(TypeError, match="inference_framework_image_tag"):
        Model.create("a", "scripted")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "call",
    [
        lambda headers: Model.get("scripted", headers),
        lambda headers: Model.list(headers),
        lambda headers: Model.delete("a", headers),
        lambda headers: Model.update("a", request_headers=headers),
        lambda headers: create("a", request_headers=headers),
    ],
)
def test_c12_headers_are_checked(call: Callable[[Any], object]) -> None:
    with pytest.raises(BadRequestError, match="request_headers"):
        call({"x": "a\nb"})


@pytest.mark.parametrize("name", ["", None, 5, "\ud800"])
def test_m10_a_name_is_a_text(name: Any) -> None:
    for call in (Model.get, Model.delete, Model.update):
        with pytest.raises(BadRequestError):
            call(name)


def test_m12_files_of_a_model_can_be_fetched_by_url() -> None:
    create("own", checkpoint_path=str(ECHO_WEIGHTS))
    response = Model.download("own")
    assert response.dict() == {"urls": {"echo.gguf": ECHO_WEIGHTS.as_uri()}}
    assert Model.download(model_name="own", download_format="hugging_face") == response


def test_m12_downloads_check_their_arguments() -> None:
    with pytest.raises(NotFoundError, match="'a'"):
        Model.download("a")
    for wrong in ("onnx", None, 5):
        with pytest.raises(BadRequestError, match="hugging_face") as caught:
            Model.download("a", download_format=wrong)  # type: ignore[arg-type]
        assert not isinstance(caught.value, UnsupportedFeatureError)
    with pytest.raises(BadRequestError, match="model_name"):
        Model.download(5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "call",
    [
        lambda: FineTune.create(model="llama-2-7b", training_file="file-7DLVeLdN2Ty4M2m"),
        lambda: FineTune.create(
            "llama-2-7b", "https://a.example/t.csv", "file-1", {"lr": 1}, {"api_key": "k"}, "my-1"
        ),
        lambda: FineTune.get("ft-1"),
        lambda: FineTune.get_events("ft-1"),
        lambda: FineTune.list(),
        lambda: FineTune.cancel("ft-1"),
    ],
)
def test_fine_tunes_say_what_will_bring_them(call: Callable[[], object]) -> None:
    with pytest.raises(UnsupportedFeatureError, match="llmengine-peft"):
        call()


@pytest.mark.parametrize(
    ("rule", "field", "value"),
    [
        ("F01", "training_file", "training.csv"),
        ("F01", "training_file", ""),
        ("F01", "training_file", "file-"),
        ("F01", "training_file", "ftp://a.example/t.csv"),
        ("F01", "validation_file", 5),
        ("F03", "hyperparameters", [1]),
        ("F04", "wandb_config", "key"),
        ("F05", "suffix", ""),
        ("F05", "suffix", "a" * 29),
        ("F05", "suffix", "a_b"),
        ("F05", "suffix", "ä"),
    ],
)
def test_f01_to_f05_fine_tunes_check_their_arguments(rule: str, field: str, value: Any) -> None:
    with pytest.raises(BadRequestError, match=field) as caught:
        FineTune.create(**{"model": "llama-2-7b", "training_file": "file-1"} | {field: value})
    assert not isinstance(caught.value, UnsupportedFeatureError)
