"""The program that asks a quantizer in a fresh interpreter, and says what that took."""

from __future__ import annotations

import json
import sys
import time

from llmengine_core.plugins import import_object

__all__ = ["main"]


def main() -> None:
    """Answer the questions of the JSON document on standard input."""
    order = json.loads(sys.stdin.readline())
    factory = import_object(order["factory"])
    spent = time.process_time()
    quantizer = factory()
    answers = [dict(quantizer.load_options(*each)) for each in order["asked"]]
    seen = {
        "seconds": time.process_time() - spent,
        "modules": sorted({name.partition(".")[0] for name in sys.modules}),
        "answers": answers,
    }
    sys.stdout.write(json.dumps(seen) + "\n")


if __name__ == "__main__":
    main()
