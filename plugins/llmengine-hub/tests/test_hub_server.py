"""The hub on this machine is one to the hub's own clients: the library, and the program `hf`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import official_client
from tests.servers.hub import Fault, Hub

BIG = os.urandom(12 << 20)


def asked(*questions: tuple[str, dict[str, Any]]) -> list[Any]:
    command = [sys.executable, official_client.__file__]
    done = subprocess.run(
        command, input=json.dumps(questions), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads(done.stdout)
    return answers


def test_its_library_finds_what_is_there_and_what_is_not(server: Hub) -> None:
    server.page = 2
    commit = server.put(
        "org/name", {"config.json": b"{}", "README.md": b"#", "a/b/c.txt": b"c", "model.safetensors": BIG}
    )
    server.put("org/name", {"config.json": b"another"}, revision="refs/pr/1")
    server.put("org/gated", {"config.json": b"gated", "README.md": b"open"}, gated=True)
    server.put("org/private", {"config.json": b"private"}, private=True)
    server.moved["old"] = "org/name"
    server.tokens = {"hf_in": frozenset({"org/gated", "org/private"}), "hf_out": frozenset()}

    def file(repo: str, name: str = "config.json", **given: Any) -> tuple[str, dict[str, Any]]:
        return "file", {"repo_id": repo, "filename": name, **given}

    assert asked(
        ("info", {"repo_id": "org/name"}),
        ("files", {"repo_id": "org/name"}),
        ("snapshot", {"repo_id": "org/name"}),
        ("info", {"repo_id": "old"}),
        file("old"),
        file("org/name", revision="refs/pr/1"),
        file("org/name", revision=commit),
        file("org/name", "absent.json"),
        file("org/name", revision="absent"),
        file("org/absent"),
        file("org/absent", token="hf_in"),
        file("org/gated", "README.md"),
        file("org/gated"),
        file("org/gated", token="hf_out"),
        file("org/gated", token="hf_in"),
        file("org/private"),
        file("org/private", token="hf_out"),
        file("org/private", token="hf_in"),
        ("info", {"repo_id": "org/name", "token": "hf_wrong"}),
    ) == [
        commit,
        [
            ["README.md", 1],
            ["a", None],
            ["a/b", None],
            ["a/b/c.txt", 1],
            ["config.json", 2],
            ["model.safetensors", len(BIG)],
        ],
        ["README.md", "a/b/c.txt", "config.json", "model.safetensors"],
        commit,
        "{}",
        "another",
        "{}",
        "RemoteEntryNotFoundError",
        "RevisionNotFoundError",
        "RepositoryNotFoundError",
        "RepositoryNotFoundError",
        "open",
        "GatedRepoError",
        "GatedRepoError",
        "gated",
        "RepositoryNotFoundError",
        "RepositoryNotFoundError",
        "private",
        "HfHubHTTPError",
    ]
    assert not [each for each in server.asked if each.server == "store" and "authorization" in each.headers]


def test_its_program_downloads_over_a_cut_connection(server: Hub, cache: Path, tmp_path: Path) -> None:
    server.put("org/name", {"model.safetensors": BIG, "other.bin": b"unwanted"})
    server.faults.append(Fault("store GET", cut_after=11 << 20))
    program = Path(sys.executable).with_name("hf")
    command: list[str] = [
        str(program),
        "download",
        "org/name",
        "--include",
        "*.safetensors",
        "--local-dir",
        str(tmp_path / "here"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "here" / "model.safetensors").read_bytes() == BIG
    ranges = [each.headers.get("range") for each in server.asked if each.server == "store"]
    assert ranges == [None, f"bytes={10 << 20}-"]  # the library keeps whole pieces of 10 MiB
    assert not (tmp_path / "here" / "other.bin").exists()
