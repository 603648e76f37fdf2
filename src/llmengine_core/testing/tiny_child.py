"""The program that the laws of runtimes start: it does what its document says, step by step.

Run by path, ``python -I -S tiny_child.py``: the standard library only. The document's member ``contract`` holds a path
``life``, a named pipe that this process and its descendants keep open, and ``steps``, each a verb and its arguments.
After the last step it runs until its input closes.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import threading

TYPE_CHECKING = False  # as in `typing`, whose import would cost as much as all the others
if TYPE_CHECKING:
    from typing import Any

LINE = 1000


def main() -> None:
    """Carry out the steps, then wait for the input's end."""
    line = sys.stdin.buffer.readline()
    document = json.loads(line)
    plan = document.pop("contract")
    life = os.open(plan["life"], os.O_WRONLY)
    os.write(life, b"+")
    steps = Steps(document, life)
    for verb, *arguments in plan["steps"]:
        getattr(steps, verb)(*arguments)
    sys.stdin.buffer.read()


class Steps:
    """What a step can be, by its verb."""

    def __init__(self, document: dict[str, Any], life: int) -> None:
        self.document = document
        self.life = life

    def say(self, text: str) -> None:
        """A line of standard output."""
        sys.stdout.buffer.write(text.encode("latin-1") + b"\n")
        sys.stdout.buffer.flush()

    def log(self, text: str) -> None:
        """A line of standard error."""
        sys.stderr.buffer.write(text.encode() + b"\n")
        sys.stderr.buffer.flush()

    def flood(self, count: int) -> None:
        """So many bytes on both."""
        for _ in range(count // LINE):
            self.say("." * (LINE - 1))
            self.log("." * (LINE - 1))

    def progress(self, done: float, phase: str = "load") -> None:
        """Say how far it has come."""
        self.say(json.dumps({"progress": done, "phase": phase}))

    def ready(self, facts: dict[str, Any]) -> None:
        """Say that it is, with what it was given besides the key."""
        document = {name: value for name, value in self.document.items() if name != "key"}
        key = str(self.document.get("key"))
        seen = {
            "document": document,
            "env": dict(os.environ),
            "key_shown": key in " ".join([*sys.argv, *os.environ, *os.environ.values()]),
        }
        self.say(json.dumps({"ready": True, **facts, "seen": seen}))

    def listen(self) -> None:
        """Answer at the address: 200 to those who hold the key."""
        address = self.document["address"]
        if address.startswith("unix:"):
            server = socket.socket(socket.AF_UNIX)
            server.bind(address.removeprefix("unix:"))
        else:
            host, _, port = address.rpartition("/")[2].rpartition(":")
            server = socket.create_server((host, int(port)))
        server.listen()
        threading.Thread(target=self.serve, args=(server,), daemon=True).start()

    def serve(self, server: socket.socket) -> None:
        """One request for each connection."""
        allowed = b"bearer " + self.document["key"].encode().lower()
        while True:
            connection, _ = server.accept()
            with connection:
                asked = connection.recv(65536).lower()
                status = b"200 OK" if allowed in asked else b"401 No"
                connection.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")

    def beat(self) -> None:
        """Let the law know that it got here."""
        os.write(self.life, b"+")

    def await_word(self, path: str) -> None:
        """Wait until somebody writes to a named pipe."""
        with open(path, "rb") as pipe:
            pipe.read(1)

    def deaf(self) -> None:
        """Ignore what asks it to end."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def descend(self) -> None:
        """Start a process that leaves the group, and keeps this one's output open."""
        read, write = os.pipe()
        if os.fork() == 0:  # noqa: TID251 - it is what a replica may do
            os.setsid()
            os.write(self.life, b"+")
            os.close(write)
            self.hang()
        os.close(write)
        os.read(read, 1)

    def hang(self) -> None:
        """Run on, whatever becomes of the input, as long as the law does."""
        poll = select.poll()
        poll.register(self.life, 0)  # an error, once nobody reads it any more
        poll.poll()
        os._exit(1)

    def leave(self, code: int) -> None:
        """End at once."""
        os._exit(code)

    def die(self, number: int) -> None:
        """End by a signal."""
        os.kill(os.getpid(), number)
        self.hang()


if __name__ == "__main__":
    main()
