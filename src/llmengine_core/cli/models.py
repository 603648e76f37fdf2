"""``llmengine models``: what can be asked for completions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmengine_core.cli.console import Console, common_options, json_option, pass_console
from llmengine_core.cli.output import count_text, fields_of, size_text, table
from llmengine_core.cli.spec_options import (
    changeable_options,
    framework_option,
    given_changes,
    given_spec,
    spec_file_option,
)

if TYPE_CHECKING:
    from llmengine_core.engine import Engine
    from llmengine_core.types.models import ModelRecord

__all__ = ["models"]


@click.group()
def models() -> None:
    """Create, look at, change and delete models."""


@models.command("list")
@json_option
@common_options
@pass_console
def list_(console: Console) -> None:
    """List the models that can be used here."""
    from llmengine_core.cli.running import caller, run
    from llmengine_core.responses import model_response

    records = run(console, lambda engine: engine.models.list(caller=caller()))
    rows = [
        (r.spec.name, r.status, r.spec.model, r.plan.chosen, "base" if r.builtin else r.owner)
        for r in records
    ]
    console.result(
        {"model_endpoints": [model_response(record) for record in records]},
        table(("NAME", "STATUS", "BASE", "ENGINE", "OWNER"), rows),
    )


@models.command()
@click.option("--here", "only_here", is_flag=True, help="Only those whose weights are on this machine.")
@json_option
@common_options
@pass_console
def zoo(console: Console, only_here: bool) -> None:
    """List the base models that are known by name, whether or not they can be served here.

    The weights of those that are not HERE are fetched when they are first needed. SIZE is about what that takes.
    """
    import asyncio

    from llmengine_core.cards import cards_here
    from llmengine_core.registry import Registry
    from llmengine_core.settings import load_settings

    settings = load_settings()
    registry = Registry.build(settings)
    here = asyncio.run(cards_here(registry, settings))
    cards = [card for name, card in sorted(registry.models.items()) if name in here or not only_here]
    rows = [
        (
            card.name,
            count_text(card.parameters),
            "?" if (size := card.sources[0].size) is None else size_text(size),
            card.context_length,
            "yes" if card.name in here else "no",
            card.license,
        )
        for card in cards
    ]
    value = [
        {
            "name": card.name,
            "here": card.name in here,
            "parameters": card.parameters,
            "size": card.sources[0].size,
            "context_length": card.context_length,
            "license": card.license,
            "description": card.description,
            "homepage": card.homepage,
            "sources": [source.url for source in card.sources],
        }
        for card in cards
    ]
    console.result(
        {"models": value}, table(("NAME", "PARAMETERS", "SIZE", "CONTEXT", "HERE", "LICENSE"), rows)
    )


@models.command()
@click.argument("name")
@json_option
@common_options
@pass_console
def show(console: Console, name: str) -> None:
    """Show a model and why it is served the way it is."""
    from llmengine_core.cli.running import caller, run
    from llmengine_core.responses import model_response

    record = run(console, lambda engine: engine.models.get(name, caller=caller()))
    console.result(model_response(record), _described(record))


@models.command()
@click.argument("name")
@framework_option
@changeable_options
@spec_file_option
@click.option(
    "--wait/--no-wait", default=True, help="Wait until its weights are ready, which is the default."
)
@json_option
@common_options
@pass_console
def create(console: Console, /, name: str, spec_file: Path | None, wait: bool, **options: Any) -> None:
    """Create the model NAME of a base model.

    With --no-wait its weights are made ready by whoever needs it first.
    """
    from llmengine_core.cli.running import caller, run

    spec = given_spec(name, spec_file, options)

    async def work(engine: Engine) -> ModelRecord:
        record = await engine.models.create(spec, caller=caller())
        return await engine.models.wait(name, caller=caller()) if wait else record

    _changed(console, run(console, work))


@models.command()
@click.argument("name")
@changeable_options
@click.option("--wait/--no-wait", default=True, help="Wait until the change is done, which is the default.")
@json_option
@common_options
@pass_console
def update(console: Console, /, name: str, wait: bool, **options: Any) -> None:
    """Change the model NAME; what is not given stays as it is.

    The old model serves until the new one stands, and goes on serving where that fails.
    """
    from llmengine_core.cli.running import caller, run

    changes = given_changes(options)
    if not changes:
        raise click.UsageError("nothing to change was given")

    async def work(engine: Engine) -> ModelRecord:
        record = await engine.models.update(name, changes, caller=caller())
        return await engine.models.wait(name, caller=caller()) if wait else record

    _changed(console, run(console, work))


@models.command()
@click.argument("name")
@json_option
@common_options
@pass_console
def wait(console: Console, name: str) -> None:
    """Wait until the model NAME is ready, or has failed."""
    from llmengine_core.cli.running import caller, run

    _changed(console, run(console, lambda engine: engine.models.wait(name, caller=caller())))


@models.command()
@click.argument("name")
@json_option
@common_options
@pass_console
def delete(console: Console, name: str) -> None:
    """Delete the model NAME; its weights stay where they are."""
    from llmengine_core.cli.running import caller, run

    deleted = run(console, lambda engine: engine.models.delete(name, caller=caller()))
    console.result({"deleted": deleted}, f"deleted {name}")


@models.command()
@click.argument("name")
@click.option(
    "--format", "download_format", default="hugging_face", show_default=True, help="The form of the files."
)
@json_option
@common_options
@pass_console
def download(console: Console, name: str, download_format: str) -> None:
    """Print a URL for each file of the model NAME, whose weights are your own.

    URLs that grant access do so for an hour.
    """
    from llmengine_core.cli.running import caller, run

    async def work(engine: Engine) -> dict[str, str]:
        return await engine.models.download(name, download_format=download_format, caller=caller())

    urls = run(console, work)
    console.result({"urls": urls}, table(("FILE", "URL"), list(urls.items())))


def _described(record: ModelRecord) -> Iterator[str]:
    """A model for people: what it is, then why it is served the way it is."""
    from llmengine_core.explanation import explain

    spec = record.spec
    yield from fields_of(
        {
            "name": spec.name,
            "status": record.status,
            "reason": record.reason,
            "base model": spec.model,
            "checkpoint": spec.checkpoint_path,
            "quantize": spec.quantize,
            "workers": f"{spec.min_workers} to {spec.max_workers}, {spec.per_worker} requests at once on each",
            "labels": " ".join(f"{key}={value}" for key, value in spec.labels.items()) or None,
            "owner": None if record.builtin else record.owner,
            "id": record.id,
        }
    )
    yield ""
    yield explain(record.plan)


def _changed(console: Console, record: ModelRecord) -> None:
    from llmengine_core.errors import ServerError
    from llmengine_core.responses import model_response
    from llmengine_core.types.models import ModelStatus

    if record.status is ModelStatus.UPDATE_FAILED:
        raise ServerError(f"the last change of the model {record.spec.name!r} failed: {record.reason}")
    console.result(model_response(record), f"{record.spec.name} {record.status}")
