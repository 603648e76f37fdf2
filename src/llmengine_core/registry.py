"""What there is to choose from: declarations by kind and name, each with the plugin that it came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from llmengine_core import builtin
from llmengine_core.errors import ServerError
from llmengine_core.plugins import (
    Plugin,
    PluginSource,
    describe_error,
    fault,
    import_object,
    installed,
    load_plugins,
    remedy,
)
from llmengine_core.types.declarations import (
    BackendInfo,
    Declarations,
    Declared,
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
from llmengine_core.types.sampling import StructuredKind

if TYPE_CHECKING:
    import click

    from llmengine_core.interfaces.storage import Storage
    from llmengine_core.settings import Settings
    from llmengine_core.urls import UrlPolicy

__all__ = ["KINDS", "Registry"]

AnyT = TypeVar("AnyT", bound=Info | ModelCard)
SchemedT = TypeVar("SchemedT", StorageInfo, StoreInfo)

KINDS: Mapping[type, str] = {
    BackendInfo: "backend",
    TransformInfo: "transform",
    QuantizerInfo: "quantizer",
    GuidedDecoderInfo: "guided decoder",
    StorageInfo: "storage",
    StoreInfo: "store",
    RuntimeInfo: "runtime",
    ObserverInfo: "observer",
    ModelCard: "model",
}
"""What each kind of declaration is called."""


class Registry:
    """All sound declarations, and what became of the plugins that gave none. It doesn't change.

    Each mapping is by name, or by URL scheme, in order of preference: priority, then name.
    """

    backends: Mapping[str, BackendInfo]
    transforms: Mapping[str, TransformInfo]
    quantizers: Mapping[str, QuantizerInfo]
    guided_decoders: Mapping[str, GuidedDecoderInfo]
    runtimes: Mapping[str, RuntimeInfo]
    observers: Mapping[str, ObserverInfo]
    models: Mapping[str, ModelCard]
    storages: Mapping[str, StorageInfo]
    stores: Mapping[str, StoreInfo]
    storages_by_scheme: Mapping[str, StorageInfo]
    stores_by_scheme: Mapping[str, StoreInfo]
    plugins: tuple[Plugin, ...]
    """Those that are in use."""
    faults: tuple[PluginFault, ...]
    """Those that failed, each with the reason and a mend."""
    left_out: tuple[PluginFault, ...]
    """Those that the settings leave out."""

    def __init__(
        self,
        plugins: Iterable[Plugin],
        faults: Iterable[PluginFault] = (),
        left_out: Iterable[PluginFault] = (),
    ) -> None:
        """Take plugins in order: of two that register one name of a kind, the first keeps it."""
        self._declared: dict[type, dict[str, Declared[Any]]] = {kind: {} for kind in KINDS}
        self._loaded: dict[Info, Any] = {}
        kept: list[Plugin] = []
        refused: list[PluginFault] = []
        for plugin in plugins:
            if clash := self._clash(plugin):
                names = tuple(info.name for info in plugin.declared)
                refused.append(fault(plugin, clash, "uninstall", registers=names))
                continue
            kept.append(plugin)
            for info in plugin.declared:
                declared = Declared(info, plugin.name, plugin.distribution)
                self._declared[type(info)][info.name] = declared
        self.backends = self._by_name(BackendInfo)
        self.transforms = self._by_name(TransformInfo)
        self.quantizers = self._by_name(QuantizerInfo)
        self.guided_decoders = self._by_name(GuidedDecoderInfo)
        self.runtimes = self._by_name(RuntimeInfo)
        self.observers = self._by_name(ObserverInfo)
        self.models = self._by_name(ModelCard)
        self.storages = self._by_name(StorageInfo)
        self.stores = self._by_name(StoreInfo)
        self.storages_by_scheme = _by_scheme(self.storages)
        self.stores_by_scheme = _by_scheme(self.stores)
        self.plugins, self.faults, self.left_out = tuple(kept), (*faults, *refused), tuple(left_out)

    @classmethod
    def build(
        cls,
        settings: Settings | None = None,
        *,
        modules: Sequence[ModuleType] = (),
        sources: Iterable[PluginSource] | None = None,
    ) -> Registry:
        """A registry of the core's own plugin, of ``modules``, and of the plugins that are installed.

        ``modules`` are plugins that are there already; each has the last part of its module's name, and
        ``settings.plugins`` doesn't exclude them. ``sources`` stands in for what is installed.
        """
        own = load_plugins([PluginSource("core", "", lambda: builtin)])
        given = [PluginSource(each.__name__.rpartition(".")[2], "", _giver(each)) for each in modules]
        found = [*given, *(installed() if sources is None else sources)]
        if settings is None:
            others = load_plugins(found)
        else:
            urls = (settings.effective_database_url, settings.effective_storage_url)
            others = load_plugins(
                found,
                only=settings.plugins,
                always=[source.name for source in given],
                disabled=settings.disabled_plugins,
                schemes=[urlsplit(url).scheme for url in urls],
            )
        return cls([*own.loaded, *others.loaded], [*own.faults, *others.faults], others.left_out)

    @property
    def declarations(self) -> Declarations:
        """What resolution decides by."""
        return Declarations(
            backends=tuple(self._declared[BackendInfo].values()),
            transforms=tuple(self._declared[TransformInfo].values()),
            quantizers=tuple(self._declared[QuantizerInfo].values()),
            guided_decoders=tuple(self._declared[GuidedDecoderInfo].values()),
            faults=self.faults,
            left_out=self.left_out,
        )

    def guided_decoder(self, kind: StructuredKind, dialect: str | None) -> GuidedDecoderInfo | None:
        """The best checker of this kind of constraint that speaks an engine's dialect; None where none does."""
        decoders = self.guided_decoders.values()
        return next((info for info in decoders if kind in info.kinds and dialect in info.dialects), None)

    def load(self, info: Info, *arguments: object, **options: object) -> Any:
        """The object behind a declaration, new: what its factory gives for these arguments.

        Raises ``ServerError`` that names plugin, factory and mend where the factory can't be imported; what
        the factory itself raises goes through.
        """
        try:
            factory = import_object(info.factory)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            origin = self._declared[type(info)].get(info.name) or Declared(info, "core")
            raise ServerError(
                f"the {KINDS[type(info)]} {info.name!r} of the plugin {origin.plugin!r} can't be used: its factory "
                f"{info.factory!r} can't be imported: {describe_error(error)}. "
                f"Mend: {remedy('reinstall', origin.plugin, origin.distribution)}"
            ) from error
        return factory(*arguments, **options)

    def open_storage(self, info: StorageInfo, url: str, policy: UrlPolicy) -> Storage:
        """A storage at a URL; one that goes where URLs lead keeps to the policy. Raises as ``load`` does."""
        options = {"policy": policy} if info.takes_policy else {}
        opened: Storage = self.load(info, url, **options)
        return opened

    def load_once(self, info: Info) -> Any:
        """The object behind a declaration whose factory takes no arguments; the same one every time."""
        if info not in self._loaded:
            self._loaded[info] = self.load(info)
        return self._loaded[info]

    def add_commands(self, cli: click.Group) -> tuple[PluginFault, ...]:
        """Let every plugin add its command to the command line; gives those that failed."""
        faults = [plugin.add_commands(cli) for plugin in self.plugins]
        return tuple(each for each in faults if each is not None)

    def _by_name(self, kind: type[AnyT]) -> Mapping[str, AnyT]:
        infos = [declared.info for declared in self._declared[kind].values()]
        return {info.name: info for info in sorted(infos, key=_preference)}

    def _clash(self, plugin: Plugin) -> str | None:
        """What a plugin registers that is registered already."""
        own: set[tuple[type, str]] = set()
        for info in plugin.declared:
            kind = KINDS[type(info)]
            if first := self._declared[type(info)].get(info.name):
                of = f" ({first.distribution})" if first.distribution else ""
                return f"registers the {kind} {info.name!r}, which the plugin {first.plugin!r}{of} has registered"
            if (type(info), info.name) in own:
                return f"registers the {kind} {info.name!r} twice"
            own.add((type(info), info.name))
        return None


def _giver(module: ModuleType) -> Any:
    return lambda: module


def _preference(info: Info | ModelCard) -> tuple[int, str]:
    return (-info.priority if isinstance(info, Info) else 0, info.name)


def _by_scheme(infos: Mapping[str, SchemedT]) -> Mapping[str, SchemedT]:
    """The best for each URL scheme; ``infos`` are in order of preference."""
    found: dict[str, SchemedT] = {}
    for info in infos.values():
        for scheme in info.schemes:
            found.setdefault(scheme, info)
    return found
