"""The reference of the settings holds every field, and is true of each: variable, key, default.

``python -m tests.docs.test_settings_page`` writes its table anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.docs.attributes import attributes

from llmengine_core.settings import Settings, load_settings

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
HEADER = "| field | variable | default | |\n|---|---|---|---|\n"
COMPUTED = {"home": "the platform's folder for application state", "weights_size": "`200GiB`"}
GIVEN = {
    "home": ("elsewhere", Path("elsewhere")),
    "database_url": ("sqlite:///other.db", "sqlite:///other.db"),
    "storage_url": ("file:///other", "file:///other"),
    "plugins": ("sqlite, localdisk", ("sqlite", "localdisk")),
    "disabled_plugins": ("llamacpp", ("llamacpp",)),
    "idle_seconds": ("1.5", 1.5),
    "start_seconds": ("20", 20.0),
    "queue_size": ("0", 0),
    "private_hosts": ("10.0.0.0/8, models.intra", ("10.0.0.0/8", "models.intra")),
    "weights_size": ("1.5 GiB", 3 << 29),
    "allow_remote_code": ("true", True),
}
"""For each field, a text as environments and files hold it, and what becomes of it."""


def table() -> str:
    """A row for each field."""
    rows = [HEADER]
    for each in attributes(Settings):
        if each.name in Settings.model_fields:
            default = COMPUTED.get(each.name, f"`{each.default}`")
            rows.append(f"| `{each.name}` | `LLMENGINE_{each.name.upper()}` | {default} | {each.text} |\n")
    return "".join(rows)


def page(text: str) -> str:
    """The page with its table as it is now."""
    before, _, rest = text.partition(HEADER)
    return f"{before}{table()}\n{rest.partition(chr(10) * 2)[2]}"


def test_the_table_is_what_the_fields_say() -> None:
    text = PAGE.read_text()
    assert text == page(text), "python -m tests.docs.test_settings_page writes it anew"
    assert list(GIVEN) == list(Settings.model_fields)


@pytest.mark.parametrize("field", GIVEN)
def test_a_variable_goes_before_a_file_and_both_are_read(
    field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, value = GIVEN[field]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMENGINE_HOME", str(tmp_path))
    if field != "home":
        (tmp_path / "llmengine.toml").write_text(f'{field} = "{text}"\n')
        assert getattr(load_settings(), field) == value
        (tmp_path / "llmengine.toml").write_text(f'{field} = "nonsense"\n')
    monkeypatch.setenv(f"LLMENGINE_{field.upper()}", text)
    assert getattr(load_settings(), field) == value


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
