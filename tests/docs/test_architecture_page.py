"""The architecture page lists every module there is, from high to low as the import rules have them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "architecture.md").read_text()


def listed(package: str) -> list[str]:
    """The modules in the first column of a package's table."""
    table = PAGE.partition(f"| `{package}` | |\n|---|---|\n")[2].partition("\n\n")[0]
    return [name for row in table.splitlines() for name in re.findall(r"`([^`]+)`", row.split(" | ")[0])]


def modules(package: str) -> set[str]:
    """Every module of a package; an `__init__` counts where it is all that its folder holds."""
    folder = ROOT / "src" / package
    paths = {path.relative_to(folder).with_suffix("") for path in folder.rglob("*.py")}
    plain = {path for path in paths if path.name != "__init__"}
    lone = {path.parent for path in paths - plain} - {parent for path in plain for parent in path.parents}
    return {path.as_posix() for path in plain | lone} - {"."}


@pytest.mark.parametrize("package", ["llmengine", "llmengine_core"])
def test_every_module_is_listed_once(package: str) -> None:
    names = listed(package)
    assert len(set(names)) == len(names)
    assert set(names) == modules(package), "docs/explanation/architecture.md has a table of all modules"


def test_modules_are_listed_from_high_to_low() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(each["layers"] for each in contracts if each.get("containers") == ["llmengine_core"])
    level = {name: at for at, layer in enumerate(layers) for name in re.findall(r"\w+", layer)}
    levels = [level[name.partition("/")[0]] for name in listed("llmengine_core")]
    assert levels == sorted(levels)
