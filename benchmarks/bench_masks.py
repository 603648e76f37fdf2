"""What masks cost beside a model's logits: CPU time for a row, by kind and batch, and to compile.

Texts are written by picking at random among what a mask allows, over the vocabulary of SmolLM2 in
``LLMENGINE_TEST_WEIGHTS`` (a folder with its tokenizer.json), with the llguidance of this environment. A row
counts with its share of ``Masker.fill`` and with ``Constraint.accept`` of the token that was chosen. What is typical
of a kind is written by the model, and cheaper than what is picked here: text of which much is forced.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import time
from array import array

from llmengine_core.types.sampling import StructuredOutput
from llmengine_core.worker.contract import Constraint
from llmengine_llguidance.decoder import LLGuidanceDecoder
from llmengine_llguidance.worker.masker import LLGuidanceMasker

VOCABULARY, END = 49_152, 2
WORDS = VOCABULARY // 32
STEPS = 400
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 5},
        "kind": {"enum": ["cat", "dog", "hamster"]},
        "seen": {"type": "string", "format": "date-time"},
    },
    "required": ["name", "age", "tags", "kind", "seen"],
    "additionalProperties": False,
}
CONSTRAINTS = {
    "json": StructuredOutput("json", json.dumps(PERSON)),
    "regex": StructuredOutput("regex", r"[a-z]{3,20}@[a-z]{2,10}\.(com|org)( [A-Z][a-z]+){0,40}"),
    "choice": StructuredOutput("choice", tuple(f"answer number {n}" for n in range(200))),
    "grammar": StructuredOutput(
        "grammar", 'start: e\ne: t (("+" | "-") t)*\nt: f ("*" f)*\nf: /[0-9]+/ | "(" e ")"'
    ),
}


def main() -> None:
    """Print a row for each kind, and what making the masker takes."""
    folder = os.environ.get("LLMENGINE_TEST_WEIGHTS")
    if folder is None:
        print("nothing measured: LLMENGINE_TEST_WEIGHTS must be set")
        return
    decoder = LLGuidanceDecoder()
    start = time.process_time()
    masker = LLGuidanceMasker(folder, VOCABULARY, [END])
    print(f"the tokenizer takes {time.process_time() - start:.2f} s, once\n")
    print("kind      compile ms  rows  mean µs  p99 µs")
    for kind, constraint in CONSTRAINTS.items():
        grammar = decoder.translate(constraint, "llguidance").text
        start = time.process_time()
        masker.constraint(grammar)
        compiled = 1e3 * (time.process_time() - start)
        for rows in (1, 8, 32):
            took = measured(masker, grammar, rows)
            p99 = statistics.quantiles(took, n=100)[-1]
            print(f"{kind:<9} {compiled:>10.2f} {rows:>5} {statistics.mean(took):>8.1f} {p99:>7.1f}")


def measured(masker: LLGuidanceMasker, grammar: str, rows: int) -> list[float]:
    """Microseconds of CPU for a row, at each step of a batch whose texts start anew where they end."""
    choices = random.Random(rows)
    constraints = [masker.constraint(grammar) for _ in range(rows)]
    memory = array("I", bytes(4 * rows * WORDS))
    masks = memoryview(memory).cast("B").cast("I", (rows, WORDS))
    took = []
    for _ in range(STEPS // rows + 20):
        start = time.thread_time()
        masker.fill(constraints, masks)
        spent = time.thread_time() - start
        for row in range(rows):
            token = drawn(memory[row * WORDS : (row + 1) * WORDS], choices)
            if token == END:
                constraints[row] = masker.constraint(grammar)
            else:
                spent += accepted(constraints[row], token)
        took.append(1e6 * spent / rows)
    return took


def drawn(mask: array[int], choices: random.Random) -> int:
    """A token that the mask allows."""
    word = choices.choice([place for place, bits in enumerate(mask) if bits])
    return 32 * word + choices.choice([bit for bit in range(32) if mask[word] >> bit & 1])


def accepted(constraint: Constraint, token: int) -> float:
    """Seconds of CPU that it takes."""
    start = time.thread_time()
    constraint.accept(token)
    return time.thread_time() - start


if __name__ == "__main__":
    main()
