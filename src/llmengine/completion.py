"""Text completions."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from llmengine.api_engine import APIEngine, get_caller
from llmengine.data_types.completion import CompletionSyncResponse
from llmengine.streams import AsyncCompletionStream, CompletionStream
from llmengine_core.arguments.checks import boolean, headers
from llmengine_core.arguments.completion import COMPLETION_TIMEOUT, ClientOnly, parse_completion
from llmengine_core.arguments.jobs import check_batch
from llmengine_core.errors import UnsupportedFeatureError
from llmengine_core.responses import completion_response
from llmengine_core.sync import acall, call

if TYPE_CHECKING:
    from llmengine.data_types.batch import (
        BatchCompletionContent,
        BatchCompletionsModelConfig,
        CreateBatchCompletionsV1Response,
        CreateBatchCompletionsV2Response,
        ToolConfig,
    )

__all__ = ["COMPLETION_TIMEOUT", "Completion"]


class Options(ClientOnly, total=False):
    """What ``create`` also takes by keyword."""

    stop_sequences: list[str] | None
    return_token_log_probs: bool | None
    presence_penalty: float | None
    frequency_penalty: float | None
    top_k: int | None
    top_p: float | None
    include_stop_str_in_output: bool | None
    guided_json: dict[str, Any] | None
    guided_regex: str | None
    guided_choice: list[str] | None
    guided_grammar: str | None
    timeout: float
    request_headers: dict[str, str] | None


class Completion(APIEngine):
    """Text completions: a prompt goes in as it is, text comes out, whole or as it is generated.

    Example::

        from llmengine import Completion

        response = Completion.create(
            model="smollm2-135m-instruct",
            prompt="The capital of France is",
            max_new_tokens=10,
            temperature=0.0,
        )
        print(response.output.text)
    """

    @overload
    @classmethod
    def create(
        cls,
        model: str,
        prompt: str,
        max_new_tokens: int = 20,
        temperature: float = 0.2,
        *,
        stream: Literal[False] = False,
        **options: Unpack[Options],
    ) -> CompletionSyncResponse: ...

    @overload
    @classmethod
    def create(
        cls,
        model: str,
        prompt: str,
        max_new_tokens: int = 20,
        temperature: float = 0.2,
        *,
        stream: Literal[True],
        **options: Unpack[Options],
    ) -> CompletionStream: ...

    @overload
    @classmethod
    def create(
        cls,
        model: str,
        prompt: str,
        max_new_tokens: int = 20,
        temperature: float = 0.2,
        *,
        stream: bool,
        **options: Unpack[Options],
    ) -> CompletionSyncResponse | CompletionStream: ...

    @classmethod
    def create(
        cls,
        model: str,
        prompt: str,
        max_new_tokens: int = 20,
        temperature: float = 0.2,
        stop_sequences: list[str] | None = None,
        return_token_log_probs: bool | None = False,
        presence_penalty: float | None = None,
        frequency_penalty: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        include_stop_str_in_output: bool | None = None,
        guided_json: dict[str, Any] | None = None,
        guided_regex: str | None = None,
        guided_choice: list[str] | None = None,
        guided_grammar: str | None = None,
        timeout: float = COMPLETION_TIMEOUT,
        stream: bool = False,
        request_headers: dict[str, str] | None = None,
        **client_only: Unpack[ClientOnly],
    ) -> CompletionSyncResponse | CompletionStream:
        """Complete a prompt; waits for the whole answer, or with ``stream=True`` for its pieces.

        Args:
            model: the name of a model, as ``Model.list`` gives it.
            prompt: non-empty; sent as it is, no chat template is put around it.
            max_new_tokens: most tokens to generate, at least 1. With the prompt's tokens it must fit the
                model's context length.
            temperature: 0 to 1; 0 is greedy.
            stop_sequences: non-empty texts at whose first appearance the answer ends, without them.
            return_token_log_probs: give each token with its log probability.
            presence_penalty: 0 to 2, against tokens that have appeared in the answer; None is 0.
            frequency_penalty: 0 to 2, against tokens by how often they have; None is 0.
            top_k: choose among this many likeliest tokens, at least 1; -1 and None are all.
            top_p: choose among the likeliest tokens of this total probability, above 0 to 1; None is 1.
            include_stop_str_in_output: keep the stop sequence at the answer's end.
            guided_json: a JSON Schema that the answer obeys.
            guided_regex: a regular expression that the whole answer matches.
            guided_choice: texts of which the answer is one.
            guided_grammar: a Lark or GBNF grammar that the answer obeys. At most one ``guided_*``.
            timeout: seconds for the whole call, waiting for the model included.
            stream: give the answer in pieces: an iterator and context manager.
            request_headers: sent along as HTTP headers; observers see them.

        Raises:
            BadRequestError: an argument is out of its range, or prompt and answer don't fit.
            UnsupportedFeatureError: the model's backend can't honour an argument.
            NotFoundError: there is no such model.
            RequestTimeoutError: ``timeout`` ran out. Once a stream has begun, it is the last piece's ``error``.

        Example::

            from llmengine import Completion

            stream = Completion.create(
                model="smollm2-135m-instruct", prompt="Why is the sky blue?", max_new_tokens=5, stream=True
            )
            for response in stream:
                if response.output:
                    print(response.output.text, end="")
        """
        arguments = parse_completion(
            model=model,
            prompt=prompt,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            stop_sequences=stop_sequences,
            return_token_log_probs=return_token_log_probs,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            top_k=top_k,
            top_p=top_p,
            include_stop_str_in_output=include_stop_str_in_output,
            guided_json=guided_json,
            guided_regex=guided_regex,
            guided_choice=guided_choice,
            guided_grammar=guided_grammar,
            timeout=timeout,
            request_headers=request_headers,
            **client_only,
        )
        streamed = boolean("stream", stream)
        engine, caller = cls._engine(), get_caller()
        if streamed:
            return CompletionStream(engine, arguments, caller=caller)
        create = partial(engine.completions.create, arguments, caller=caller)
        done = call(engine, create, instead="Completion.acreate")
        response = completion_response(done, log_probs=arguments.sampling.logprobs)
        return CompletionSyncResponse.model_validate(response)

    @overload
    @classmethod
    async def acreate(
        cls,
        model: str,
        prompt: str,
        max_new_tokens: int = 20,
        temperature: float = 0.2,
        *,
        stream: Literal[False] = False,
        **options: Unpack[Options],
    ) -> CompletionSyncResponse: ...

    @overload
    @classmethod
    async def acreate(
        cls,
        model: str,
        prompt: str,
        max_new_tokens: int = 20,
        temperature: float = 0.2,
        *,
        stream: Literal[True],
        **options: Unpack[Options],
    ) -> AsyncCompletionStream: ...

    @overload
    @classmethod
    async def acreate(
        cls,
        model: str,
        prompt: str,
        max_new_tokens: int = 20,
        temperature: float = 0.2,
        *,
        stream: bool,
        **options: Unpack[Options],
    ) -> CompletionSyncResponse | AsyncCompletionStream: ...

    @classmethod
    async def acreate(
        cls,
        model: str,
        prompt: str,
        max_new_tokens: int = 20,
        temperature: float = 0.2,
        stop_sequences: list[str] | None = None,
        return_token_log_probs: bool | None = False,
        presence_penalty: float | None = None,
        frequency_penalty: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        include_stop_str_in_output: bool | None = None,
        guided_json: dict[str, Any] | None = None,
        guided_regex: str | None = None,
        guided_choice: list[str] | None = None,
        guided_grammar: str | None = None,
        timeout: float = COMPLETION_TIMEOUT,
        stream: bool = False,
        request_headers: dict[str, str] | None = None,
        **client_only: Unpack[ClientOnly],
    ) -> CompletionSyncResponse | AsyncCompletionStream:
        """``create`` for asyncio. With ``stream=True`` it is awaited first, then iterated with ``async for``.

        Example::

            import asyncio
            from llmengine import Completion

            async def main():
                response = await Completion.acreate(
                    model="smollm2-135m-instruct", prompt="Hello, my name is", max_new_tokens=10
                )
                print(response.json())

            asyncio.run(main())
        """
        arguments = parse_completion(
            model=model,
            prompt=prompt,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            stop_sequences=stop_sequences,
            return_token_log_probs=return_token_log_probs,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            top_k=top_k,
            top_p=top_p,
            include_stop_str_in_output=include_stop_str_in_output,
            guided_json=guided_json,
            guided_regex=guided_regex,
            guided_choice=guided_choice,
            guided_grammar=guided_grammar,
            timeout=timeout,
            request_headers=request_headers,
            **client_only,
        )
        streamed = boolean("stream", stream)
        engine, caller = await cls._aengine(), get_caller()
        if streamed:
            return await AsyncCompletionStream.open(engine, arguments, caller=caller)
        done = await acall(engine, partial(engine.completions.create, arguments, caller=caller))
        response = completion_response(done, log_probs=arguments.sampling.logprobs)
        return CompletionSyncResponse.model_validate(response)

    @classmethod
    def batch_create(
        cls,
        output_data_path: str,
        model_config: BatchCompletionsModelConfig,
        content: BatchCompletionContent | None = None,
        input_data_path: str | None = None,
        data_parallelism: int = 1,
        max_runtime_sec: int = 24 * 3600,
        labels: dict[str, str] | None = None,
        priority: str | None = None,
        use_v2: bool = False,
        tool_config: ToolConfig | None = None,
        request_headers: dict[str, str] | None = None,
        *,
        cpus: int | None = None,
        gpus: int | None = None,
        memory: str | None = None,
        gpu_type: str | None = None,
        storage: str | None = None,
        nodes_per_worker: int | None = None,
    ) -> CreateBatchCompletionsV1Response | CreateBatchCompletionsV2Response:
        """Complete many prompts in a job that outlives its caller. Not in this version.

        Raises:
            BadRequestError: an argument is out of its range.
            UnsupportedFeatureError: always, once the arguments are right.
        """
        check_batch(
            output_data_path=output_data_path,
            content=content,
            input_data_path=input_data_path,
            data_parallelism=data_parallelism,
            max_runtime_sec=max_runtime_sec,
            labels=labels,
            priority=priority,
        )
        headers("request_headers", request_headers)
        raise UnsupportedFeatureError(
            "Completion.batch_create needs jobs that outlive their caller, which a later version of llmengine "
            "brings; until then call Completion.create for each prompt"
        )
