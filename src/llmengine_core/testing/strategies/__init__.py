"""What laws draw from, for anybody's tests: requests, constraints, specs, keys, rows. All are bounded in size."""

from __future__ import annotations

from llmengine_core.testing.strategies.any_schemas import any_schemas, numeric_schemas
from llmengine_core.testing.strategies.constraints import (
    choices,
    constraints,
    constraints_with_texts,
    grammars,
    regexes,
    twin_grammars,
)
from llmengine_core.testing.strategies.keys import keys, not_keys
from llmengine_core.testing.strategies.requests import prompts, sampling_params, stop_lists, texts
from llmengine_core.testing.strategies.rows import CsvFile, csvs
from llmengine_core.testing.strategies.schemas import json_values, schemas, schemas_with_instances
from llmengine_core.testing.strategies.specs import specs

__all__ = [
    "CsvFile",
    "any_schemas",
    "choices",
    "constraints",
    "constraints_with_texts",
    "csvs",
    "grammars",
    "json_values",
    "keys",
    "not_keys",
    "numeric_schemas",
    "prompts",
    "regexes",
    "sampling_params",
    "schemas",
    "schemas_with_instances",
    "specs",
    "stop_lists",
    "texts",
    "twin_grammars",
]
