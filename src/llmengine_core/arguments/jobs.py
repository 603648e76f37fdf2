"""The arguments of fine-tunes and batches, as far as F01, F05 and B01 say of each alone."""

from __future__ import annotations

import re

from llmengine_core.arguments.checks import (
    http_url,
    integer,
    matching,
    refuse,
    shown,
    text,
    text_map,
)
from llmengine_core.errors import BadRequestError

__all__ = ["check_batch", "check_fine_tune"]

FILE_ID = re.compile(r"file-[A-Za-z0-9_-]{1,64}")
SUFFIX = re.compile(r"[A-Za-z0-9-]{1,28}")
SUFFIX_ALLOWED = "1 to 28 letters, digits and hyphens, or None"
DAY = 24 * 3600


def check_fine_tune(
    *,
    model: object,
    training_file: object,
    validation_file: object,
    hyperparameters: object,
    wandb_config: object,
    suffix: object,
) -> None:
    """Check the arguments of ``FineTune.create``; raises ``BadRequestError`` naming the field."""
    text("model", model, "the name of a base model")
    _data_file("training_file", training_file)
    if validation_file is not None:
        _data_file("validation_file", validation_file)
    for field, value in (("hyperparameters", hyperparameters), ("wandb_config", wandb_config)):
        if value is not None and not isinstance(value, dict):
            refuse(field, value, "a dict, or None")
    if suffix is not None:
        matching("suffix", suffix, SUFFIX, SUFFIX_ALLOWED)


def check_batch(
    *,
    output_data_path: object,
    content: object,
    input_data_path: object,
    data_parallelism: object,
    max_runtime_sec: object,
    labels: object,
    priority: object,
) -> None:
    """Check the arguments of ``Completion.batch_create``; raises ``BadRequestError`` naming the field."""
    text("output_data_path", output_data_path, "a path or URL")
    if (content is None) is (input_data_path is None):
        raise BadRequestError(
            f"content is {shown(content)} and input_data_path is {shown(input_data_path)}; give exactly one of them"
        )
    if input_data_path is not None:
        text("input_data_path", input_data_path, "a path or URL")
    _up_to("data_parallelism", data_parallelism, 64)
    _up_to("max_runtime_sec", max_runtime_sec, 2 * DAY)
    text_map("labels", labels)
    if priority is not None:
        text("priority", priority)


def _data_file(field: str, value: object) -> str:
    allowed = "the id of an uploaded file (file-…) or an http:// or https:// URL"
    found = text(field, value, allowed)
    if found.startswith("file-"):
        return matching(field, found, FILE_ID, allowed)
    return http_url(field, found) if "://" in found else refuse(field, found, allowed)


def _up_to(field: str, value: object, most: int) -> int:
    number = integer(field, value, 1, f"a whole number from 1 to {most}")
    return number if number <= most else refuse(field, value, f"a whole number from 1 to {most}")
