"""One Python API over many LLM engines: completions, models, files and fine-tunes.

Everything is loaded when it is first asked for, so that importing this costs next to nothing.

Example::

    from llmengine import Completion

    response = Completion.create(
        model="smollm2-135m-instruct", prompt="The capital of France is", max_new_tokens=10
    )
    print(response.output.text)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = [
    "BatchCompletionsJob",
    "BatchCompletionsJobStatus",
    "BatchCompletionsModelConfig",
    "CancelFineTuneResponse",
    "ChatCompletionV2Request",
    "ChatCompletionV2Response",
    "Completion",
    "CompletionOutput",
    "CompletionStreamOutput",
    "CompletionStreamResponse",
    "CompletionStreamV1Request",
    "CompletionStreamV1Response",
    "CompletionSyncResponse",
    "CompletionSyncV1Request",
    "CompletionSyncV1Response",
    "CreateBatchCompletionsModelConfig",
    "CreateBatchCompletionsRequest",
    "CreateBatchCompletionsRequestContent",
    "CreateBatchCompletionsResponse",
    "CreateBatchCompletionsV1Request",
    "CreateBatchCompletionsV1RequestContent",
    "CreateBatchCompletionsV1Response",
    "CreateBatchCompletionsV2ModelConfig",
    "CreateBatchCompletionsV2Request",
    "CreateBatchCompletionsV2RequestContent",
    "CreateBatchCompletionsV2Response",
    "CreateFineTuneRequest",
    "CreateFineTuneResponse",
    "DeleteFileResponse",
    "DeleteLLMEndpointResponse",
    "File",
    "FilteredChatCompletionV2Request",
    "FilteredCompletionV2Request",
    "FineTune",
    "GetFileContentResponse",
    "GetFileResponse",
    "GetFineTuneResponse",
    "GetLLMEndpointResponse",
    "ListFilesResponse",
    "ListFineTunesResponse",
    "ListLLMEndpointsResponse",
    "Model",
    "ModelDownloadRequest",
    "ModelDownloadResponse",
    "UploadFileResponse",
    "VLLMEndpointAdditionalArgs",
    "__version__",
    "errors",
    "set_default_engine",
    "use",
]

SUBMODULES = ("api_engine", "data_types", "errors")
HOMES = {
    "Completion": "llmengine.completion",
    "File": "llmengine.file",
    "FineTune": "llmengine.fine_tuning",
    "Model": "llmengine.model",
    "set_default_engine": "llmengine_core.home",
    "use": "llmengine_core.home",
}
"""Where a name comes from, unless it is one of the data types."""

if TYPE_CHECKING:
    from llmengine import errors
    from llmengine.completion import Completion
    from llmengine.data_types import (
        BatchCompletionsJob,
        BatchCompletionsJobStatus,
        BatchCompletionsModelConfig,
        CancelFineTuneResponse,
        ChatCompletionV2Request,
        ChatCompletionV2Response,
        CompletionOutput,
        CompletionStreamOutput,
        CompletionStreamResponse,
        CompletionStreamV1Request,
        CompletionStreamV1Response,
        CompletionSyncResponse,
        CompletionSyncV1Request,
        CompletionSyncV1Response,
        CreateBatchCompletionsModelConfig,
        CreateBatchCompletionsRequest,
        CreateBatchCompletionsRequestContent,
        CreateBatchCompletionsResponse,
        CreateBatchCompletionsV1Request,
        CreateBatchCompletionsV1RequestContent,
        CreateBatchCompletionsV1Response,
        CreateBatchCompletionsV2ModelConfig,
        CreateBatchCompletionsV2Request,
        CreateBatchCompletionsV2RequestContent,
        CreateBatchCompletionsV2Response,
        CreateFineTuneRequest,
        CreateFineTuneResponse,
        DeleteFileResponse,
        DeleteLLMEndpointResponse,
        FilteredChatCompletionV2Request,
        FilteredCompletionV2Request,
        GetFileContentResponse,
        GetFileResponse,
        GetFineTuneResponse,
        GetLLMEndpointResponse,
        ListFilesResponse,
        ListFineTunesResponse,
        ListLLMEndpointsResponse,
        ModelDownloadRequest,
        ModelDownloadResponse,
        UploadFileResponse,
        VLLMEndpointAdditionalArgs,
    )
    from llmengine.file import File
    from llmengine.fine_tuning import FineTune
    from llmengine.model import Model
    from llmengine_core.home import set_default_engine, use

    __version__: str
else:  # hidden from type checkers, which would take every name for known

    def __getattr__(name: str) -> Any:
        if name in SUBMODULES:
            return import_module(f"llmengine.{name}")
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name == "__version__":
            value = import_module("importlib.metadata").version("llmengine-core")
        else:
            value = getattr(import_module(HOMES.get(name, "llmengine.data_types")), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return [*__all__, *SUBMODULES]
