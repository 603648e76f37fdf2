"""What every distribution of the workspace has to bring along."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
MEMBERS = [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]
PLUGINS = [member for member in MEMBERS if member.name.startswith("llmengine-") and member != ROOT]

every_member = pytest.mark.parametrize("member", MEMBERS, ids=lambda path: str(path.relative_to(ROOT)))
every_plugin = pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)


def project(member: Path) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((member / "pyproject.toml").read_text())["project"]
    return table


@every_member
def test_it_has_its_papers(member: Path) -> None:
    described = project(member)
    assert described["requires-python"] == ">=3.11"
    assert described["license"] == "Apache-2.0"
    assert described["license-files"] == ["LICENSE"]
    assert (member / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert (member / "README.md").read_text().startswith("# ")
    assert (member / "CHANGELOG.md").read_text().startswith(f"# Changelog of {described['name']}\n")


@every_member
def test_it_takes_ranges_of_our_own_distributions_and_pins_nothing(member: Path) -> None:
    for requirement in map(Requirement, project(member)["dependencies"]):
        operators = {each.operator for each in requirement.specifier}
        if requirement.name.startswith("llmengine"):
            assert operators == {">=", "<"}, f"{requirement}: core and plugins are released apart"
        else:
            assert operators == {">="}, f"{requirement}: a lower bound, which `nox -s minimums` tests"


@every_member
def test_its_packages_are_typed(member: Path) -> None:
    packages = [path.parent for path in member.glob("src/*/__init__.py")]
    assert packages or member.name == "llmengine"
    assert [package for package in packages if not (package / "py.typed").exists()] == []


@every_plugin
def test_a_plugin_declares_itself_by_one_entry_point_in_its_own_package(plugin: Path) -> None:
    name = plugin.name.removeprefix("llmengine-")
    assert project(plugin)["entry-points"] == {"llmengine": {name: f"llmengine_{name}.plugin"}}
    assert (plugin / "src" / f"llmengine_{name}" / "plugin.py").exists()
