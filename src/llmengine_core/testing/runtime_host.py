"""A process with a runtime of its own, for the law that kills it: ``python runtime_host.py``.

Its standard input holds one JSON line: where modules are found, the runtime's factory, a state folder, and what to
start. It waits for its end.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any


async def serve(order: dict[str, Any]) -> None:
    """Start one replica, and stay."""
    from pathlib import Path

    from llmengine_core.plugins import import_object
    from llmengine_core.types.launch import LaunchSpec

    runtime = import_object(order["factory"])(Path(order["home"]))
    spec = LaunchSpec(argv=tuple(order["argv"]), document=order["document"], subject="tiny")
    replica = await runtime.start(spec)
    await replica.wait()


if __name__ == "__main__":
    given = json.loads(sys.stdin.readline())
    sys.path[:] = given["path"]
    asyncio.run(serve(given))
