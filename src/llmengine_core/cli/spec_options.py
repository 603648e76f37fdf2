"""The options that describe a model: the arguments of ``Model.create`` and ``Model.update``, by their names."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from llmengine_core.cli.given import text_pairs

if TYPE_CHECKING:
    from llmengine_core.types.models import ModelSpec

__all__ = ["changeable_options", "framework_option", "given_changes", "given_spec", "spec_file_option"]

F = TypeVar("F", bound=Callable[..., Any])

DEFAULTS = {"inference_framework": "auto", "inference_framework_image_tag": "latest"}

OPTIONS = (
    click.option("--model", metavar="BASE", help="The base model's name."),
    click.option(
        "--checkpoint-path", metavar="PATH|URL", help="A folder or archive of weights to use instead."
    ),
    click.option("--inference-framework-image-tag", metavar="TAG", help="Version of the engine, or latest."),
    click.option("--source", help="Where the base model is from: hugging_face."),
    click.option("--num-shards", type=int, help="Devices that one replica is split over."),
    click.option("--quantize", metavar="METHOD", help="How to quantize the weights."),
    click.option("--cpus", type=int, help="Processors for one replica."),
    click.option("--memory", metavar="QUANTITY", help='For one replica, such as "24Gi".'),
    click.option("--storage", metavar="QUANTITY", help='For one replica, such as "40Gi".'),
    click.option("--gpus", type=int, help="GPUs for one replica."),
    click.option("--gpu-type", help="Such as nvidia-ampere-a10."),
    click.option("--min-workers", type=int, help="Fewest replicas; 0 starts one on demand."),
    click.option("--max-workers", type=int, help="Most replicas."),
    click.option("--per-worker", type=int, help="Requests at once on one replica."),
    click.option("--endpoint-type", help="streaming."),
    click.option("--high-priority/--no-high-priority", default=None, help="Prefer prewarmed machines."),
    click.option(
        "--post-inference-hooks", multiple=True, metavar="HOOK", help="callback; may be given again."
    ),
    click.option("--default-callback-url", metavar="URL", help="Where the callback hook sends completions."),
    click.option("--public-inference/--no-public-inference", default=None, help="Whether others may use it."),
    click.option("--labels", multiple=True, metavar="KEY=VALUE", help="A label; may be given again."),
)

framework_option = click.option(
    "--inference-framework", metavar="NAME", help="An engine's name; auto, the default, takes what fits best."
)
spec_file_option = click.option(
    "--spec",
    "spec_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A .json or .toml file of these options, by their names in Python; options given here come first.",
)


def changeable_options(function: F) -> F:
    """All that can be changed in a model."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


def given_changes(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, as arguments of ``Model.update``."""
    given = {name: value for name, value in options.items() if value is not None and value != ()}
    if "labels" in given:
        given["labels"] = text_pairs("--labels", given["labels"])
    return given


def given_spec(name: str | None, spec_file: Path | None, options: dict[str, Any]) -> ModelSpec:
    """The spec that options, a file and defaults make up, in this order; checked.

    A spec without a name of its own has its base model's.
    """
    from llmengine_core.arguments.model import parse_model

    arguments = DEFAULTS | (_read(spec_file) if spec_file else {}) | given_changes(options)
    if name is not None:
        arguments["name"] = name
    arguments.setdefault("name", str(arguments.get("model", "")).rpartition("/")[2])
    if "model" not in arguments:
        raise click.UsageError("the base model is missing; give --model, or model in the file of --spec")
    try:
        return parse_model(**arguments)
    except TypeError as error:  # a name in the file that nobody knows
        raise click.UsageError(f"{spec_file}: {error}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        value = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{path} can't be read: {error}", param_hint="--spec") from None
    if not isinstance(value, dict):
        raise click.BadParameter(f"{path} holds a {type(value).__name__}, not an object", param_hint="--spec")
    return value
