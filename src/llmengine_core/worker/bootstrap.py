"""Where a worker begins: ``python -I bootstrap.py``, run by path under the interpreter of an engine's environment.

Standard input brings one JSON line, the document of ``llmengine_core.worker_backend.WorkerBackend`` with
``address``, ``key`` and ``threads`` added. Its ``packages`` say where ours are: they are imported by path, so that
nothing else of the environment that they are installed in can be seen.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType
    from typing import Any

STDIN, STDOUT, STDERR = 0, 1, 2


class ByPath:
    """A finder of top-level modules and packages that are where we say."""

    def __init__(self, places: Mapping[str, str]) -> None:
        """By name, the file to run: ``.../package/__init__.py`` or ``.../module.py``."""
        self._places = places

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of one of them; what is inside a package is then found as usual."""
        if name not in self._places:
            return None
        file = Path(self._places[name])
        inside = [str(file.parent)] if file.name == "__init__.py" else None
        return spec_from_file_location(name, file, submodule_search_locations=inside)


def main() -> None:
    """Read the document and serve what it says; ends with standard input, if not before."""
    stdin, messages = private_streams()
    document = read_document(stdin)
    # Read by libraries when they are loaded; none has been.
    os.environ["OMP_NUM_THREADS"] = str(document["threads"])
    sys.meta_path.insert(0, ByPath(document["packages"]))
    from llmengine_core.worker.serve import serve

    serve(document, stdin, messages)


def private_streams() -> tuple[int, int]:
    """Standard input and output for us alone, not inherited by what an engine starts.

    An engine that reads finds nothing; whatever it prints, also from C, goes where its errors go.
    """
    stdin, messages = os.dup(STDIN), os.dup(STDOUT)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, STDIN)
    os.close(nothing)
    os.dup2(STDERR, STDOUT)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # it is what Python has made it
    return stdin, messages


def read_document(stdin: int) -> dict[str, Any]:
    """The first line. Where there is none, whoever started us is gone, and so are we."""
    line = b""
    while not line.endswith(b"\n"):
        more = os.read(stdin, 1 << 16)
        if not more:
            os._exit(0)
        line += more
    document: dict[str, Any] = json.loads(line)
    return document


if __name__ == "__main__":
    main()
