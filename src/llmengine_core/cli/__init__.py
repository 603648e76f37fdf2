"""The command line, ``llmengine``.

Each command is a module of its own that is imported when it is asked for, and imports what it works with
when it runs: what one command needs costs no other anything.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command that the program was started with; never returns."""
    try:
        from llmengine_core.cli.root import cli

        cli.main()
    except KeyboardInterrupt:  # while modules are imported, or as the program ends
        sys.exit(130)
