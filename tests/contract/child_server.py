"""An engine of one page in a process of its own: it says its prompt backwards, a character at a time."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time

SECONDS_PER_TOKEN = 0.004


def readable(weights: str) -> bool:
    with open(weights, "rb") as file:
        return file.read(4) == b"toy!"


def answer(peer: socket.socket, key: str, weights: str) -> None:
    with peer, peer.makefile("rw") as lines:
        if lines.readline().strip() != key or not readable(weights):
            return
        asked = json.loads(lines.readline())
        text = asked["text"] * (1 + asked["max_tokens"] // len(asked["text"]))
        try:
            for number, character in enumerate(reversed(text[: asked["max_tokens"]]), 1):
                lines.write(json.dumps([number, character]) + "\n")
                lines.flush()
                time.sleep(SECONDS_PER_TOKEN)
        except OSError:
            return


def serve(listener: socket.socket, key: str, weights: str) -> None:
    while True:
        peer, _ = listener.accept()
        threading.Thread(target=answer, args=(peer, key, weights), daemon=True).start()


def main() -> None:
    given = json.loads(sys.stdin.readline())
    if not given.get("lazy") and not readable(given["weights"]):
        sys.exit(f"{given['weights']} holds no weights that can be read")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(given["address"].removeprefix("unix:"))
    listener.listen()
    threading.Thread(target=serve, args=(listener, given["key"], given["weights"]), daemon=True).start()
    print(json.dumps({"ready": True, "pid": os.getpid()}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
