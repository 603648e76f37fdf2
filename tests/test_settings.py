"""How an engine is set up."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmengine_core.errors import BadRequestError
from llmengine_core.settings import load_settings


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMENGINE_HOME", str(tmp_path / "home"))


def test_arguments_go_before_the_environment_and_that_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "llmengine.toml").write_text("idle_seconds = 1\nstart_seconds = 1\nqueue_size = 1\n")
    monkeypatch.setenv("LLMENGINE_START_SECONDS", "2")
    monkeypatch.setenv("LLMENGINE_QUEUE_SIZE", "2")
    settings = load_settings(queue_size=3)
    assert (settings.idle_seconds, settings.start_seconds, settings.queue_size) == (1, 2, 3)


def test_lists_are_names_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMENGINE_PLUGINS", " one, two,")
    assert load_settings().plugins == ("one", "two")


@pytest.mark.parametrize(("text", "size"), [("50Gi", 50 << 30), ("1.5GiB", 3 << 29), ("5G", 5 * 10**9)])
def test_sizes_are_written_as_everywhere(monkeypatch: pytest.MonkeyPatch, text: str, size: int) -> None:
    monkeypatch.setenv("LLMENGINE_WEIGHTS_SIZE", text)
    assert load_settings().weights_size == size


def test_an_empty_home_is_the_default_and_an_empty_list_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMENGINE_HOME", "")
    monkeypatch.setenv("LLMENGINE_PLUGINS", "")
    settings = load_settings()
    assert settings.home.is_absolute()
    assert settings.plugins == ()


def test_what_is_wrong_is_named_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMENGINE_IDLE_SECONDS", "s3cret")
    with pytest.raises(BadRequestError, match="idle_seconds") as caught:
        load_settings()
    assert "s3cret" not in str(caught.value)


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "llmengine.toml").write_text("idle_seconds = = 1")
    with pytest.raises(BadRequestError, match=r"llmengine\.toml.*is no TOML"):
        load_settings()
