"""The reference of the hooks is what `hookspecs.py` and the declarations say.

``python -m tests.docs.test_hooks_page`` writes it anew.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import FunctionType

from tests.docs.attributes import markdown, table

from llmengine_core import hookspecs
from llmengine_core.plugins import DECLARING_HOOKS
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.declarations import EnvironmentBuild, EnvironmentSpec, Info, QuantizationMethod
from llmengine_core.types.models import WeightsSource

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "hooks.md"
HEAD = f"""\
# Hooks

Everything that a plugin can add, from `llmengine_core.hookspecs`. A plugin is a module that an entry point of the group
`{hookspecs.GROUP}` names; the entry point's name is the plugin's. The module states the contract that it was written
for, `CONTRACT = 1`, and marks the hooks that it implements with `@hookimpl`.
[Write a plugin](../how-to/write-a-plugin.md) shows one from end to end.

"""


INFO = """
Every declaration but `ModelCard` has these fields, and its hook's own besides:

"""
PARTS = (Capabilities, EnvironmentSpec, EnvironmentBuild, QuantizationMethod, WeightsSource)
"""What declarations are put together from."""


def hooks() -> list[FunctionType]:
    """Every hook, in the order of the source."""
    return [
        each
        for each in vars(hookspecs).values()
        if isinstance(each, FunctionType) and each.__module__ == hookspecs.__name__
    ]


def signature(hook: FunctionType) -> str:
    """As it is written in the source."""
    found = re.search(rf"^def ({hook.__name__}\(.*?\) -> .*?):", inspect.getsource(hook), re.MULTILINE)
    assert found is not None
    return found[1]


def page() -> str:
    """The whole page."""
    rules = inspect.cleandoc(hookspecs.__doc__ or "").partition("Rules for all of them: ")[2]
    text = f"{HEAD}Rules for all of them: {markdown(rules)}\n{INFO}{table(Info)}"
    for hook in hooks():
        text += f"\n## {hook.__name__}\n\n```text\n{signature(hook)}\n```\n\n"
        text += f"{markdown(inspect.cleandoc(hook.__doc__ or ''))}\n"
        kind = DECLARING_HOOKS.get(hook.__name__)
        if kind is not None and vars(kind).get("__annotations__"):
            text += f"\n{table(kind)}"
    for part in PARTS:
        text += f"\n## {part.__name__}\n\n{markdown(inspect.cleandoc(part.__doc__ or ''))}\n\n{table(part)}"
    return text


def test_the_reference_is_what_the_hooks_say() -> None:
    assert PAGE.read_text() == page(), "python -m tests.docs.test_hooks_page writes it anew"


def test_every_hook_is_there_with_its_signature() -> None:
    names = {hook.__name__ for hook in hooks()}
    assert names == {*DECLARING_HOOKS, "register_commands"}
    assert all(f"\n## {name}\n\n```text\n{name}(" in PAGE.read_text() for name in names)


if __name__ == "__main__":
    PAGE.write_text(page())
