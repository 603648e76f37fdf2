"""Plans carried out with weights that lie elsewhere: fetched, unpacked, looked at again, derived, kept."""

from __future__ import annotations

import asyncio
import gzip
import io
import itertools
import tarfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests import motor
from tests.cache.sources import content_of, sha256
from tests.checkpoint_files import small_gguf
from tests.e2e.torch_checkpoints import pickled
from tests.motor import RUNS, put_environment
from tests.test_pickles import pickled_as, zipped

import llmengine_core.testing
from llmengine_core.cache import Layout, take_stock
from llmengine_core.engine import Engine
from llmengine_core.errors import BadRequestError, LLMEngineError, ServerError
from llmengine_core.inspection import inspect
from llmengine_core.interfaces.storage import OnBytes
from llmengine_core.looks import look
from llmengine_core.provisioning import Provisioner
from llmengine_core.registry import Registry
from llmengine_core.resolution import resolve
from llmengine_core.settings import Settings
from llmengine_core.testing import memory
from llmengine_core.testing.checkpoints import hugging_face_folder
from llmengine_core.testing.memory_storage import MemoryStorage
from llmengine_core.types.launch import Deployment
from llmengine_core.types.models import ModelSpec
from llmengine_core.types.plan import CheckpointFacts, Plan
from llmengine_core.types.progress import Progress
from llmengine_core.urls import UrlPolicy

pytestmark = pytest.mark.anyio

ECHO = Path(llmengine_core.testing.__file__).with_name("echo.gguf").read_bytes()
_numbers = itertools.count()


class Bench:
    """A home, what carries out plans in it, and a bucket of its own."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(home=home)
        self.registry = Registry.build(self.settings, modules=[motor, memory], sources=[])
        assert not self.registry.faults
        self.news: list[Progress] = []
        self.provisioner = Provisioner(self.settings, self.registry, on_progress=self.news.append)
        self.bucket = f"memory://prepared{next(_numbers)}"
        self.layout = Layout(home)

    async def put(self, files: Mapping[str, bytes]) -> None:
        """Objects, each under the URL of its folder."""
        for name, content in files.items():
            folder, _, key = f"{self.bucket}/{name}".rpartition("/")
            await MemoryStorage(folder).put(key, content)

    def spec(self, name: str, framework: str = "settled") -> ModelSpec:
        url = name if "/" in name and not name.startswith("s/") else f"{self.bucket}/{name}"
        return ModelSpec(name="mine", model="other", inference_framework=framework, checkpoint_path=url)

    async def plan(self, spec: ModelSpec) -> Plan:
        facts = await inspect(spec, None, self.registry, self.settings)
        return resolve(spec, self.registry.declarations, facts)

    async def prepare(self, spec: ModelSpec, plan: Plan | None = None) -> Deployment:
        return await self.provisioner.prepare(spec, plan or await self.plan(spec))

    async def kinds(self) -> Sequence[str]:
        stock = await asyncio.to_thread(take_stock, self.layout)
        return sorted(item.kind for item in stock.items)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    RUNS.clear()
    found = Bench(tmp_path)
    yield found
    found.provisioner.close()
    RUNS.clear()


def tar(files: Mapping[str, bytes], kind: str = "") -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(written.getvalue()) if kind == "gz" else written.getvalue()


# -- fetched -----------------------------------------------------------------------------------------------------


async def test_m04_a_file_elsewhere_is_fetched_once_for_all_engines(bench: Bench) -> None:
    await bench.put({"weights.gguf": ECHO})
    spec = bench.spec("weights.gguf")
    plan = await bench.plan(spec)
    first = await bench.prepare(spec, plan)
    assert await asyncio.to_thread(Path(first.weights).read_bytes) == ECHO
    assert (Path(first.weights).name, first.subject) == ("weights.gguf", "weights.gguf")
    assert first.weights_digest == sha256(ECHO), "of what nobody vouched for, the content counts"
    assert {news.phase for news in bench.news} == {"fetch"}
    await MemoryStorage(bench.bucket).delete("weights.gguf")
    other = Provisioner(bench.settings, bench.registry)
    assert await other.prepare(spec, plan) == first, "what is here needs no storage"
    other.close()


async def test_m04_a_folder_elsewhere_is_fetched_without_what_no_engine_needs(
    bench: Bench, tmp_path: Path
) -> None:
    put_environment(tmp_path, "motor-2.0")
    folder = await asyncio.to_thread(hugging_face_folder, tmp_path / "source")
    files = await asyncio.to_thread(content_of, folder)
    await bench.put({f"folder/{name}": content for name, content in files.items()})
    await bench.put({"folder/README.md": b"# Read me"})
    spec = bench.spec("folder")
    facts = await inspect(spec, None, bench.registry, bench.settings)
    plan = resolve(spec, bench.registry.declarations, facts)
    served = replace(plan.candidates[0], name="settled", transforms=(), environment=None)
    plan = replace(plan, checkpoint=facts.checkpoint, candidates=(served,), chosen="settled")
    deployment = await bench.prepare(spec, plan)
    assert await asyncio.to_thread(content_of, Path(deployment.weights)) == files


async def test_what_is_derived_of_fetched_weights_is_kept_beside_them(bench: Bench, tmp_path: Path) -> None:
    put_environment(tmp_path, "motor-2.0")
    await bench.put({"weights.gguf": ECHO})
    spec = bench.spec("weights.gguf", "motor")
    first = await bench.prepare(spec)
    assert (Path(first.weights) / "content").read_bytes() == b"polishunpack" + ECHO
    assert await bench.kinds() == ["derived", "derived", "fetched"]
    other = await asyncio.to_thread(Bench, tmp_path)
    await MemoryStorage(other.bucket).put("same.gguf", ECHO)
    again = await other.prepare(other.spec("same.gguf", "motor"))
    assert again.weights == first.weights, "the same content is derived once, wherever it came from"
    assert len(RUNS) == 2
    other.provisioner.close()


async def test_derived_weights_that_are_damaged_are_made_again(bench: Bench, tmp_path: Path) -> None:
    put_environment(tmp_path, "motor-2.0")
    await bench.put({"weights.gguf": ECHO})
    spec = bench.spec("weights.gguf", "motor")
    first = await bench.prepare(spec)
    content = Path(first.weights) / "content"
    before = content.read_bytes()
    content.write_bytes(before[::-1])
    RUNS.clear()
    assert await bench.prepare(spec) == first
    assert [name for name, _ in RUNS] == ["polish"]
    assert content.read_bytes() == before


async def test_a_storage_that_fails_is_an_error_of_ours(bench: Bench) -> None:
    await bench.put({"weights.gguf": ECHO})
    spec = bench.spec("weights.gguf")
    plan = await bench.plan(spec)
    await MemoryStorage(bench.bucket).delete("weights.gguf")
    with pytest.raises(
        ServerError, match=r"the weights of 'mine' could not be fetched from memory://.*no object"
    ):
        await bench.prepare(spec, plan)
    gone = replace(plan, checkpoint=replace(plan.checkpoint, url="nowhere://host/weights.gguf"))
    with pytest.raises(ServerError, match=r"no plugin that was loaded reads nowhere://host"):
        await bench.prepare(spec, gone)


# -- at a card's word --------------------------------------------------------------------------------------------


async def test_weights_at_a_cards_word_are_looked_at_before_they_are_fetched(bench: Bench) -> None:
    await bench.put({"weights.gguf": ECHO})
    spec = bench.spec("weights.gguf")
    plan = await bench.plan(spec)
    said = CheckpointFacts(url=plan.checkpoint.url, format="gguf", quantization="q4_1")
    deployment = await bench.prepare(spec, replace(plan, checkpoint=said))
    assert deployment.weights_digest == sha256(ECHO)
    assert deployment.quantization == plan.checkpoint.quantization, "what is there counts"
    await MemoryStorage(bench.bucket).delete("weights.gguf")
    assert await bench.prepare(spec, replace(plan, checkpoint=said)) == deployment
    wrong = replace(said, url=f"{bench.bucket}/missing.gguf")
    with pytest.raises(ServerError, match="the weights of 'mine' can't be used"):
        await bench.prepare(spec, replace(plan, checkpoint=wrong))


async def test_what_a_card_vouched_for_is_what_is_fetched(bench: Bench) -> None:
    await bench.put({"weights.gguf": ECHO})
    spec = bench.spec("weights.gguf")
    plan = await bench.plan(spec)
    said = CheckpointFacts(url=plan.checkpoint.url, format="gguf", sha256="0" * 64)
    with pytest.raises(BadRequestError, match="is not what it should be"):
        await bench.prepare(spec, replace(plan, checkpoint=said))
    assert await bench.kinds() == []


# -- archives ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["", "gz"])
@pytest.mark.parametrize("here", [True, False])
async def test_m04_archives_are_unpacked_once_and_only_what_is_inside_is_kept(
    bench: Bench, tmp_path: Path, kind: str, here: bool
) -> None:
    packed = tar({"model/weights.gguf": ECHO}, kind)
    name = f"packed.tar.{kind}".rstrip(".")
    (tmp_path / name).write_bytes(packed)
    await bench.put({name: packed})
    spec = bench.spec(str(tmp_path / name) if here else name)
    first = await bench.prepare(spec)
    assert Path(first.weights).name == "weights.gguf"
    assert await asyncio.to_thread(Path(first.weights).read_bytes) == ECHO
    assert await bench.kinds() == ["unpacked"]
    assert not bench.layout.blobs.exists() or not list(bench.layout.blobs.iterdir())
    bench.news.clear()
    assert await bench.prepare(spec) == first
    assert not bench.news


async def test_what_an_archive_turns_out_to_hold_decides(bench: Bench, tmp_path: Path) -> None:
    """Others than the plan says: the plan is made anew for its backend, or its error says why it can't be."""
    put_environment(tmp_path, "motor-2.0")
    await bench.put({"packed.tar": tar({"weights.gguf": ECHO})})
    spec = bench.spec("packed.tar", "motor")
    plan = await bench.plan(spec)
    choice = plan.choice
    assert choice
    blind = replace(plan.checkpoint, format=None, architecture=None)
    unseen = replace(plan, checkpoint=blind, candidates=(replace(choice, transforms=()),))
    deployment = await bench.prepare(spec, unseen)
    assert (Path(deployment.weights) / "content").read_bytes() == b"polishunpack" + ECHO
    await bench.put({"strange.tar": tar({"weights.gguf": small_gguf()})})
    strange = replace(unseen, checkpoint=replace(blind, url=f"{bench.bucket}/strange.tar"))
    seen = await inspect(bench.spec("strange.tar"), None, bench.registry, bench.settings)
    strange = replace(
        strange, checkpoint=replace(blind, url=seen.checkpoint.url, files=seen.checkpoint.files)
    )
    with pytest.raises(LLMEngineError, match="llama"):
        await bench.prepare(spec, strange)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter_model.bin"])
async def test_m04_fetched_pytorch_files_are_told_from_programs(
    bench: Bench, tmp_path: Path, name: str
) -> None:
    canary = tmp_path / "canary"
    settings = {"config.json": b'{"model_type": "llama"}'}
    if name.startswith("adapter"):
        settings = {"adapter_config.json": b"{}"}
    spec = bench.spec("sound.gguf")
    await bench.put({"sound.gguf": ECHO})
    plan = await bench.plan(spec)

    async def weights(folder: str, content: bytes) -> str:
        files = {name: content, **settings}
        await bench.put({f"{folder}/{each}": written for each, written in files.items()})
        facts = await look(f"{bench.bucket}/{folder}", bench.registry, UrlPolicy())
        assert (facts.path, facts.problem) == (None, None), "of the first bytes nothing can be told"
        if facts.format == "adapter":
            adapter = await bench.provisioner.adapter(spec, replace(plan, adapter=facts))
            return adapter.path if adapter else ""
        return (await bench.prepare(spec, replace(plan, checkpoint=facts))).weights

    with pytest.raises(
        BadRequestError, match=rf"{name} holds more than weights: .*os\.mkdir.*as safetensors"
    ):
        await weights("program", pickled(canary))
    assert not canary.exists()
    sound = zipped(pickled_as(OrderedDict(), 2))
    kept = Path(await weights("sound", sound), name)
    assert await asyncio.to_thread(kept.read_bytes) == sound


async def test_an_archive_that_is_damaged_leaves_nothing(bench: Bench) -> None:
    await bench.put({"packed.tar": tar({"weights.gguf": ECHO})})
    spec = bench.spec("packed.tar")
    plan = await bench.plan(spec)
    cut = tar({"weights.gguf": ECHO})[:1000]
    await bench.put({"cut.tar": cut})
    meta = await MemoryStorage(bench.bucket).head("cut.tar")
    (file,) = plan.checkpoint.files
    files = (replace(file, name="cut.tar", size=len(cut), etag=meta.etag),)
    checkpoint = replace(plan.checkpoint, url=f"{bench.bucket}/cut.tar", files=files)
    with pytest.raises(BadRequestError, match=r"the weights of 'mine' can't be unpacked from .*truncated"):
        await bench.prepare(spec, replace(plan, checkpoint=checkpoint))
    assert not list(bench.layout.making.iterdir())
    assert "unpacked" not in await bench.kinds()


# -- brought -----------------------------------------------------------------------------------------------------


class Bringing(MemoryStorage):
    """A storage with means of its own."""

    folder: Path
    brought: int = 0

    async def bring(self, keys: Sequence[str], *, on_progress: OnBytes) -> Path | None:
        type(self).brought += 1
        for key in keys:
            content = b"".join([piece async for piece in self.get(key)])
            await asyncio.to_thread((self.folder / key).write_bytes, content)
        on_progress(1, 1)
        return self.folder


async def test_what_a_storage_brings_by_itself_is_used_in_place(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.registry, "open_storage", lambda _, url, __: Bringing(url))
    Bringing.folder = tmp_path
    await bench.put({"weights.gguf": ECHO})
    spec = bench.spec("weights.gguf")
    plan = await bench.plan(spec)
    deployment = await bench.prepare(spec, plan)
    assert deployment.weights == str(tmp_path / "weights.gguf")
    assert not bench.layout.root.exists(), "nothing is copied"
    assert await bench.prepare(spec, plan) == deployment
    await bench.put({"weights.gguf": ECHO + b"!"})
    with pytest.raises(BadRequestError, match="was changed since it was looked at"):
        await bench.prepare(spec, plan)


# -- kept --------------------------------------------------------------------------------------------------------


async def test_an_engine_keeps_what_it_prepared_for_as_long_as_it_is_open(tmp_path: Path) -> None:
    await MemoryStorage("memory://kept").put("weights.gguf", ECHO)
    layout = Layout(tmp_path)

    async def used() -> list[bool]:
        stock = await asyncio.to_thread(take_stock, layout)
        return [item.in_use for item in stock.items]

    settings = await asyncio.to_thread(lambda: Settings(home=tmp_path))
    async with Engine(settings, plugins=[motor, memory]) as engine:
        spec = ModelSpec(
            name="mine",
            model="other",
            inference_framework="settled",
            checkpoint_path="memory://kept/weights.gguf",
        )
        facts = await inspect(spec, None, engine.registry, engine.settings)
        plan = resolve(spec, engine.registry.declarations, facts)
        await engine._serving._provisioner.prepare(spec, plan)
        assert await used() == [True]
    assert await used() == [False]
