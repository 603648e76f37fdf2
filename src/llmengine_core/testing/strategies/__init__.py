"""What laws draw from, for anybody's tests: requests, constraints, specs, keys, rows. All are bounded in size."""

from __future__ import annotations

from llmengine_core.testing.strategies.keys import keys, not_keys
from llmengine_core.testing.strategies.requests import prompts, sampling_params, stop_lists, texts
from llmengine_core.testing.strategies.rows import CsvFile, csvs
from llmengine_core.testing.strategies.specs import specs

__all__ = [
    "CsvFile",
    "csvs",
    "keys",
    "not_keys",
    "prompts",
    "sampling_params",
    "specs",
    "stop_lists",
    "texts",
]
