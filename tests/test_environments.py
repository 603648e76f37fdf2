"""Environments are found by what lies in the folder, and nothing that lies there is an error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmengine_core.environments import MANIFEST, environments_folder, find, listed, look_at, read_pins
from llmengine_core.types.declarations import EnvironmentBuild, EnvironmentSpec

NEVER = "oil; sys_platform == 'never'"
SOUND: Mapping[str, Any] = {
    "engine": "motor",
    "version": "2.0",
    "accelerator": "cpu",
    "digest": "0" * 64,
    "python_version": "3.11.7",
    "distributions": ["my-motor"],
    "modules": ["motor"],
    "requirements": ["my-motor==2.0"],
    "packages": {"my-motor": "2.0", "gears": "1.5"},
}


def put(home: Path, name: str, **changes: object) -> Path:
    """An environment as if it had been built."""
    folder = environments_folder(home) / name
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    (folder / MANIFEST).write_text(json.dumps({**SOUND, **changes}))
    return folder


def spec(
    distribution: str, *builds: EnvironmentBuild, module: str = "a_module_that_is_nowhere"
) -> EnvironmentSpec:
    return EnvironmentSpec(distribution=distribution, module=module, builds=builds)


def build(version: str, *requirements: str) -> EnvironmentBuild:
    return EnvironmentBuild(version=version, requirements=requirements)


def names(home: Path, wanted: EnvironmentSpec) -> list[str]:
    return [each.name for each in find(home, [wanted])[wanted]]


def test_there_is_nothing_where_nothing_was_built(tmp_path: Path) -> None:
    assert listed(tmp_path / "home") == ()
    assert names(tmp_path / "home", spec("my-motor")) == []


def test_the_newest_version_comes_first_by_number_and_not_by_letter(tmp_path: Path) -> None:
    for version in ("2.9", "2.10", "2.10rc1", "1.0", "odd"):
        put(tmp_path, f"motor-{version}", version=version, packages={"my-motor": version})
    ordered = ["motor-2.10", "motor-2.10rc1", "motor-2.9", "motor-1.0", "motor-odd"]
    assert names(tmp_path, spec("my_Motor")) == ordered
    assert [each.folder.name for each in listed(tmp_path)] == ordered


def test_of_one_version_what_was_built_last_comes_first(tmp_path: Path) -> None:
    for at, name in enumerate(["b", "c", "a"]):
        os.utime(put(tmp_path, name) / MANIFEST, ns=(at, 10**18 + at))
    assert names(tmp_path, spec("my-motor")) == ["a", "c", "b"]
    os.utime(environments_folder(tmp_path) / "b" / MANIFEST, ns=(0, 2 * 10**18))
    assert [each.folder.name for each in listed(tmp_path)] == ["b", "a", "c"]


def test_the_facts_of_a_built_one(tmp_path: Path) -> None:
    folder = put(tmp_path, "motor-2.0")
    gears, oil = spec("Gears"), spec("oil")
    (facts,) = find(tmp_path, [spec("my.motor"), gears, oil])[spec("my.motor")]
    assert facts.python == str(folder / "bin" / "python")
    assert (facts.version, facts.name, facts.accelerators) == ("2.0", "motor-2.0", frozenset({"cpu"}))
    assert facts.holds == {"my.motor": "2.0", "Gears": "1.5"}


def test_the_current_environment_comes_first_where_the_module_is_in_it(tmp_path: Path) -> None:
    pytest_version = metadata.version("pytest")
    put(tmp_path, "newer", distributions=["pytest"], packages={"pytest": "9999.0"})
    here = spec("pytest", module="pytest.not_looked_into")
    first, second = find(tmp_path, [here])[here]
    assert (first.python, first.version, first.name) == (sys.executable, pytest_version, "")
    assert (first.accelerators, first.holds) == (None, {"pytest": pytest_version})
    assert (second.name, second.version) == ("newer", "9999.0")


@pytest.mark.parametrize(
    ("requirements", "builds", "counts"),
    [
        (("pytest>=1", "a-torch[x]>=2"), (), False),
        (("pytest>=1", "Pluggy >=1", NEVER), (), True),
        (("pytest>=1", "pluggy>=99"), (), True),  # it can be nowhere else
        (("pytest>=1", "pluggy>=1"), (build("1"),), True),
        (("pytest>=1", "pluggy>=99"), (build("1"),), False),
        (("pytest>=9999",), (build("1"),), False),
    ],
)
def test_the_current_environment_counts_only_with_all_that_the_engine_asks_for(
    requirements: tuple[str, ...], builds: tuple[EnvironmentBuild, ...], counts: bool
) -> None:
    wanted = EnvironmentSpec(distribution="pytest", module="pytest", requirements=requirements, builds=builds)
    assert bool(find(Path("/nowhere"), [wanted])[wanted]) is counts


def test_one_built_for_something_else_counts_where_all_of_a_build_is_in_it(tmp_path: Path) -> None:
    put(tmp_path, "motor-2.0")
    right = build("1.5", "gears>=1", "my_motor<3")
    for builds, counts in (
        ((right,), True),
        ((build("1.4"), right), True),
        ((build("1.4"),), False),
        ((build("1.5", "gears>=2"),), False),
        ((build("1.5", "oil"),), False),
        ((build("1.5", NEVER),), True),
        ((EnvironmentBuild(version="1.5", requirements=(), accelerators=frozenset({"cuda"})),), False),
        ((), False),
    ):
        assert bool(names(tmp_path, spec("gears", *builds))) is counts


def test_what_is_broken_is_listed_with_the_reason_and_never_found(tmp_path: Path) -> None:
    folder = environments_folder(tmp_path)
    sound = put(tmp_path, "sound")
    (put(tmp_path, "unfinished") / MANIFEST).unlink()
    (put(tmp_path, "no-python") / "bin" / "python").unlink()
    (put(tmp_path, "damaged") / MANIFEST).write_text('{"engine": "mot')
    (put(tmp_path, "binary") / MANIFEST).write_bytes(b"\xff\x00")
    (put(tmp_path, "a-list") / MANIFEST).write_text("[]")
    (put(tmp_path, "deep") / MANIFEST).write_text("[" * 100_000)
    put(tmp_path, "wrong-type", packages={"my-motor": 2})
    (put(tmp_path, "a-folder") / MANIFEST).unlink()
    (folder / "a-folder" / MANIFEST).mkdir()
    (put(tmp_path, ".being-built") / MANIFEST).unlink()
    (folder / "a-file").write_text("")
    (folder / "a-link").symlink_to("nowhere")
    reasons = {each.folder.name: each.problem for each in listed(tmp_path)}
    assert reasons.pop("sound") is None
    assert "never finished" in str(reasons.pop("unfinished"))
    assert str(folder / "no-python" / "bin" / "python") in str(reasons.pop("no-python"))
    assert "can't be read" in str(reasons.pop("a-folder"))
    assert set(reasons) == {"damaged", "binary", "a-list", "deep", "wrong-type"}
    assert all("is damaged" in str(reason) for reason in reasons.values())
    assert names(tmp_path, spec("my-motor")) == [sound.name]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(field=st.sampled_from(sorted(SOUND)), value=ANYTHING)
def test_whatever_stands_in_a_manifest_it_is_read_or_damaged(
    tmp_path_factory: pytest.TempPathFactory, field: str, value: object
) -> None:
    home = tmp_path_factory.mktemp("home")
    folder = put(home, "any", **{field: value})
    found = look_at(folder)
    assert (found.manifest is None) is (found.problem is not None)
    if found.manifest is not None:
        assert type(value) is (tuple if isinstance(SOUND[field], tuple) else type(SOUND[field]))
    find(home, [spec("my-motor", build("2.0", "gears>=1"))])


def test_a_change_is_seen_at_once(tmp_path: Path) -> None:
    folder = put(tmp_path, "motor-2.0")
    wanted = spec("my-motor")
    assert find(tmp_path, [wanted])[wanted][0].version == "2.0"
    replacement = folder / "new.json"
    replacement.write_text(json.dumps({**SOUND, "packages": {"my-motor": "2.1"}}))
    os.replace(replacement, folder / MANIFEST)
    assert find(tmp_path, [wanted])[wanted][0].version == "2.1"
    (folder / MANIFEST).unlink()
    assert find(tmp_path, [wanted])[wanted] == ()


def test_pins_are_read_from_the_data_of_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "plugin_with_pins"
    (package / "pins").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "pins" / "good.txt").write_text(
        "# all of them\n\nMy_Motor==2.0  # ours\nx==1; sys_platform == 'never'\n"
    )
    (package / "pins" / "bad.txt").write_text("my-motor>=2.0\n")
    broken = tmp_path / "plugin_that_breaks"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise RuntimeError")
    monkeypatch.syspath_prepend(tmp_path)
    good = "plugin_with_pins:pins/good.txt"
    bad = [
        "plugin_with_pins:pins/bad.txt",
        "plugin_with_pins:pins/none.txt",
        "plugin_that_breaks:x",
        "none:x",
    ]
    builds = [EnvironmentBuild(version="1", requirements=(), pins=each) for each in (good, *bad)]
    assert read_pins([spec("a", *builds), spec("b")]) == {good: {"my-motor": "2.0"}}
