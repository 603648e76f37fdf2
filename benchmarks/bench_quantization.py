"""What quantizing as a model is loaded does to its speed and memory: the transformers worker on one thread.

    python benchmarks/bench_quantization.py [--at 1 8] [--new 24] [--rounds 3] [--json]

LLMENGINE_TEST_ENGINES is a state folder with an engine environment that has bitsandbytes, LLMENGINE_TEST_WEIGHTS a
folder with safetensors. Each method has a process of its own; prompts of 32 tokens, greedy. Tokens per CPU-second are
the median of the rounds, and the share of what the weights give as they are stored. `weights` is what the library
counts of them, `own` what the process has grown by once the model answers, `mapped` pages of files, which the system
takes back when it needs them, and `peak` the most of both on the way.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
METHODS = ("as stored", "bitsandbytes", "bitsandbytes-nf4", "bitsandbytes-fp4")
HAS_IT = "import importlib.util, sys; sys.exit(importlib.util.find_spec('bitsandbytes') is None)"


def held() -> dict[str, float]:
    """MB of this process: its own, of files that are mapped, and the most that it had."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    names = {"own MB": "RssAnon", "mapped MB": "RssFile", "peak MB": "VmHWM"}
    return {name: int(lines[line].split()[0]) / 1e3 for name, line in names.items()}


def measure(method: str, folder: str, at: list[int], new: int, rounds: int) -> dict[str, Any]:
    """One method, in this process, under the interpreter of the engine's environment."""
    from llmengine_bitsandbytes.quantizer import BitsAndBytes
    from llmengine_core.worker.contract import Order
    from llmengine_transformers.worker.engine import TransformersEngine

    options = {} if method == METHODS[0] else BitsAndBytes().load_options(method, "transformers")
    document = {
        "weights": folder, "dtype": "auto", "accelerator": "cpu", "load_options": options, "allow_remote_code": False,
        "per_worker": max(at), "context_length": 512, "threads": 1, "memory": 16 << 30,
    }  # fmt: skip
    before = held()
    started = time.process_time()
    engine = TransformersEngine.load(document, None, lambda phase, share: None)
    found: dict[str, Any] = {"method": method, "load CPU s": time.process_time() - started}
    text = engine.encode(
        "The keeper wrote down the weather every morning, as his father had done before him. " * 40
    )
    for count in at:
        speeds = []
        for _ in range(rounds):
            started, left = time.process_time(), count
            for row in range(count):
                engine.join(Order(id=row, tokens=text[row : row + 32], max_tokens=new))
            made = 0
            while left:
                for emitted in engine.step():
                    made += 1
                    left -= emitted.finish is not None
            speeds.append(made / (time.process_time() - started))
        found[f"tokens per CPU s at {count}"] = statistics.median(speeds)
    found["weights MB"] = engine._loaded.model.get_memory_footprint() / 1e6
    now = held()
    found |= {
        name: now[name] - (before["own MB"] + before["mapped MB"] if "peak" in name else before[name])
        for name in now
    }
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--at", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--new", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    home, weights = (os.environ.get(f"LLMENGINE_TEST_{name}") for name in ("ENGINES", "WEIGHTS"))
    if home is None or weights is None:
        print("nothing measured: LLMENGINE_TEST_ENGINES and LLMENGINE_TEST_WEIGHTS must be set, see --help")
        return 0
    if options.method:
        print(json.dumps(measure(options.method, weights, options.at, options.new, options.rounds)))
        return 0
    pythons = sorted(Path(home).glob("environments/transformers-*/bin/python"), reverse=True)
    python = next((each for each in pythons if not subprocess.call([each, "-c", HAS_IT])), None)
    if python is None:
        print("nothing measured: llmengine engines install transformers --quantize bitsandbytes")
        return 0
    sources = [str(path) for path in (ROOT / "src", *sorted(ROOT.glob("plugins/*/src")))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sources), "OMP_NUM_THREADS": "1"}
    found = []
    for method in METHODS:
        command = [str(python), __file__, *sys.argv[1:], "--method", method]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    if options.json:
        print(json.dumps(found))
        return 0
    for each in found:
        shares = [
            f"{each[name]:.1f} ({each[name] / found[0][name]:.2f}) {name}"
            for name in each
            if name.startswith("tok")
        ]
        sizes = [f"{each[name]:.0f} {name}" for name in each if name.endswith("MB")]
        print(f"{each['method']:>17}: {', '.join([*shares, *sizes])}, {each['load CPU s']:.1f} CPU s to load")
    return 0


if __name__ == "__main__":
    sys.exit(main())
