"""Weights from the hub: looked at, brought into the cache of its library, served in place, and again without it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.program import Program, install
from tests.e2e.small_weights import gguf
from tests.servers.hub import Hub, hub
from tests.servers.hub_files import Content

REPOSITORY = "HuggingFaceTB/SmolLM2-135M-Instruct-GGUF"
SERVED = """
for name, path in zip(sys.argv[1::2], sys.argv[2::2]):
    Model.create(name, MODEL, "latest", inference_framework="llama_cpp", checkpoint_path=path)
    say(ask(model=name).output.text)
"""
REFUSED = """
for path in sys.argv[1:] or [None]:
    try:
        model = MODEL if path else "far-smollm2"
        Model.create("x", model, "latest", inference_framework="llama_cpp", checkpoint_path=path)
    except errors.LLMEngineError as error:
        say(type(error).__name__, str(error))
"""
CARD = """
from llmengine_core.hookspecs import hookimpl
from llmengine_core.types.models import ModelCard, WeightsSource
CONTRACT = 1
@hookimpl
def register_models():
    source = WeightsSource(url="hf://{repository}@{commit}", format="gguf", size={size}, sha256="{sha256}")
    return [ModelCard(name="far-smollm2", sources=(source,), parameters=134_515_008, context_length=8192, license="")]
"""
BY_CARD = """
say(ask(model="far-smollm2").output.text)
Model.create("mine", "far-smollm2", "latest", inference_framework="llama_cpp", source="hugging_face")
say(ask(model="mine").output.text)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    """The small model, gated, among what nobody asked for."""
    with hub() as server:
        files: dict[str, Content] = {
            "README.md": b"# SmolLM2",
            "model-Q4.gguf": gguf(),
            "notes/other.bin": bytes(20_000),
        }
        server.put(REPOSITORY, files, gated=True)
        server.tokens = {"hf_accepted": frozenset({REPOSITORY}), "hf_other": frozenset()}
        yield server


def environment(server: Hub, cache: Path, token: str) -> dict[str, str]:
    return {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(cache),
        "HF_TOKEN": token,
        "LLMENGINE_PRIVATE_HOSTS": "127.0.0.1",
    }


@pytest.mark.engine
def test_m04_a_repository_is_served_in_place_and_again_without_the_hub(
    server: Hub, home: Path, tmp_path: Path
) -> None:
    program = Program(home, environment(server, tmp_path / "cache", "hf_accepted"))
    url = f"hf://{REPOSITORY}"
    assert program.run(SERVED, "whole", url, "file", f"{url}/model-Q4.gguf") == [[" Paris.\n"]] * 2
    size = gguf().stat().st_size
    assert size <= server.sent < 1.1 * size  # once
    assert server.count("other.bin") == 0
    copies = [path for path in tmp_path.rglob("*") if not path.is_symlink() and path.is_file()]
    assert [path.parent.name for path in copies if path.stat().st_size == size] == ["blobs"]

    server.put(
        REPOSITORY, {"README.md": b"moved on"}, gated=True
    )  # models stay at the commit they were made of
    asked = len(server.asked)
    assert program.run('say(ask(model="whole").output.text)') == [[" Paris.\n"]]
    assert len(server.asked) == asked
    away = Program(home, program.more | {"HF_HUB_OFFLINE": "1"})
    commit = next(iter(server.repos[REPOSITORY].commits))
    assert away.run(SERVED, "away", f"{url}@{commit}") == [[" Paris.\n"]]
    assert len(server.asked) == asked


@pytest.mark.engine
def test_m04_a_base_model_known_by_a_card_comes_from_the_hub(server: Hub, home: Path, tmp_path: Path) -> None:
    commit, files = next(iter(server.repos[REPOSITORY].commits.items()))
    weights = files["model-Q4.gguf"]
    card = CARD.format(repository=REPOSITORY, commit=commit, size=weights.size, sha256=weights.sha256)
    install(tmp_path / "site", "far_card", module="far_card", source=card)
    more = environment(server, tmp_path / "cache", "hf_accepted") | {"PYTHONPATH": str(tmp_path / "site")}
    sent = server.sent
    assert Program(home, more).run(BY_CARD) == [[" Paris.\n"]] * 2
    assert server.sent - sent < 1.1 * weights.size
    wrong = card.replace(weights.sha256 or "", "0" * 64)
    (tmp_path / "site" / "far_card.py").write_text(wrong, encoding="utf-8")
    ((_, said),) = Program(tmp_path / "other", more).run(REFUSED)
    assert f"has the SHA-256 {weights.sha256}" in said


@pytest.mark.engine
def test_m04_what_the_hub_refuses_is_told_to_whoever_creates_a_model(
    server: Hub, home: Path, tmp_path: Path
) -> None:
    program = Program(home, environment(server, tmp_path / "cache", "hf_other"))
    commit = next(iter(server.repos[REPOSITORY].commits))
    found = program.run(REFUSED, f"hf://{REPOSITORY}@{commit}", "hf://org/absent", "hf://org/na--me")
    assert "is gated: the account of the token in HF_TOKEN has no access" in found[0][1]
    assert "has no repository 'org/absent'" in found[1][1]
    assert "'org'" not in found[1][1]
    assert "names no repository of the hub" in found[2][1]
    assert not any("hf_other" in text for _, text in found)
