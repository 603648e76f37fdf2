"""Everything that a plugin can add, on one page.

A plugin is a module named by an entry point of the group ``llmengine``; the entry point's name is the
plugin's. It states the contract it was written for and implements any of the hooks below::

    from llmengine_core.hookspecs import hookimpl
    from llmengine_core.types.declarations import StorageInfo

    CONTRACT = 1

    @hookimpl
    def register_storages():
        return [StorageInfo(name="tape", schemes=frozenset({"tape"}), factory="my_tape.storage:TapeStorage")]

Importing the module is quick (0.1 s of CPU time): it imports no engine and no HTTP client, starts no thread or process,
opens no socket, touches no file but what is installed, prints nothing, and changes nothing that all plugins share, such
as logging or signals. ``llmengine_core.testing.PluginContract`` sees to it.

Rules for all of them: a hook is called once, when the registry is built; it returns declarations (or an
empty list), quickly, without input or output, and without importing an engine. It may take fewer arguments
than its specification. A name that is registered twice is an error of the second plugin; a plugin that
fails, fails alone. Hooks only grow, by keyword.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import click

    from llmengine_core.types.declarations import (
        BackendInfo,
        GuidedDecoderInfo,
        ObserverInfo,
        QuantizerInfo,
        RuntimeInfo,
        StorageInfo,
        StoreInfo,
        TransformInfo,
    )
    from llmengine_core.types.models import ModelCard

__all__ = ["GROUP", "hookimpl", "hookspec"]

GROUP = "llmengine"
"""The entry-point group, and the name of the hook markers' project."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def register_backends() -> Sequence[BackendInfo]:  # type: ignore[empty-body]
    """Engines that generate.

    Called when the registry is built. What is returned takes part in every resolution; the object behind
    ``factory`` is a ``llmengine_core.interfaces.backend.Backend``.
    """


@hookspec
def register_transforms() -> Sequence[TransformInfo]:  # type: ignore[empty-body]
    """Offline work on checkpoints: conversions and quantizations.

    The resolver chains them where a backend can't load a checkpoint as it is. The object behind
    ``factory`` is a ``llmengine_core.interfaces.transform.Transform``.
    """


@hookspec
def register_quantizers() -> Sequence[QuantizerInfo]:  # type: ignore[empty-body]
    """Quantization while an engine loads.

    What ``Model.create(quantize=...)`` may name for the backends that each lists. The object behind ``factory``
    is a ``llmengine_core.interfaces.quantizer.Quantizer``.
    """


@hookspec
def register_guided_decoders() -> Sequence[GuidedDecoderInfo]:  # type: ignore[empty-body]
    """Checkers of constraints (guided_json and its kin).

    The one with the highest priority that speaks a session's dialect checks, translates and verifies. The
    object behind ``factory`` is a ``llmengine_core.interfaces.guided.GuidedDecoder``.
    """


@hookspec
def register_storages() -> Sequence[StorageInfo]:  # type: ignore[empty-body]
    """Object storages, by URL scheme.

    A scheme belongs to the storage with the highest priority. The object behind ``factory`` is a
    ``llmengine_core.interfaces.storage.Storage``; it is called with the URL.
    """


@hookspec
def register_stores() -> Sequence[StoreInfo]:  # type: ignore[empty-body]
    """Metadata stores, by URL scheme.

    The object behind ``factory`` is a ``llmengine_core.interfaces.store.Store``; it is called with the URL.
    """


@hookspec
def register_runtimes() -> Sequence[RuntimeInfo]:  # type: ignore[empty-body]
    """Places where replicas run.

    The object behind ``factory`` is a ``llmengine_core.interfaces.runtime.Runtime``; it is called with the
    state folder. ``local`` is the core's own.
    """


@hookspec
def register_models() -> Sequence[ModelCard]:  # type: ignore[empty-body]
    """Base models that are known by name.

    Each can be completed with, and named in ``Model.create(model=...)``, as soon as its weights are here.
    """


@hookspec
def register_observers() -> Sequence[ObserverInfo]:  # type: ignore[empty-body]
    """Those who want to know when requests start and finish.

    The object behind ``factory`` is a ``llmengine_core.interfaces.observer.Observer``.
    """


@hookspec
def register_commands(cli: click.Group) -> None:
    """Sub-commands of ``llmengine``.

    Called where the command line must know them: for its help, and for a command that is not the core's.
    Adds one command, or a group, under the plugin's own name; one that exists is an error of the plugin.
    """
