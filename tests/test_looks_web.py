"""Checkpoints on web servers are looked at by ranges of their bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from tests.archive_files import compressed, packed
from tests.checkpoint_files import safetensors, small_gguf
from tests.servers.web import Web, web

from llmengine_core.looks import Absent, look, shown
from llmengine_core.registry import Registry
from llmengine_core.types.plan import CheckpointFacts, CheckpointFile
from llmengine_core.urls import UrlPolicy
from llmengine_core.weights import locate

pytestmark = pytest.mark.anyio
HERE = UrlPolicy(("127.0.0.1",), lookup=lambda host: ["127.0.0.1"])
LARGE = {
    "m/model.safetensors": safetensors({"w": (1024, 4096)}),
    "m/config.json": b'{"model_type": "llama"}',
    "m/tokenizer.json": b"{}",
}


@pytest.fixture
async def server() -> AsyncIterator[Web]:
    async with web() as server:
        yield server


async def seen(server: Web, path: str, policy: UrlPolicy = HERE) -> CheckpointFacts:
    return await look(server.url(path), Registry.build(sources=[]), policy)


def given(server: Web) -> int:
    """Bytes of bodies that were asked for, by their ranges."""
    spans = [asked.headers["range"].removeprefix("bytes=").split("-") for asked in server.asked]
    return sum(int(last) + 1 - int(first) for first, last in spans)


async def test_m04_a_file_behind_a_signed_url(server: Web) -> None:
    server.files["/dir/model.gguf"] = small_gguf()
    server.tags["/dir/model.gguf"] = '"one"'
    facts = await seen(server, "/dir/model.gguf?sig=a/b&x=1")
    assert (facts.format, facts.quantization, facts.path) == ("gguf", "q8_0", None)
    assert facts.files == (CheckpointFile(name="model.gguf", size=len(small_gguf()), etag='"one"'),)
    assert locate(facts) == (server.url("/dir"), ("model.gguf?sig=a/b&x=1",), "model.gguf")
    server.files["/dir/model.gguf"] = small_gguf()[:-9]
    server.tags["/dir/model.gguf"] = '"two"'
    broken = await seen(server, "/dir/model.gguf?sig=a/b&x=1")
    assert broken.problem
    assert "truncated" in broken.problem.message
    assert "sig" not in broken.problem.message


async def test_m04_a_scheme_is_one_however_it_is_written(server: Web) -> None:
    server.files["/dir/model.gguf"] = small_gguf()
    written = f"HTTP{server.url('/dir/model.gguf?sig=3cret').removeprefix('http')}"
    facts = await look(written, Registry.build(sources=[]), HERE)
    assert (facts.format, facts.problem) == ("gguf", None)
    assert "3cret" not in shown(written)


async def test_m04_of_an_archive_only_its_headers_are_taken(server: Web) -> None:
    server.files["/model.tar"] = packed(LARGE)
    facts = await seen(server, "/model.tar")
    assert (facts.format, facts.architecture, facts.parameters) == ("safetensors", "llama", 4 << 20)
    assert (facts.archive, [file.name for file in facts.files]) == ("tar", ["model.tar"])
    assert given(server) < 1 << 20 < len(packed(LARGE))


@pytest.mark.parametrize("kind", ["tar.gz", "tar.zst"])
async def test_m04_a_compressed_archive_is_gone_through(server: Web, kind: str) -> None:
    server.files["/model"] = compressed(packed(LARGE), kind)
    facts = await seen(server, "/model")
    assert (facts.format, facts.parameters, facts.archive) == ("safetensors", 4 << 20, kind)


async def test_a_server_without_ranges_is_looked_at_too(server: Web) -> None:
    server.ranges = False
    server.files["/model.tar"] = packed(LARGE | {"m/model.safetensors": safetensors({"w": (64,)})})
    assert (await seen(server, "/model.tar")).parameters == 64


async def test_what_breaks_off_while_it_is_looked_at_goes_on(server: Web) -> None:
    server.files["/model.tar"] = packed(LARGE)
    server.tags["/model.tar"] = '"one"'
    whole = await seen(server, "/model.tar")
    server.tags["/model.tar"] = '"two"'
    server.break_after = [1, 300, 1000, 5000]
    again = await seen(server, "/model.tar")
    assert again == replace(whole, files=(replace(whole.files[0], etag='"two"'),))


async def test_what_is_not_there_or_not_allowed_says_so(server: Web) -> None:
    with pytest.raises(Absent, match="404"):
        await seen(server, "/none?sig=s3cret")
    with pytest.raises(Absent) as caught:
        await seen(server, "/none?sig=s3cret")
    assert "s3cret" not in str(caught.value)
    asked = len(server.asked)
    with pytest.raises(Absent, match="PRIVATE_HOSTS"):
        await seen(server, "/none", UrlPolicy(lookup=lambda host: ["127.0.0.1"]))
    assert len(server.asked) == asked


@pytest.mark.parametrize(
    "written", ["s3://AKID:3cret@bucket/folder", "s3://AKID:3/cret@bucket", "gs://name:3cret@bucket?x=3cret"]
)
def test_a_password_in_a_url_of_another_scheme_is_not_shown(written: str) -> None:
    assert "3cret" not in shown(written)
    assert "/cret" not in shown(written)


@pytest.mark.parametrize(
    "written", ["s3://bucket/a:b@c", "hf://org/name@refs%2Fpr%2F1", "file:///a:b@c", "/a:b@c", "a://b:9000/c"]
)
def test_other_locations_are_shown_as_they_are(written: str) -> None:
    assert shown(written) == written
