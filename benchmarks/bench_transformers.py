"""Tokens per CPU-second of the transformers worker's step loop, against the library's own ways, on one thread.

    python benchmarks/bench_transformers.py [equal] [mixed] [--at 1 8 32] [--dtype float32] [--rounds 3] [--json]

LLMENGINE_TEST_ENGINES is a state folder with the engine environment, LLMENGINE_TEST_WEIGHTS a folder with safetensors;
`nox -s engines` makes both. Greedy, in the dtype of the weights or another one, the same requests for all, turn by turn
in one process, whose CPU time counts. A token that a rival generates beyond what its request asked for doesn't count.

`equal`   prompts of 32 tokens and 24 new ones each, all at once
`mixed`   prompts of 8 to 128 tokens and 4 to 64 new ones

    ours      requests join and leave a running batch
    plain     ``generate()`` on a batch that is padded on the left, until its longest request is done
    library   the library's continuous batching, its manager kept running
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> int:
    home, weights = (os.environ.get(f"LLMENGINE_TEST_{name}") for name in ("ENGINES", "WEIGHTS"))
    if home is None or weights is None:
        print("nothing measured: LLMENGINE_TEST_ENGINES and LLMENGINE_TEST_WEIGHTS must be set, see --help")
        return 0
    python = max(Path(home).glob("environments/transformers-*/bin/python"))
    sources = [str(ROOT / "src"), str(ROOT / "plugins" / "llmengine-transformers" / "src")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sources), "OMP_NUM_THREADS": "1"}
    loop = Path(__file__).with_name("transformers_loop.py")
    return subprocess.run(
        [str(python), str(loop), weights, *sys.argv[1:]], env=environment, check=False
    ).returncode


if __name__ == "__main__":
    if "--help" in sys.argv:
        print(__doc__)
    else:
        sys.exit(main())
