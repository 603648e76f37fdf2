"""The arguments of ``Model.create`` and ``Model.update``: what M02 to M08 say of them alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypedDict

from llmengine_core.arguments.checks import (
    boolean,
    http_url,
    integer,
    matching,
    one_of,
    refuse,
    text,
    text_map,
    texts,
)
from llmengine_core.arguments.client_only import refuse_client_only
from llmengine_core.arguments.quantity import quantity
from llmengine_core.errors import BadRequestError
from llmengine_core.types.models import ModelSpec

__all__ = ["DOWNLOAD_FORMATS", "GPU_TYPES", "ClientOnly", "merge_model", "parse_model"]

GPU_TYPES = (
    "nvidia-tesla-t4",
    "nvidia-ampere-a10",
    "nvidia-ampere-a100",
    "nvidia-ampere-a100e",
    "nvidia-hopper-h100",
    "nvidia-hopper-h100-1g20gb",
    "nvidia-hopper-h100-3g40gb",
)
DOWNLOAD_FORMATS = ("hugging_face",)
"""M12: the forms in which a model's files can be had."""
HOOKS = ("callback",)
UNCHANGING = {"name", "inference_framework"}

# A name is one segment of any path or URL. 128 has room for a base's name, a fine-tune's suffix and its time.
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
NAME_ALLOWED = "1 to 128 letters, digits, dots, hyphens and underscores, with a letter or digit at both ends"
BASE = re.compile(rf"{NAME.pattern}(?:/{NAME.pattern})?")
BASE_ALLOWED = f"a base model's name: {NAME_ALLOWED}; or two of them with a slash between, as in hubs"
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
WORD_ALLOWED = "1 to 64 letters, digits, dots, hyphens and underscores"
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+!-]{0,127}")
TAG_ALLOWED = '"latest" or a version of the framework, such as "0.9.4"'

CLIENT_ONLY: dict[str, tuple[object, ...]] = {
    "nodes_per_worker": (1, None),
    "metadata": (None, {}),
    "optimize_costs": (None,),
    "prewarm": (None,),
    "billing_tags": (None,),
    "default_callback_auth": (None,),
    "chat_template_override": (None,),
    "max_model_len": (None,),
    "max_num_seqs": (None,),
    "enforce_eager": (None,),
    "gpu_memory_utilization": (None,),
    "max_gpu_memory_utilization": (None,),
    "attention_backend": (None,),
    "trust_remote_code": (False, None),
    "force_bundle_recreation": (False, None),
}


class ClientOnly(TypedDict, total=False):
    """Arguments that only the original client knows; neutral values are accepted, others refused."""

    nodes_per_worker: int | None
    metadata: dict[str, Any] | None
    optimize_costs: bool | None
    prewarm: bool | None
    billing_tags: dict[str, Any] | None
    default_callback_auth: Any
    chat_template_override: str | None
    max_model_len: int | None
    max_num_seqs: int | None
    enforce_eager: bool | None
    gpu_memory_utilization: float | None
    max_gpu_memory_utilization: float | None
    attention_backend: str | None
    trust_remote_code: bool | None
    force_bundle_recreation: bool | None


def parse_model(
    *,
    name: object,
    model: object,
    inference_framework_image_tag: object,
    source: object = "hugging_face",
    inference_framework: object = "vllm",
    num_shards: object = 1,
    quantize: object = None,
    checkpoint_path: object = None,
    cpus: object = None,
    memory: object = None,
    storage: object = None,
    gpus: object = None,
    min_workers: object = 0,
    max_workers: object = 1,
    per_worker: object = 2,
    endpoint_type: object = "streaming",
    gpu_type: object = None,
    high_priority: object = False,
    post_inference_hooks: object = None,
    default_callback_url: object = None,
    public_inference: object = True,
    labels: object = None,
    **client_only: object,
) -> ModelSpec:
    """Check the arguments of ``Model.create``; what needs a look at the machine is left to resolution.

    Raises ``BadRequestError`` naming the field, ``UnsupportedFeatureError`` for a client-only argument
    that asks for something, ``TypeError`` for a name that nobody knows.
    """
    refuse_client_only("create", client_only, CLIENT_ONLY)
    spec = ModelSpec(
        name=matching("name", name, NAME, NAME_ALLOWED),
        model=matching("model", model, BASE, BASE_ALLOWED),
        inference_framework_image_tag=matching(
            "inference_framework_image_tag", inference_framework_image_tag, TAG, TAG_ALLOWED
        ),
        source=one_of("source", source, ("hugging_face",)),
        inference_framework=matching("inference_framework", inference_framework, WORD, WORD_ALLOWED),
        num_shards=integer("num_shards", num_shards, 1, "a whole number of at least 1"),
        quantize=None if quantize is None else matching("quantize", quantize, WORD, WORD_ALLOWED),
        checkpoint_path=None if checkpoint_path is None else _path(checkpoint_path),
        cpus=None if cpus is None else integer("cpus", cpus, 1, "a whole number of at least 1, or None"),
        memory=None if memory is None else quantity("memory", memory),
        storage=None if storage is None else quantity("storage", storage),
        gpus=None if gpus is None else integer("gpus", gpus, 0, "a whole number of at least 0, or None"),
        min_workers=integer("min_workers", min_workers, 0, "a whole number of at least 0"),
        max_workers=integer("max_workers", max_workers, 0, "a whole number of at least 0"),
        per_worker=integer("per_worker", per_worker, 1, "a whole number of at least 1"),
        endpoint_type=one_of("endpoint_type", endpoint_type, ("streaming",)),
        gpu_type=None if gpu_type is None else one_of("gpu_type", gpu_type, GPU_TYPES),
        high_priority=False if high_priority is None else boolean("high_priority", high_priority),
        post_inference_hooks=() if post_inference_hooks is None else _hooks(post_inference_hooks),
        default_callback_url=(
            None if default_callback_url is None else http_url("default_callback_url", default_callback_url)
        ),
        public_inference=True if public_inference is None else boolean("public_inference", public_inference),
        labels=text_map("labels", labels),
    )
    _check_workers(spec)
    _check_gpus(spec)
    return spec


def merge_model(spec: ModelSpec, changes: Mapping[str, object]) -> ModelSpec:
    """A model's spec after ``Model.update``: None leaves a field as it is; the whole is checked again."""
    old = {each.name: getattr(spec, each.name) for each in fields(spec)}
    changing = old.keys() - UNCHANGING
    refuse_client_only("update", {k: v for k, v in changes.items() if k not in changing}, CLIENT_ONLY)
    return parse_model(**old | {k: v for k, v in changes.items() if k in changing and v is not None})


def _path(value: object) -> str:
    found = text("checkpoint_path", value, "a path or URL as text, or None")
    if "\0" in found:
        refuse("checkpoint_path", found, "a path or URL without the character U+0000")
    return found


def _hooks(value: object) -> tuple[str, ...]:
    found = texts("post_inference_hooks", value, f"a list of {' or '.join(map(repr, HOOKS))}, or None")
    return tuple(one_of(f"post_inference_hooks[{at}]", each, HOOKS) for at, each in enumerate(found))


def _check_workers(spec: ModelSpec) -> None:
    if spec.max_workers < spec.min_workers:
        refuse("max_workers", spec.max_workers, f"at least min_workers, which is {spec.min_workers}")
    if spec.min_workers == 0 and spec.max_workers != 1:
        refuse("max_workers", spec.max_workers, "1 where min_workers is 0; give min_workers=1 for more")


def _check_gpus(spec: ModelSpec) -> None:
    if spec.gpus and spec.num_shards > spec.gpus:
        refuse("num_shards", spec.num_shards, f"at most gpus, which is {spec.gpus}")
    if spec.gpu_type is not None and not spec.gpus:
        raise BadRequestError(
            f"gpu_type is {spec.gpu_type!r} while gpus is {spec.gpus}; it goes only with gpus of at least 1"
        )
