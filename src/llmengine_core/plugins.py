"""Plugins, loaded one by one so that a broken one breaks only itself."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from importlib import metadata
from typing import TYPE_CHECKING, Any, NoReturn

import pluggy

from llmengine_core import hookspecs
from llmengine_core.declaration_rules import flaws
from llmengine_core.hookspecs import GROUP
from llmengine_core.types.declarations import (
    CONTRACT_VERSION,
    BackendInfo,
    GuidedDecoderInfo,
    Info,
    ObserverInfo,
    QuantizerInfo,
    RuntimeInfo,
    StorageInfo,
    StoreInfo,
    TransformInfo,
)
from llmengine_core.types.models import ModelCard
from llmengine_core.types.plan import PluginFault

if TYPE_CHECKING:
    import click

__all__ = [
    "DECLARING_HOOKS",
    "Plugin",
    "PluginSource",
    "Plugins",
    "describe_error",
    "fault",
    "import_object",
    "installed",
    "load_plugins",
    "remedy",
]

DECLARING_HOOKS: Mapping[str, type[Info | ModelCard]] = {
    "register_backends": BackendInfo,
    "register_transforms": TransformInfo,
    "register_quantizers": QuantizerInfo,
    "register_guided_decoders": GuidedDecoderInfo,
    "register_storages": StorageInfo,
    "register_stores": StoreInfo,
    "register_runtimes": RuntimeInfo,
    "register_models": ModelCard,
    "register_observers": ObserverInfo,
}
"""What each hook that declares gives."""

ONLY, NOT = "LLMENGINE_PLUGINS", "LLMENGINE_DISABLED_PLUGINS"
ACTIONS = {
    "reinstall": "python -m pip install --force-reinstall",
    "upgrade": "python -m pip install --upgrade",
    "uninstall": "python -m pip uninstall",
}
"""Commands that take a distribution."""


@dataclass(frozen=True, slots=True)
class PluginSource:
    """A plugin that can be loaded."""

    name: str
    distribution: str
    """"llmengine-trt 0.3", or "" where it isn't known."""
    load: Callable[[], object] = field(repr=False)
    """Imports it."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin that was loaded, and whose declarations are sound."""

    name: str
    distribution: str
    declared: tuple[Info | ModelCard, ...]
    """By all its hooks."""
    hooks: pluggy.PluginManager = field(repr=False, compare=False)
    """Its own, so that plugins can't disturb each other."""

    def add_commands(self, cli: click.Group) -> PluginFault | None:
        """Let it add its command, named as the plugin is, to the command line; what went wrong, if anything."""
        import click

        scratch = click.Group(cli.name)
        try:
            self.hooks.hook.register_commands(cli=scratch)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return fault(self, f"failed in register_commands: {describe_error(error)}", "upgrade")
        taken = cli.list_commands(click.Context(cli))
        for name, command in scratch.commands.items():
            if name != self.name:
                message = f"adds the command {name!r}; the command of a plugin has its name, {self.name!r}"
                return fault(self, message, "upgrade")
            if name in taken:
                return fault(self, f"adds the command {name!r}, which there is already", "upgrade")
            cli.add_command(command)
        return None


@dataclass(frozen=True, slots=True)
class Plugins:
    """What came of all that there were."""

    loaded: tuple[Plugin, ...]
    faults: tuple[PluginFault, ...]
    left_out: tuple[PluginFault, ...]
    """Those that the settings leave out, with the setting."""


def installed() -> list[PluginSource]:
    """The plugins of this environment, by name; nothing of theirs is imported.

    One distribution whose metadata is broken hides no other: each is read by itself.
    """
    sources: dict[tuple[str, str], PluginSource] = {}
    for distribution in metadata.distributions():
        try:
            written = distribution.read_text("entry_points.txt")
            if not written or f"[{GROUP}]" not in written:
                continue
            for entry in distribution.entry_points.select(group=GROUP):
                found = PluginSource(entry.name, _name_and_version(distribution), entry.load)
                sources.setdefault((entry.name, found.distribution.partition(" ")[0]), found)
        except Exception as error:
            name = _name_and_version(distribution) or "?"
            sources[name, ""] = PluginSource(name.partition(" ")[0], name, _raiser(error))
    return sorted(sources.values(), key=lambda source: (source.name, source.distribution))


def load_plugins(
    sources: Iterable[PluginSource],
    *,
    only: Collection[str] | None = None,
    always: Collection[str] = (),
    disabled: Collection[str] = (),
    schemes: Collection[str] = (),
) -> Plugins:
    """Import plugins and collect what they declare.

    Where ``only`` is given, other names are left out, but for those of ``always``; those of ``disabled``
    are left out in any case. ``schemes`` are those of the configured metadata and object storage: a plugin
    that serves one of them is loaded although ``only`` doesn't name it, where no other does.
    """
    sources = list(sources)
    loaded: list[Plugin] = []
    faults = _unknown_names(sources, ONLY, only or ()) + _unknown_names(sources, NOT, disabled)
    left_out: list[PluginFault] = []
    reserve: list[PluginSource] = []
    seen: dict[str, PluginSource] = {}
    for source in sources:
        first = seen.setdefault(source.name, source)
        if first is not source:
            faults.append(
                fault(
                    source, f"has the name of a plugin of {first.distribution or 'this program'}", "uninstall"
                )
            )
        elif source.name in disabled:
            left_out.append(fault(source, f"is left out by {NOT}", f"take {source.name!r} out of {NOT}"))
        elif only is not None and source.name not in only and source.name not in always:
            reserve.append(source)
        else:
            _sort_into(_load(source), loaded, faults)
    missing = set(schemes) - _schemes(loaded)
    unserved: list[PluginFault] = []
    for source in reserve:
        tried: list[Plugin] = []
        if missing:
            _sort_into(_load(source), tried, unserved)
        if found := missing & _schemes(tried):
            loaded += tried
            missing -= found
        else:
            left_out.append(fault(source, f"is left out by {ONLY}", f"add {source.name!r} to {ONLY}"))
    return Plugins(tuple(loaded), tuple(faults + (unserved if missing else [])), tuple(left_out))


def fault(
    of: PluginSource | Plugin, message: str, mend: str, *, registers: tuple[str, ...] = ()
) -> PluginFault:
    """What is wrong with a plugin: ``message`` goes on after its name; ``mend`` may be one of ``ACTIONS``."""
    if mend in ACTIONS:
        mend = remedy(mend, of.name, of.distribution)
    return PluginFault(of.name, of.distribution, message, mend, registers)


def remedy(action: str, plugin: str, distribution: str) -> str:
    """The command of ``ACTIONS`` for a plugin's distribution ("llmengine-trt 0.3"), or how to do without it."""
    leave_out = f"leave it out: {NOT}={plugin}"
    package = distribution.partition(" ")[0]
    return f"{ACTIONS[action]} {package}, or {leave_out}" if package else leave_out


def import_object(path: str) -> Callable[..., Any]:
    """What "package.module:Name" names. Raises what importing it raises; it can be called."""
    module, _, name = path.partition(":")
    found: Any = reduce(getattr, name.split("."), importlib.import_module(module))
    if not callable(found):
        raise TypeError(f"{path} is of type {type(found).__name__}, which can't be called")
    return found  # type: ignore[no-any-return]


def describe_error(error: BaseException) -> str:
    """An exception in one line of at most about 500 characters: its class and what it says."""
    try:
        said = " ".join(str(error).split())
    except Exception:
        said = ""
    said = f"{said[:500]}…" if len(said) > 500 else said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


class _Unusable(Exception):
    """A plugin that could be imported, but not used; says why, how to mend it, and what it would have registered."""

    def __init__(self, message: str, mend: str = "upgrade", registers: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message, self.mend, self.registers = message, mend, registers


def _load(source: PluginSource) -> Plugin | PluginFault:
    try:
        module = source.load()
        _check_contract(module)
        hooks = _register(module, source.name)
        return Plugin(source.name, source.distribution, _declared(hooks), hooks)
    except KeyboardInterrupt:
        raise
    except _Unusable as error:
        return fault(source, error.message, error.mend, registers=error.registers)
    except BaseException as error:
        return fault(source, f"failed to load: {describe_error(error)}", "reinstall")


def _check_contract(module: object) -> None:
    contract = getattr(module, "CONTRACT", None)
    if contract is None:
        raise _Unusable(f"doesn't state its contract (its module needs CONTRACT = {CONTRACT_VERSION})")
    if type(contract) is not int or contract < 1:
        raise _Unusable(
            f"states the contract {contract!r}; it must be a whole number from 1 to {CONTRACT_VERSION}"
        )
    if contract > CONTRACT_VERSION:
        raise _Unusable(
            f"was written for contract {contract}; this core speaks {CONTRACT_VERSION}",
            "python -m pip install --upgrade llmengine-core",
        )


def _register(module: object, name: str) -> pluggy.PluginManager:
    """The plugin's hooks, each of which there is."""
    hooks = pluggy.PluginManager(GROUP)
    hooks.add_hookspecs(hookspecs)
    known = [*DECLARING_HOOKS, "register_commands"]
    try:
        hooks.register(module, name)
    except pluggy.PluginValidationError as error:
        raise _Unusable(f"implements a hook wrongly: {describe_error(error)}") from None
    callers = hooks.get_hookcallers(module) or []
    try:
        hooks.check_pending()
    except pluggy.PluginValidationError:
        unknown = ", ".join(repr(caller.name) for caller in callers if not caller.has_spec())
        raise _Unusable(f"implements the unknown hook {unknown}; there are {', '.join(known)}") from None
    implemented = {caller.name for caller in callers}
    if bare := [hook for hook in known if callable(getattr(module, hook, None)) and hook not in implemented]:
        raise _Unusable(f"doesn't mark {', '.join(bare)} with @hookimpl")
    if not implemented:
        raise _Unusable(f"implements no hook; there are {', '.join(known)}")
    return hooks


def _declared(hooks: pluggy.PluginManager) -> tuple[Info | ModelCard, ...]:
    """What all the hooks declare, once it is sound."""
    declared: list[Info | ModelCard] = []
    wrong: list[str] = []
    for hook, kind in DECLARING_HOOKS.items():
        caller = getattr(hooks.hook, hook)
        if not caller.get_hookimpls():
            continue
        try:
            (given,) = caller() or [None]
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            said = describe_error(error)
            raise _Unusable(f"failed in {hook}: {said}", registers=tuple(_names(declared))) from None
        if not isinstance(given, (list, tuple)):
            wrong.append(
                f"{hook} gives a {type(given).__name__}; it must give a list, if need be an empty one"
            )
            continue
        for each in given:
            found = flaws(each, kind)
            wrong += [f"{hook} declares {getattr(each, 'name', each)!r}: {flaw}" for flaw in found]
            declared.append(each)
    if wrong:
        raise _Unusable(f"is not sound: {'; '.join(wrong)}", registers=tuple(_names(declared)))
    return tuple(declared)


def _names(declared: Iterable[object]) -> Iterable[str]:
    return (
        each.name for each in declared if isinstance(each, (Info, ModelCard)) and isinstance(each.name, str)
    )


def _sort_into(result: Plugin | PluginFault, loaded: list[Plugin], faults: list[PluginFault]) -> None:
    if isinstance(result, Plugin):
        loaded.append(result)
    else:
        faults.append(result)


def _schemes(plugins: Iterable[Plugin]) -> set[str]:
    """The URL schemes that these plugins keep metadata or objects under."""
    infos = [info for plugin in plugins for info in plugin.declared]
    return {scheme for info in infos if isinstance(info, (StorageInfo, StoreInfo)) for scheme in info.schemes}


def _unknown_names(sources: Iterable[PluginSource], setting: str, names: Iterable[str]) -> list[PluginFault]:
    """Names in a setting that no plugin has."""
    known = sorted({source.name for source in sources})
    message = f"is named by {setting}, but isn't installed; installed are {', '.join(known) or 'none'}"
    return [
        PluginFault(name, "", message, f"correct {setting}, or install the distribution that brings it")
        for name in sorted(set(names) - set(known))
    ]


def _name_and_version(distribution: metadata.Distribution) -> str:
    """ "llmengine-trt 0.3"; "" where its metadata can't be read."""
    try:
        found = distribution.metadata  # reads and parses a file each time
        return f"{found['Name']} {found['Version']}"
    except Exception:
        return ""


def _raiser(error: Exception) -> Callable[[], NoReturn]:
    def load() -> NoReturn:
        raise error

    return load
