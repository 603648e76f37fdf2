"""Run a command beside a real S3 server, which it finds by its environment, and which ends with it.

    python -m tests.servers.on_s3 llmengine files list

Where an argument holds ``{bucket}``, that is the name of a bucket that was made for it.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tests.servers.seaweed import s3_server

__all__: list[str] = []


def main(arguments: list[str]) -> int:
    """The command's exit code."""
    with s3_server() as server:
        bucket = server.bucket()
        command = [each.replace("{bucket}", bucket) for each in arguments]
        return subprocess.run(command, env=os.environ | server.environment()).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
