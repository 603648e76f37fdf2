"""The environment means to us what it means to the hub's own library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import official_client
import pytest

from llmengine_core.interfaces.storage import StorageError
from llmengine_hub.environment import HubEnvironment

CASES: list[dict[str, str]] = [
    {},
    {"HF_HOME": "{}/h ome", "HF_TOKEN": " hf_a\n", "HF_ENDPOINT": "http://mirror:8080/hub/"},
    {"XDG_CACHE_HOME": "{}/xdg", "HF_HUB_OFFLINE": "yes", "HUGGING_FACE_HUB_TOKEN": "hf_b"},
    {"HF_HUB_CACHE": "$HOME/cache", "HF_TOKEN_PATH": "~/token here", "HF_HUB_OFFLINE": "0"},
    {"HUGGINGFACE_HUB_CACHE": "{}/old", "TRANSFORMERS_OFFLINE": "1", "HF_TOKEN": "", "HF_HOME": "~/.hf"},
    {"HF_TOKEN": "hf_c", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "true", "HUGGINGFACE_HUB_CACHE": "a", "HF_HUB_CACHE": "b"},
]  # fmt: skip


def test_it_is_read_as_the_library_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library reads it once, when it is imported: a process imports it anew for each case."""
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "user"
    for path in (home / ".cache" / "huggingface" / "token", home / "token here", home / ".hf" / "token"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"hf_of_{path.parent.name}\n", encoding="utf-8")
    given = [
        {name: value.format(tmp_path) for name, value in case.items()} | {"HOME": str(home)} for case in CASES
    ]
    done = subprocess.run(
        [sys.executable, official_client.__file__],
        input=json.dumps([("constants", each) for each in given]),
        capture_output=True,
        text=True,
        check=True,
    )
    for environ, theirs in zip(given, json.loads(done.stdout), strict=True):
        with monkeypatch.context() as patch:
            for name in list(os.environ):
                patch.delenv(name)
            for name, value in environ.items():
                patch.setenv(name, value)
            ours: dict[str, Any] = asdict(HubEnvironment.read())
        assert {name: str(ours[name]) for name in theirs} == {name: str(theirs[name]) for name in theirs}, (
            environ
        )


def test_a_token_is_in_no_repr() -> None:
    found = HubEnvironment.read({"HF_TOKEN": "hf_secret", "HF_HOME": "/nowhere"})
    assert found.token == "hf_secret"
    assert "hf_secret" not in repr(found)
    assert not found.xet
    assert HubEnvironment.read({"HF_HOME": "/nowhere", "HF_HUB_DISABLE_XET": "0"}).xet
    with pytest.raises(StorageError, match="HF_ENDPOINT is 'hub'"):
        HubEnvironment.read({"HF_ENDPOINT": "hub"})
