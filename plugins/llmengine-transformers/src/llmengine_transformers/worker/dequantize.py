"""Writes a GGUF file as a folder of safetensors: ``python -I dequantize.py``, in the engine's environment.

It reads one line with ``source`` and ``target``, reports its progress, and ends with status 2 and a reason where
the checkpoint is not fit for it. Weights go through here one tensor at a time, so that memory is bounded by the
largest.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from llmengine_transformers.worker.gguf_file import Gguf
    from llmengine_transformers.worker.gguf_model import Model

NOT_FIT = 2
"""Exit status for a checkpoint that can't be worked on."""


def convert(source: Path, target: Path, on_progress: Callable[[float], None]) -> None:
    """Write the folder ``target``. Raises ``NotFit``, ``OSError``."""
    from llmengine_transformers.worker.gguf_file import NotFit, read
    from llmengine_transformers.worker.gguf_model import model_of
    from llmengine_transformers.worker.gguf_tokenizer import write_tokenizer

    file = read(source)
    model = model_of(file)
    tokens = len(file.metadata.get("tokenizer.ggml.tokens", ()))
    if tokens > model.config["vocab_size"]:
        raise NotFit(f"it has {tokens:,} tokens, and embeddings for {model.config['vocab_size']:,}")
    target.mkdir()
    write_tokenizer(file.metadata, model.config["max_position_embeddings"], target)
    write_json(target / "config.json", model.config)
    write_json(target / "generation_config.json", generation(file, model))
    write_weights(file, model, target / "model.safetensors", on_progress)


def generation(file: Gguf, model: Model) -> dict[str, Any]:
    """What generation_config.json says: above all, every token that ends an answer."""
    ends = [file.metadata.get(f"tokenizer.ggml.{each}_token_id") for each in ("eos", "eot")]
    known = list(dict.fromkeys(end for end in ends if end is not None))
    return {
        "bos_token_id": model.config["bos_token_id"],
        "eos_token_id": known[0] if len(known) == 1 else known or None,
        "pad_token_id": model.config["pad_token_id"],
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """In one order, and without what isn't known."""
    said = {name: value for name, value in content.items() if value is not None}
    path.write_text(json.dumps(said, indent=2, sort_keys=True) + "\n")


def write_weights(file: Gguf, model: Model, target: Path, on_progress: Callable[[float], None]) -> None:
    """As bfloat16, which models are trained in and engines compute in. Raises ``NotFit`` for what isn't finite."""
    import numpy as np

    from llmengine_transformers.worker.gguf_file import NotFit

    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, weight in model.weights.items():
        begin, end = end, end + 2 * math.prod(weight.shape)
        header[name] = {"dtype": "BF16", "shape": weight.shape, "data_offsets": [begin, end]}
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with target.open("xb") as out:
        out.write(len(head).to_bytes(8, "little") + head)
        for name, weight in model.weights.items():
            weights = file.weights(file.tensors[weight.stored])
            if not np.isfinite(weights).all():
                raise NotFit(f"{weight.stored} holds weights that are no numbers")
            out.write(bfloat16(weight.restored(weights)))
            on_progress(header[name]["data_offsets"][1] / end)
        out.flush()
        os.fsync(out.fileno())


def bfloat16(weights: np.ndarray) -> bytes:
    """The upper halves of 32-bit floats, rounded to the nearest, ties to even."""
    import numpy as np

    bits = np.ascontiguousarray(weights).view(np.uint32)
    return ((bits + (bits >> 16 & 1) + 0x7FFF) >> 16).astype("<u2").tobytes()


def find_package() -> None:
    """Make our package importable, and nothing else of the environment that it is installed in."""
    name = "llmengine_transformers"
    folder = Path(__file__).parents[1]
    spec = spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


def report(**facts: Any) -> None:
    """Say one thing to whoever started us."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Do what the line on standard input says."""
    document = json.loads(sys.stdin.readline())
    find_package()
    try:
        convert(
            Path(document["source"]),
            Path(document["target"]),
            lambda done: report(progress=done, phase="transform"),
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        odd = (
            ""
            if isinstance(error, ValueError)
            else f"its metadata are not as they should be: {type(error).__name__} "
        )
        sys.stderr.write(f"{odd}{error}\n")
        sys.exit(NOT_FIT)
    except (OSError, ImportError, MemoryError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
