"""What `import llmengine` offers, and what it costs."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import pytest

import llmengine
import llmengine.data_types
from llmengine import errors
from llmengine_core import errors as core_errors

ORIGINAL = [
    "BatchCompletionsJob",
    "CreateBatchCompletionsV2Response",
    "FilteredCompletionV2Request",
    "FilteredChatCompletionV2Request",
    "BatchCompletionsJobStatus",
    "CompletionSyncV1Request",
    "CompletionSyncV1Response",
    "CompletionStreamV1Request",
    "CompletionStreamV1Response",
    "CancelFineTuneResponse",
    "ChatCompletionV2Request",
    "ChatCompletionV2Response",
    "VLLMEndpointAdditionalArgs",
    "Completion",
    "CompletionOutput",
    "CompletionStreamOutput",
    "CompletionStreamResponse",
    "CompletionSyncResponse",
    "CreateBatchCompletionsModelConfig",
    "CreateBatchCompletionsRequest",
    "CreateBatchCompletionsRequestContent",
    "CreateBatchCompletionsResponse",
    "CreateBatchCompletionsV1Request",
    "CreateBatchCompletionsV1RequestContent",
    "CreateBatchCompletionsV1Response",
    "CreateBatchCompletionsV2Request",
    "CreateBatchCompletionsV2RequestContent",
    "CreateBatchCompletionsV2ModelConfig",
    "BatchCompletionsModelConfig",
    "CreateFineTuneRequest",
    "CreateFineTuneResponse",
    "DeleteFileResponse",
    "DeleteLLMEndpointResponse",
    "ModelDownloadRequest",
    "ModelDownloadResponse",
    "GetFileContentResponse",
    "File",
    "FineTune",
    "GetFileResponse",
    "GetFineTuneResponse",
    "GetLLMEndpointResponse",
    "ListFilesResponse",
    "ListFineTunesResponse",
    "ListLLMEndpointsResponse",
    "Model",
    "UploadFileResponse",
]

# What the reference uses besides, from llmengine.data_types.
REFERENCE = [
    "BatchCompletionContent",
    "CreateBatchCompletionsModelConfig",
    "CreateBatchCompletionsRequestContent",
    "CreateBatchCompletionsV1Response",
    "CreateBatchCompletionsV2Response",
    "CreateLLMEndpointResponse",
    "FilteredChatCompletionV2Request",
    "GetFineTuneEventsResponse",
    "LLMFineTuneEvent",
    "LLMInferenceFramework",
    "LLMSource",
    "ModelEndpointStatus",
    "ModelEndpointType",
    "PostInferenceHooks",
    "Quantization",
    "StreamError",
    "StreamErrorContent",
    "TokenOutput",
    "ToolConfig",
    "UpdateLLMEndpointResponse",
    "FineTuneStatus",
    "GpuType",
]


def test_all_is_the_originals_names_and_ours() -> None:
    assert len(ORIGINAL) == 46
    ours = {"use", "set_default_engine", "errors", "__version__"}
    assert set(llmengine.__all__) == {*ORIGINAL, *ours}
    assert len(llmengine.__all__) == len(set(llmengine.__all__))


@pytest.mark.parametrize("name", llmengine.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(llmengine, name) is not None
    assert name in dir(llmengine)


@pytest.mark.parametrize(
    "name", sorted({*ORIGINAL, *REFERENCE} - {"Completion", "File", "FineTune", "Model"})
)
def test_data_types_has_the_originals_and_the_references_names(name: str) -> None:
    assert getattr(llmengine.data_types, name) is not None
    assert name in llmengine.data_types.__all__


def test_every_data_type_says_what_it_is() -> None:
    for name in llmengine.data_types.__all__:
        assert getattr(llmengine.data_types, name).__doc__, name


def test_other_names_are_attribute_errors() -> None:
    for module in (llmengine, llmengine.data_types):
        with pytest.raises(AttributeError, match="Nothing"):
            module.Nothing  # noqa: B018
    assert not hasattr(llmengine, "LLMSource")


def test_submodules_come_with_the_package() -> None:
    for name in ("api_engine", "data_types", "errors"):
        assert getattr(llmengine, name) is importlib.import_module(f"llmengine.{name}")


def test_the_version_is_the_distributions() -> None:
    assert llmengine.__version__ == version("llmengine-core")


def test_the_package_is_typed() -> None:
    assert files("llmengine").joinpath("py.typed").is_file()


@pytest.mark.parametrize("name", core_errors.__all__)
def test_errors_are_the_cores(name: str) -> None:
    assert getattr(errors, name) is getattr(core_errors, name)
    assert name in errors.__all__


PROBE = """
import json, sys, time
happened = []
sys.addaudithook(lambda event, _: happened.append(event) if event.startswith(("socket.", "_thread.")) else None)
modules = set(sys.modules)
began = time.process_time()
import llmengine
cpu = time.process_time() - began
print(json.dumps({"cpu": cpu, "happened": happened, "loaded": sorted(set(sys.modules) - modules)}))
"""


def probe(tmp_path: Path) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


HEAVY = [
    "aiohttp",
    "anyio",
    "asyncio",
    "h11",
    "httptools",
    "httpx",
    "hypothesis",
    "llguidance",
    "llmengine_core",
    "numpy",
    "obstore",
    "pluggy",
    "pydantic",
    "pytest",
    "requests",
    "sqlite3",
    "ssl",
    "torch",
    "transformers",
    "urllib3",
    "vllm",
    "xllamacpp",
]


def test_importing_loads_nothing_heavy_and_opens_nothing(tmp_path: Path) -> None:
    found = probe(tmp_path)
    loaded = found["loaded"]
    assert isinstance(loaded, list)
    assert "llmengine" in loaded
    assert not {name.partition(".")[0] for name in loaded} & set(HEAVY)
    assert found["happened"] == []


def test_importing_costs_little_cpu(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    cpu = min(float(str(probe(tmp_path)["cpu"])) for _ in range(3))
    record_property("import_llmengine_cpu_ms", round(1000 * cpu, 1))
    assert cpu <= 0.120
