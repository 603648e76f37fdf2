"""The types of requests and responses, loaded when they are first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

MODULES = ("enums", "completion", "file", "fine_tune", "model", "chat", "batch")
"""The quickest to load first: a name is looked for in this order."""

if TYPE_CHECKING:
    from llmengine.data_types.batch import *  # noqa: F403 - each has an __all__
    from llmengine.data_types.chat import *  # noqa: F403
    from llmengine.data_types.completion import *  # noqa: F403
    from llmengine.data_types.enums import *  # noqa: F403
    from llmengine.data_types.file import *  # noqa: F403
    from llmengine.data_types.fine_tune import *  # noqa: F403
    from llmengine.data_types.model import *  # noqa: F403

    __all__: list[str]
else:  # hidden from type checkers, which would take every name for known

    def __getattr__(name: str) -> Any:
        modules = (import_module(f"{__name__}.{each}") for each in MODULES)
        if name == "__all__":
            return sorted(each for module in modules for each in module.__all__)
        if not name.startswith("_"):
            for module in modules:
                if name in module.__all__:
                    return getattr(module, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
