"""``llmengine cache``: the weights that were fetched or made on this machine."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from llmengine_core.cli.console import Console, common_options, json_option, pass_console
from llmengine_core.cli.output import size_text, table
from llmengine_core.errors import ServerError

if TYPE_CHECKING:
    from llmengine_core.cache import Inventory, Item

__all__ = ["cache"]

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
AGE = re.compile(r"(\d{1,9})([smhdw])", re.ASCII)
HEADER = ("NAME", "KIND", "SIZE", "LAST USED", "IN USE", "FROM")


@click.group(short_help="List, prune and verify the weights on this machine.")
def cache() -> None:
    """List, prune and verify the weights that were fetched, unpacked or derived on this machine."""


def _size(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    from llmengine_core.arguments.quantity import quantity_bytes

    found = None if value is None else quantity_bytes(value)
    if value is not None and found is None:
        raise click.BadParameter(f"{value!r} is no size; allowed are bytes, such as 50Gi, 2e9 or 0")
    return found


def _age(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    found = AGE.fullmatch(value)
    if found is None:
        raise click.BadParameter(
            f"{value!r} is no age; allowed are a number and one of s, m, h, d, w: 12h, 30d"
        )
    return int(found[1]) * UNITS[found[2]]


@cache.command("ls", short_help="List what is there.")
@json_option
@common_options
@pass_console
def list_(console: Console) -> None:
    """List the weights in the cache, those that were used longest ago first.

    What is "partial" is being fetched, or was broken off: the next fetch goes on from there. SIZE counts also what
    weights share with others. What is in use is never removed.
    """
    from llmengine_core.cache import Layout, take_stock
    from llmengine_core.settings import load_settings

    settings = load_settings()
    with _explained():
        stock = take_stock(Layout(settings.home))
    value = {
        "entries": [_described(item) for item in stock.items],
        **_sizes(stock),
        "limit": settings.weights_size,
    }
    lines = [*table(HEADER, [_row(item) for item in stock.items])]
    summary = f"{size_text(stock.size)} of {size_text(settings.weights_size)}"
    console.result(value, [*lines, f"{summary}; {size_text(stock.unused)} not in use"])


@cache.command(short_help="Remove what was used longest ago.")
@click.option("--keep", callback=_size, metavar="SIZE", help="Until the rest takes at most SIZE: 50Gi, 2e9.")
@click.option("--older-than", callback=_age, metavar="AGE", help="What was not used for AGE: 12h, 30d.")
@click.option("--all", "everything", is_flag=True, help="Everything that is not in use.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@json_option
@common_options
@pass_console
def prune(
    console: Console, keep: int | None, older_than: float | None, everything: bool, dry_run: bool
) -> None:
    """Remove weights that nobody uses, those that were used longest ago first.

    Without options, until the rest keeps to LLMENGINE_WEIGHTS_SIZE, which every fetch does by itself; besides, what is
    left of fetches that nobody went on with for a week. What is removed is fetched or made again when it is needed.
    """
    from llmengine_core.cache import Layout, make_room, take_stock
    from llmengine_core.settings import load_settings

    if everything and (keep is not None or older_than is not None):
        raise click.UsageError("--all leaves nothing to --keep or --older-than; give one or the other")
    settings = load_settings()
    layout = Layout(settings.home)
    if everything:
        keep = 0
    elif keep is None and older_than is None:
        keep = settings.weights_size
    since = None if older_than is None else time.time() - older_than
    with _explained():
        before = take_stock(layout)
        went, left = make_room(layout, keep=keep, since=math.inf, older_than=since, dry_run=dry_run)
    freed = max(0, before.size - left.size)
    value = {
        "removed": [_described(item) for item in went],
        "freed": freed,
        **_sizes(left),
        "dry_run": dry_run,
    }
    done = "would free" if dry_run else "freed"
    kept = f"{done} {size_text(freed)}; {size_text(left.size)} are left"
    console.result(value, [*table(HEADER, [_row(item) for item in went]), kept])


@cache.command(short_help="Read everything again.")
@json_option
@common_options
@click.pass_context
def verify(context: click.Context) -> None:
    """Hash every file in the cache, and compare it with what was fetched or made.

    What is damaged is removed, and fetched or made again when it is needed; what is in use stays, and is mended
    when a model is prepared of it again. The exit code is 1 where something is damaged.
    """
    from llmengine_core.cache import verify as verify_all
    from llmengine_core.cli.environments import run_with_progress
    from llmengine_core.settings import load_settings

    console = context.ensure_object(Console)
    home = load_settings().home
    with _explained():
        found = run_with_progress(console, lambda news: verify_all(home, news))
    value, lines = [], []
    for each in found:
        value.append({**_described(each.item), "wrong": each.wrong, "removed": each.removed})
        lines.append(f"{'damaged' if each.wrong else 'ok':8}{each.item.name}  ({each.item.source})")
        lines += [f"{'':8}{name} is missing, or not what it was" for name in each.wrong]
        if each.wrong and not each.removed:
            lines.append(f"{'':8}it is in use; mend: end the programs that use it, and verify again")
    console.result({"entries": value}, lines)
    if any(each.wrong for each in found):
        context.exit(1)


@contextmanager
def _explained() -> Iterator[None]:
    """Errors of the disk as ours."""
    try:
        yield
    except OSError as error:
        raise ServerError(
            f"the weights on this machine can't be seen to: {error.strerror or error} ({error.filename}); see to the "
            "rights and the disk there, or set LLMENGINE_HOME"
        ) from error


def _sizes(stock: Inventory) -> dict[str, int]:
    return {"size": stock.size, "unused": stock.unused}


def _described(item: Item) -> dict[str, object]:
    """An entry as JSON."""
    return {
        "key": item.key,
        "name": item.name,
        "kind": item.kind,
        "source": item.source,
        "size": item.size,
        "used_at": item.used_at,
        "made_at": item.made_at,
        "in_use": item.in_use,
        "path": item.path,
    }


def _row(item: Item) -> tuple[str, ...]:
    """An entry as a row under ``HEADER``."""
    used = datetime.fromtimestamp(item.used_at, UTC).astimezone().isoformat(" ", "minutes")
    source = item.source or item.key
    return (item.name, item.kind, size_text(item.size), used, "yes" if item.in_use else "no", source)
