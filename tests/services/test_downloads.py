"""URLs of a model's files (M12)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from urllib.request import urlopen

import pytest
from tests.services import choir
from tests.services.choir import adapter
from tests.services.test_models import ECHO_WEIGHTS, spec

from llmengine_core.engine import Engine
from llmengine_core.errors import BadRequestError, NotFoundError, ServerError, UnsupportedFeatureError
from llmengine_core.hookspecs import hookimpl
from llmengine_core.interfaces.storage import Storage
from llmengine_core.services.downloads import download_urls
from llmengine_core.settings import Settings
from llmengine_core.testing import echo, memory
from llmengine_core.testing.memory_storage import MemoryStorage
from llmengine_core.types.declarations import StorageInfo

_numbers = itertools.count()
signing = ModuleType("signing")
"""A plugin whose storage has URLs that say what was asked for."""
signing.CONTRACT = 1  # type: ignore[attr-defined]


@hookimpl
def register_storages() -> list[StorageInfo]:
    factory = f"{__name__}:SigningStorage"
    return [StorageInfo(name="signing", schemes=frozenset({"signing"}), factory=factory)]


signing.register_storages = register_storages  # type: ignore[attr-defined]


class SigningStorage(MemoryStorage):
    async def presign(self, key: str, *, expires: float, method: str = "GET") -> str:
        await self.head(key)
        return f"https://store.example/{key}?{expires=:g}&{method=!s}"


@pytest.fixture
async def engine(settings: Settings) -> AsyncIterator[Engine]:
    async with Engine(settings, plugins=[echo, choir, memory, signing]) as engine:
        yield engine


def contents(urls: dict[str, str]) -> dict[str, bytes]:
    """What lies behind the URLs."""
    found = {}
    for name, url in urls.items():
        with urlopen(url) as answer:
            found[name] = answer.read()
    return found


@pytest.mark.parametrize("form", [str, Path.as_uri])
async def test_m12_files_of_this_machine_have_file_urls(engine: Engine, tmp_path: Path, form: object) -> None:
    folder = tmp_path / "my weights #1 ü"
    (folder / "more").mkdir(parents=True)
    (folder / "model.gguf").symlink_to(ECHO_WEIGHTS)
    (folder / "more" / "notes.txt").write_text("100 %")
    assert callable(form)
    await engine.models.create(spec(checkpoint_path=form(folder)))
    urls = await engine.models.download("mine")
    assert list(urls) == ["model.gguf", "more/notes.txt"]
    assert all(url.startswith("file:///") for url in urls.values())
    found = await asyncio.to_thread(contents, urls)
    assert found == {"model.gguf": ECHO_WEIGHTS.read_bytes(), "more/notes.txt": b"100 %"}
    await engine.models.create(spec("one", checkpoint_path=form(folder / "model.gguf")))
    assert list(await engine.models.download("one")) == ["model.gguf"]


async def test_m12_an_adapters_files_are_its_own(engine: Engine, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "high", "soprano")
    await engine.models.create(spec(model="choir", checkpoint_path=str(folder)))
    assert set(await engine.models.download("mine")) == {path.name for path in folder.iterdir()}


async def test_m12_files_in_a_storage_have_urls_that_are_good_for_an_hour(engine: Engine) -> None:
    url = f"signing://bucket-{next(_numbers)}"
    storage = SigningStorage(f"{url}/tuned")
    await storage.put("model.gguf", ECHO_WEIGHTS.read_bytes())
    await storage.put("more/notes.txt", b"x")
    await engine.models.create(spec(checkpoint_path=f"{url}/tuned"))
    assert await engine.models.download("mine") == {
        name: f"https://store.example/{name}?expires=3600&method=GET"
        for name in ("model.gguf", "more/notes.txt")
    }
    await engine.models.create(spec("one", checkpoint_path=f"{url}/tuned/model.gguf"))
    assert list(await engine.models.download("one")) == ["model.gguf"]


async def test_m12_a_storage_without_urls_says_so(engine: Engine) -> None:
    url = f"memory://bucket-{next(_numbers)}"
    await MemoryStorage(url).put("model.gguf", ECHO_WEIGHTS.read_bytes())
    await engine.models.create(spec(checkpoint_path=f"{url}/model.gguf"))
    with pytest.raises(UnsupportedFeatureError, match="memory have no URLs"):
        await engine.models.download("mine")


def no_storage(url: str) -> Storage:
    raise AssertionError(url)


@pytest.mark.parametrize(
    ("location", "name"),
    [
        ("https://weights.example/a%20b.tar.gz?token=1", "a b.tar.gz"),
        ("https://weights.example/", "checkpoint"),
        ("http://weights.example/models/x.gguf", "x.gguf"),
    ],
)
async def test_m12_what_lies_on_the_web_has_the_url_it_has(location: str, name: str) -> None:
    assert await download_urls(location, None, no_storage) == {name: location}


async def test_m12_only_models_with_weights_of_their_own_have_files(engine: Engine) -> None:
    await engine.models.create(spec())
    with pytest.raises(BadRequestError, match="base model 'echo'"):
        await engine.models.download("mine")
    with pytest.raises(BadRequestError, match="'echo' is a base model, which has no files of its own"):
        await engine.models.download("echo")
    with pytest.raises(NotFoundError, match="'theirs'"):
        await engine.models.download("theirs")
    with pytest.raises(BadRequestError, match="hugging_face"):
        await engine.models.download("theirs", download_format="onnx")


async def test_m12_files_are_had_by_the_models_owner_only(engine: Engine) -> None:
    path = str(ECHO_WEIGHTS)
    await engine.models.create(spec("public", checkpoint_path=path), caller="me")
    await engine.models.create(spec("private", checkpoint_path=path, public_inference=False), caller="me")
    with pytest.raises(BadRequestError, match="only its owner may have its files"):
        await engine.models.download("public", caller="you")
    with pytest.raises(NotFoundError):
        await engine.models.download("private", caller="you")
    for name in ("public", "private"):
        assert list(await engine.models.download(name, caller="me")) == ["echo.gguf"]


async def test_m12_weights_that_are_gone_are_named(engine: Engine, tmp_path: Path) -> None:
    weights = tmp_path / "model.gguf"
    weights.write_bytes(ECHO_WEIGHTS.read_bytes())
    url = f"signing://bucket-{next(_numbers)}/model.gguf"
    storage = SigningStorage(url.rpartition("/")[0])
    await storage.put("model.gguf", ECHO_WEIGHTS.read_bytes())
    await engine.models.create(spec("here", checkpoint_path=str(weights)))
    await engine.models.create(spec("there", checkpoint_path=url))
    weights.unlink()
    await storage.delete("model.gguf")
    for name in ("here", "there"):
        with pytest.raises(ServerError, match=r"model\.gguf any more"):
            await engine.models.download(name)


async def uploaded(content: bytes) -> AsyncIterator[bytes]:
    yield content


@pytest.mark.parametrize("storage", ["here", "signing://files/objects"])
async def test_m09_files_of_other_callers_are_nobodys_weights(
    settings: Settings, tmp_path: Path, storage: str
) -> None:
    """Neither is a model served from the folder of all uploads, nor are they given with what lies around them."""
    root = (tmp_path / "all").as_uri() if storage == "here" else storage
    weights = await asyncio.to_thread(ECHO_WEIGHTS.read_bytes)
    async with Engine(
        settings.model_copy(update={"storage_url": f"{root}/own"}), plugins=[echo, memory, signing]
    ) as engine:
        await engine.files.upload(uploaded(b"rows"), filename="rows.csv", caller="bob")
        mine = await engine.files.upload(uploaded(weights), filename="echo.gguf", caller="eve")
        inside = [f"{root}/own/files", f"{root}/own/%66iles/", f"{root}/own/files/{mine.id}"]
        if storage == "here":
            (tmp_path / "elsewhere").symlink_to(tmp_path / "all" / "own" / "files")
            inside += [str(tmp_path / "all/own/files"), str(tmp_path / "elsewhere")]
        for url in inside:
            with pytest.raises(
                BadRequestError, match=r"checkpoint_path=.* is where the files of all callers lie"
            ):
                await engine.models.create(spec(checkpoint_path=url), caller="eve")
        beside = f"{root}/own/weights"
        await SigningStorage(beside).put("echo.gguf", weights)
        if storage == "here":
            beside = str(ECHO_WEIGHTS)
        await engine.models.create(spec(checkpoint_path=beside), caller="eve")
        assert await engine.models.download("mine", caller="eve")
        with pytest.raises(BadRequestError, match="is where the files of all callers lie"):
            await engine.models.update("mine", {"checkpoint_path": inside[0]}, caller="eve")


async def test_m09_what_lies_around_other_callers_files_is_not_given(
    settings: Settings, tmp_path: Path
) -> None:
    around = tmp_path / "all"
    around.mkdir()
    (around / "echo.gguf").symlink_to(ECHO_WEIGHTS)
    own = settings.model_copy(update={"storage_url": (around / "own").as_uri()})
    async with Engine(own, plugins=[echo]) as engine:
        await engine.files.upload(uploaded(b"rows"), filename="rows.csv", caller="bob")
        await engine.models.create(spec(checkpoint_path=str(around)), caller="eve")
        with pytest.raises(BadRequestError, match="beside the files of all callers"):
            await engine.models.download("mine", caller="eve")
