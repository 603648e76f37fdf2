"""What every plugin promises: to be light, honest, and no trouble to anybody else."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from llmengine_core.testing.conformance.seen import Seen, Step, look
from llmengine_core.testing.contracts.plugins.environments import (
    wrong_pins,
    wrong_requirements,
    wrong_versions,
)
from llmengine_core.testing.laws import Contract, NotApplicable, law

__all__ = ["PluginContract"]

CONTRACT_SPOKEN = 1
HOOKS = frozenset(
    {
        "register_backends", "register_transforms", "register_quantizers", "register_guided_decoders",
        "register_storages", "register_stores", "register_runtimes", "register_models", "register_observers",
        "register_commands",
    }
)  # fmt: skip
ENGINES = frozenset(
    {
        "accelerate", "bitsandbytes", "ctranslate2", "deepspeed", "exllamav2", "exllamav3", "jax", "lightllm",
        "llama_cpp", "lmdeploy", "mii", "mlc_llm", "mlx", "mlx_lm", "onnxruntime", "onnxruntime_genai", "openvino",
        "openvino_genai", "optimum", "peft", "sglang", "tensorflow", "tensorrt", "tensorrt_llm", "tinygrad",
        "torch", "torch_xla", "transformers", "triton", "unsloth", "vllm", "xllamacpp",
    }
)  # fmt: skip
"""What takes seconds and gigabytes to import, and belongs in environments of its own."""
HTTP = frozenset(
    {
        "aiobotocore", "aiohttp", "boto3", "botocore", "grpc", "h11", "h2", "http.client", "httpcore",
        "httptools", "httpx", "obstore", "openai", "pycurl", "requests", "urllib.request", "urllib3",
    }
)  # fmt: skip
TESTS = frozenset({"_pytest", "hypothesis", "pytest"})
QUICK = 0.1
"""Seconds of CPU time that importing a plugin's module, or asking it for its declarations, may take."""
SHARE = 0.5
"""Of what starting an interpreter with the core takes, which it may take as well, where the machine is a slow one."""
TRIES = 3
"""How often what took too long is measured again; the best counts."""


class PluginContract(Contract):
    """Every plugin's contract::

    class TestPlugin(PluginContract):
        plugin = "llmengine_sample"
    """

    kind = "plugin"
    plugin: ClassVar[str]
    """The name of its entry point, of its distribution, or of its module where it isn't installed."""
    urls: ClassVar[Mapping[str, str]] = {}
    """By scheme, URLs that its storages and stores can be made with, where a made-up one won't do."""
    search_path: ClassVar[Sequence[str]] = ()
    """Folders to import it from, before all others."""
    seconds: ClassVar[float] = 10.0
    """That any one thing that it is asked for may take until it counts as hung."""

    _seen: ClassVar[Seen | None] = None

    @classmethod
    def setup_class(cls) -> None:
        super().setup_class()
        cls._seen = None

    @classmethod
    def looked(cls, only: str | None = None) -> Seen:
        """What can be seen of it in a fresh interpreter."""
        with tempfile.TemporaryDirectory(prefix="llmengine-look-") as folder:
            work = look(
                cls.plugin,
                Path(folder),
                only=only,
                first=cls.search_path,
                urls=cls.urls,
                seconds=cls.seconds,
            )
            return cls.portal().run(work, seconds=30 + 50 * cls.seconds, what="the look at the plugin")

    @property
    def seen(self) -> Seen:
        """What was seen of it, once for all laws."""
        if type(self)._seen is None:
            type(self)._seen = self.looked()
        return type(self)._seen  # type: ignore[return-value]

    @property
    def quick(self) -> float:
        """Seconds of CPU time that something quick may take on this machine."""
        own: float = self.seen.one("found").seen["own"]
        return max(QUICK, SHARE * own)

    # -- its module

    @law()
    def test_import_loads_nothing_heavy(self) -> None:
        """Importing its module loads no engine, no HTTP client and no test tools."""
        step = self.seen.one("import")
        engines = {each["declares"]["environment"]["module"] for each in self._with_engines()}
        _refuse_modules(step, ENGINES | HTTP | TESTS | engines)

    @law()
    def test_import_is_quick(self) -> None:
        """Importing its module takes at most 0.1 s of CPU time, beyond what the core has imported by then."""
        best, quick = self.seen.one("import").cpu, self.quick
        for _ in range(TRIES - 1):
            if best > quick:
                best = min(best, self.looked("import").one("import").cpu)
        assert best <= quick, (
            f"importing its module takes {best:.2f} s of CPU time, at the best of {TRIES} times; it may take "
            f"{quick:.2f} s"
        )

    @law()
    def test_import_prints_nothing(self) -> None:
        """Importing its module writes nothing to standard output or standard error."""
        _refuse_printing([self.seen.one("import")])

    @law()
    def test_import_starts_nothing(self) -> None:
        """Importing its module starts no thread and no process, and opens no socket."""
        _refuse_effects([self.seen.one("import")], "thread", "process", "socket")

    @law()
    def test_import_touches_no_files(self) -> None:
        """Importing its module writes no file and reads none but what is installed."""
        _refuse_effects([self.seen.one("import")], "file")

    @law()
    def test_import_leaves_the_process_as_it_was(self) -> None:
        """Importing its module changes nothing that all plugins share: signals, logging, the working directory."""
        _refuse_effects([self.seen.one("import")], "state")

    @law()
    def test_contract_is_one_that_this_core_speaks(self) -> None:
        """Its module states the contract that it was written for: ``CONTRACT = 1``."""
        stated = self.seen.one("hooks").seen["contract"]
        assert type(stated) is int, f"CONTRACT is {stated}; it must be a whole number, {CONTRACT_SPOKEN}"
        assert 1 <= stated <= CONTRACT_SPOKEN, (
            f"it was written for contract {stated}; this core speaks 1 to {CONTRACT_SPOKEN}"
        )

    # -- what it declares

    @law()
    def test_hooks_are_ones_that_there_are(self) -> None:
        """It implements at least one hook; each there is by that name, and is marked with ``@hookimpl``."""
        seen = self.seen.one("hooks").seen
        known = ", ".join(sorted(HOOKS))
        unknown = [each for each in seen["marked"] if each not in HOOKS]
        assert not unknown, f"it implements the hook {unknown[0]}, which there isn't; there are {known}"
        bare = [each for each in seen["bare"] if each in HOOKS]
        assert not bare, f"it doesn't mark {', '.join(bare)} with @hookimpl, so that nobody calls it"
        assert seen["marked"], f"it implements no hook; there are {known}"

    @law()
    def test_declarations_are_sound(self) -> None:
        """Every declaration holds what its fields promise, under a name that users can write."""
        flaws = self.seen.one("declared").seen["flaws"]
        assert not flaws, "\n".join(flaws)

    @law()
    def test_declarations_are_the_same_each_time(self) -> None:
        """Asked twice, its hooks declare the same: they don't look at the machine, the time or the network."""
        differing = self.seen.one("again").seen["differing"]
        assert not differing, f"{', '.join(differing)} gives something else when it is asked again"

    @law()
    def test_hooks_have_no_side_effects(self) -> None:
        """Asked for its declarations, it reads and writes no file, starts nothing and prints nothing."""
        step = self.seen.one("declared")
        _refuse_effects([step], "thread", "process", "socket", "file", "state")
        _refuse_printing([step])

    @law()
    def test_hooks_are_quick_and_import_no_engine(self) -> None:
        """Asked for its declarations, it answers within 0.1 s of CPU time and imports no engine."""
        step = self.seen.one("declared")
        _refuse_modules(step, ENGINES | TESTS)
        assert step.cpu <= self.quick, f"asking what it declares takes {step.cpu:.2f} s of CPU time"

    @law()
    def test_it_loads_beside_all_others(self) -> None:
        """It takes its place in a registry of all that is installed: no name of its own is taken."""
        first = self.seen.one("registry")
        assert not first.seen["faults"], f"it can't be loaded: it {'; '.join(first.seen['faults'])}"
        assert first.seen["loaded"] == 1, f"it was loaded {first.seen['loaded']} times"

    @law()
    def test_it_can_be_loaded_twice(self) -> None:
        """A second registry of the same process holds the same of it."""
        first, *others = self.seen.all("registry")
        assert others, "a second registry was not built"
        for step in others:
            faults = step.done().seen["faults"]
            assert not faults, f"the second registry of a process can't load it: it {'; '.join(faults)}"
            assert step.seen == first.done().seen, (
                f"the second registry of a process holds {step.seen}, the first held {first.seen}"
            )

    # -- what is behind its declarations

    @law()
    def test_factories_can_be_imported_without_engines(self) -> None:
        """Making what it declares, each with what its factory is documented to take, imports no engine."""
        engines = {each["declares"]["environment"]["module"] for each in self._with_engines()}
        steps = [step for step in self.seen.all("factory") if step.error is None]
        for step in steps:
            _refuse_modules(step, ENGINES | TESTS | engines)
        self.seen.whole()

    @law()
    def test_factories_give_what_they_are_for(self) -> None:
        """Each factory can be called as documented, and gives an object of its kind's interface."""
        for step in self.seen.all("factory"):
            seen = step.done().seen
            assert seen["right"], f"{step.words} gives a {seen['gives']}, which is no {seen['wanted']}"
            assert step.wall < self.seconds / 2, f"{step.words} takes {step.wall:.1f} s"
        self.seen.whole()

    @law(level="probe")
    def test_probes_give_problems_at_once(self) -> None:
        """A backend's probe gives this machine's problems as a tuple, quickly, without importing an engine."""
        engines = {each["declares"]["environment"]["module"] for each in self._with_engines()}
        for step in self._applicable("probe"):
            seen = step.done().seen
            wanted = "it must give a tuple of Problem, empty where all is well"
            assert seen["right"], f"{step.words} gives a {seen['type']} of {seen['others']}; {wanted}"
            assert all(seen["problems"]), f"{step.words} gives a problem without a message"
            _refuse_modules(step, ENGINES | TESTS | engines)
            assert step.cpu < 1.0, f"{step.words} takes {step.cpu:.1f} s of CPU time"
            assert step.wall < self.seconds / 2, f"{step.words} takes {step.wall:.1f} s"

    @law(level="environment")
    def test_maskers_are_where_they_are_said_to_be(self) -> None:
        """The masker that it names for an engine's process is a module that is there, and has that name."""
        for step in self._applicable("masker"):
            seen = step.done().seen
            assert seen["there"], (
                f"the masker {seen['path']} of {step.about['name']!r} is nowhere to be imported from"
            )
            assert seen["named"], f"the module of {seen['path']} defines nothing of that name"

    @law(level="environment")
    def test_requirements_can_be_read_and_met(self) -> None:
        """Requirements of its environments are ones (PEP 508), and no two of a build contradict each other."""
        _refuse(self._applicable("environment"), wrong_requirements)

    @law(level="environment")
    def test_environments_install_what_they_are_for(self) -> None:
        """Each build's requirements bring its distribution in its very version; its module is that one's."""
        _refuse(self._applicable("environment"), wrong_versions)

    @law(level="environment")
    def test_pins_are_there_and_hold_what_is_required(self) -> None:
        """A build's pins are a file of the plugin's, and pin all that it requires to versions that it allows."""
        steps = self._applicable("environment")
        if not any(step.seen.get("pins") for step in steps):
            raise NotApplicable("no pins are declared")
        _refuse(steps, wrong_pins)

    # -- how it is installed

    @law(level="distribution")
    def test_distribution_requires_the_core_in_a_range(self) -> None:
        """Its distribution requires llmengine-core, from the version it needs up to the next that may break it."""
        from packaging.requirements import Requirement
        from packaging.utils import canonicalize_name

        about = self._installed()
        found = [Requirement(each) for each in about["requires"]]
        ours = [
            each for each in found if canonicalize_name(each.name) == "llmengine-core" and not each.extras
        ]
        ours = ours or [each for each in found if canonicalize_name(each.name) == "llmengine-core"]
        ours = [each for each in ours if each.marker is None or each.marker.evaluate({"extra": ""})]
        if about["distribution"] == "llmengine-core":
            raise NotApplicable("it is the core's own")
        assert ours, f"{about['distribution']} doesn't require llmengine-core"
        specifiers = ours[0].specifier
        operators = {each.operator for each in specifiers}
        assert "===" not in operators and not any(  # noqa: PT018 - one promise
            each.operator == "==" and not each.version.endswith(".*") for each in specifiers
        ), (
            f"{about['distribution']} requires {ours[0]}: one version alone, so that no two plugins fit together"
        )
        assert operators & {">=", ">", "~=", "=="}, f"{ours[0]} has no lower bound"
        assert operators & {"<", "<=", "~=", "=="}, f"{ours[0]} has no upper bound"
        assert specifiers.contains(about["core"], prereleases=True), (
            f"{about['distribution']} requires {ours[0]}, which the core here, {about['core']}, is not"
        )

    @law(level="distribution")
    def test_entry_point_names_a_module(self) -> None:
        """Its entry point names a module, under a name that users can write in their settings."""
        about = self._installed()
        assert ":" not in about["value"], f"the entry point is {about['value']!r}; it must name a module"
        assert about["entry"].replace("-", "_").isidentifier(), (
            f"the entry point's name is {about['entry']!r}; letters, digits, '_' and '-' can be written in settings"
        )
        assert about["version"] and about["version"] != "None", "its distribution has no version"  # noqa: PT018

    @law(level="command")
    def test_command_is_its_own_and_has_help(self) -> None:
        """It adds one command, under its own name, whose ``--help`` works; adding it is quick and loads no engine."""
        (step,) = self._applicable("commands")
        seen, name = step.done().seen, self.seen.one("found").seen["name"]
        others = sorted(set(seen["helped"]) - {name})
        assert not others, f"it adds the command {others[0]!r}; a plugin's command has its name, {name!r}"
        for command, helped in seen["helped"].items():
            assert helped["exit_code"] == 0, f"llmengine {command} --help fails: {helped['output']}"
        assert seen["cpu"] <= self.quick, f"register_commands takes {seen['cpu']:.2f} s of CPU time"
        _refuse_modules(step, ENGINES | TESTS)

    def _installed(self) -> Mapping[str, Any]:
        about = self.seen.one("found").seen["metadata"]
        if about is None:
            raise NotApplicable("it is a module that no distribution brings")
        found: Mapping[str, Any] = about
        return found

    def _applicable(self, step: str) -> list[Step]:
        """The steps of a kind; a law about none of them doesn't apply."""
        found = self.seen.all(step)
        if not found:
            self.seen.whole()
            raise NotApplicable("it declares nothing of the kind")
        return found

    def _with_engines(self) -> list[Mapping[str, Mapping[str, Mapping[str, str]]]]:
        """What it declares that runs in an environment with an engine."""
        try:
            declared = self.seen.one("declared").seen["declared"]
        except AssertionError:
            return []
        return [
            each
            for each in declared
            if each["kind"] in ("backend", "transform", "quantizer") and each["declares"].get("environment")
        ]


def _refuse(steps: Iterable[Step], judge: Callable[[Mapping[str, Any]], Iterable[str]]) -> None:
    wrong = [f"{step.about['name']}: {each}" for step in steps for each in judge(step.done().seen)]
    assert not wrong, "\n".join(wrong)


def _refuse_modules(step: Step, names: frozenset[str] | set[str]) -> None:
    found = sorted(
        {name for each in step.modules for name in (each, each.partition(".")[0]) if name in names}
    )
    assert not found, f"{step.words} imports {', '.join(found)}"


def _refuse_effects(steps: Iterable[Step], *kinds: str) -> None:
    found = [f"{step.words}: {what}" for step in steps for kind, what in step.effects if kind in kinds]
    assert not found, "\n".join(found)


def _refuse_printing(steps: Iterable[Step]) -> None:
    for step in steps:
        assert not step.printed, f"{step.words} prints {step.printed[:500]!r}"
