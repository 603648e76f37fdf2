"""A language model small enough to read, with a real distribution: what a session has to do, on one page.

Each next token's logits are a checksum of the three before it, with a liking for what was said lately. It honours
everything that can be declared; constraints where it is given a checker. The module is a plugin: the backend
``toy`` serves the model ``toy``.
"""

from __future__ import annotations

import asyncio
import codecs
import math
import random
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from zlib import crc32

from llmengine_core.deadlines import Watch
from llmengine_core.errors import BadRequestError, ServerError
from llmengine_core.gate import refuse_undeclared
from llmengine_core.hookspecs import hookimpl
from llmengine_core.interfaces.backend import Backend, Session
from llmengine_core.interfaces.guided import GuidedDecoder
from llmengine_core.stops import StopMatcher
from llmengine_core.testing.toy_tokens import END, LIKELY, NUMBERS, PIECES, RARE, continuing, utf8_start
from llmengine_core.types.capabilities import Capabilities
from llmengine_core.types.declarations import BackendInfo
from llmengine_core.types.generation import (
    FinishReason,
    GenerationChunk,
    GenerationRequest,
    Prompt,
    SessionFacts,
    Text,
    Token,
    TokenIds,
    Usage,
)
from llmengine_core.types.launch import Deployment, Endpoint, LaunchSpec
from llmengine_core.types.models import ModelCard, WeightsSource
from llmengine_core.types.sampling import SamplingParams, StructuredOutput

__all__ = ["CAPABILITIES", "CONTRACT", "DECLARED", "ToyBackend", "ToySession"]

CONTRACT = 1
CONTEXT_LENGTH = 4096
CAPABILITIES = Capabilities(
    logprobs=True,
    presence_penalty=True,
    frequency_penalty=True,
    top_k=True,
    top_p=True,
    seed=True,
    structured=frozenset({"json", "regex", "choice", "grammar"}),
    structured_dialect="llguidance",
    token_ids=True,
    messages=True,
    adapters="dynamic",
    batch_invariant=True,
    cancels_prefill=True,
)
DECLARED = replace(CAPABILITIES, structured=frozenset(), structured_dialect=None)
"""What the backend ``toy`` declares: nothing checks constraints for it."""

ENDING = 0.5
"""Added to the logit of the end: most answers end by themselves within 50 tokens."""
LIKING = 1.5
"""Added to the logit of what is among the last few tokens."""


class ToySession(Session):
    """One toy. Mutants of it prove what the kit's laws catch."""

    def __init__(
        self, capabilities: Capabilities = DECLARED, *, decoder: GuidedDecoder | None = None
    ) -> None:
        self._facts = SessionFacts(
            CONTEXT_LENGTH, capabilities, {"toy": "1"}, prompt_token_overhead=0, longest_token=5
        )
        self._decoder = decoder
        self._adapters: dict[str, int] = {}
        self._live: set[asyncio.Event] = set()
        self._closed = False

    @property
    def facts(self) -> SessionFacts:
        return self._facts

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        refuse_undeclared(request, self.facts.capabilities, who="the toy")
        if self._closed:
            raise ServerError("the session is closed")
        closed = asyncio.Event()
        self._live.add(closed)
        watch = Watch(request.deadline, None)
        try:
            with watch:
                await asyncio.sleep(0)
            for chunk in self.answer(request, closed):
                yield chunk
                if chunk.finish_reason is None:
                    with watch:
                        await self.pause()
        finally:
            self._live.discard(closed)
            watch.close()

    async def pause(self) -> None:
        """Between two tokens."""
        await asyncio.sleep(0)

    def answer(self, request: GenerationRequest, closed: asyncio.Event) -> Iterator[GenerationChunk]:
        """The chunks of an answer; it is cut short once ``closed`` is set."""
        sampling = request.sampling
        prompt = self.encode(request.prompt)
        if len(prompt) >= self.facts.context_length:
            raise BadRequestError(
                f"a prompt of {len(prompt)} tokens leaves no room in {self.facts.context_length}"
            )
        matcher = StopMatcher(sampling.stop, sampling.include_stop)
        decoder = codecs.getincrementaldecoder("utf-8")()
        generated: list[int] = []
        for token, logprob in self.tokens(request, prompt, generated):
            generated.append(token)
            piece = "" if token == END else decoder.decode(PIECES[token])
            shown = matcher.feed(piece)
            one = Token(token, piece, b"" if token == END else PIECES[token], logprob)
            reason: FinishReason | None = None
            if token == END or matcher.stopped:
                reason = "stop"
            elif (
                len(generated) == sampling.max_tokens
                or len(prompt) + len(generated) >= self.facts.context_length
            ):
                reason = "length"
            elif closed.is_set():
                reason = "cancelled"
            if reason is not None:
                shown += matcher.flush()
                yield GenerationChunk(shown, (one,), reason, Usage(len(prompt), len(generated)))
                return
            yield GenerationChunk(shown, (one,))

    def tokens(
        self, request: GenerationRequest, prompt: tuple[int, ...], generated: list[int]
    ) -> Iterator[tuple[int, float | None]]:
        """Tokens for ever, each with its log prob under the raw distribution; ``generated`` grows with them."""
        sampling = request.sampling
        salt = self.salt(request)
        chance = random.Random(sampling.seed)
        so_far = b""
        while True:
            going_on = continuing(so_far)
            logits = {
                token: logit
                for token, logit in self.logits((*prompt, *generated), salt).items()
                if token in going_on
            }
            total = math.log(sum(map(math.exp, logits.values())))
            token = self.choose(request, penalized(logits, generated, sampling), so_far, chance)
            so_far += b"" if token == END else PIECES[token]
            yield token, logits[token] - total if sampling.logprobs else None

    def salt(self, request: GenerationRequest) -> int:
        """What an adapter adds to the model's state."""
        if request.adapter is None:
            return 0
        if request.adapter not in self._adapters:
            raise BadRequestError(f"there is no adapter {request.adapter!r}")
        return self._adapters[request.adapter]

    def logits(self, tokens: tuple[int, ...], salt: int) -> Mapping[int, float]:
        """Of each token that may come next."""
        state = crc32(repr((tokens[-3:], salt)).encode())
        lately = set(tokens[-8:])
        found = RARE | {each: 6 * (crc32(b"%d" % each, state) % 1000 / 1000) ** 2 for each in (*LIKELY, END)}
        for each in lately & found.keys():
            found[each] += LIKING
        found[END] += ENDING
        return found

    def choose(
        self, request: GenerationRequest, logits: Mapping[int, float], so_far: bytes, chance: random.Random
    ) -> int:
        """One token, drawn as ``sampling`` has it from those that UTF-8 and the constraint allow."""
        sampling = request.sampling
        left = dict(sorted(logits.items(), key=lambda each: -each[1]))
        if sampling.temperature > 0:
            highest = next(iter(left.values()))
            scaled = {each: (logit - highest) / sampling.temperature for each, logit in left.items()}
            left = likeliest(scaled, sampling)
        spare = dict(sorted(logits.items(), key=lambda each: -each[1]))
        while left:
            if sampling.temperature > 0:
                highest = max(left.values())
                weights = [math.exp(each - highest) if each > -math.inf else 0 for each in left.values()]
                (token,) = chance.choices(list(left), weights)
            else:
                token = next(iter(left))
            if self.allowed(request, so_far, token):
                return token
            del left[token]
            spare.pop(token, None)
            left = left or spare  # the constraint forbids all that were likely
        return END

    def allowed(self, request: GenerationRequest, so_far: bytes, token: int) -> bool:
        """Whether the text may go on with a token."""
        structured = request.structured
        if token == END:
            text = utf8_start(so_far)
            if text is None or text.encode() != so_far:
                return False  # within a character
            if structured is None or self._decoder is None:
                return True
            return self._decoder.verify(structured, text, complete=True)
        text = utf8_start(so_far + PIECES[token])
        if text is None:
            return False
        if structured is None or self._decoder is None:
            return True
        return any(
            self._decoder.verify(structured, text + each, complete=False)
            for each in further(structured, text, (so_far + PIECES[token])[len(text.encode()) :])
        )

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        """The tokens of a prompt: the longest pieces from the left."""
        if isinstance(prompt, TokenIds):
            if any(not 0 <= each < END for each in prompt.ids):
                raise BadRequestError(f"token ids are 0 to {END - 1}")
            return prompt.ids
        text = (
            prompt.text
            if isinstance(prompt, Text)
            else "".join(f"{m.role}: {m.content}\n" for m in prompt.messages)
        )
        data, found = text.encode(), []
        while data:
            piece = next(each for size in range(5, 0, -1) if (each := data[:size]) in NUMBERS)
            found.append(NUMBERS[piece])
            data = data[len(piece) :]
        return tuple(found)

    async def count_tokens(self, prompt: Prompt) -> int:
        return len(self.encode(prompt))

    async def load_adapter(self, name: str, path: str) -> None:
        try:
            self._adapters[name] = crc32(await asyncio.to_thread(Path(path, "adapter").read_bytes)) or 1
        except OSError as error:
            raise BadRequestError(f"there is no adapter in {path}: {error.strerror}") from error

    async def unload_adapter(self, name: str) -> None:
        with suppress(KeyError):
            del self._adapters[name]

    async def aclose(self) -> None:
        self._closed = True
        for each in self._live:
            each.set()


def penalized(
    logits: Mapping[int, float], generated: list[int], sampling: SamplingParams
) -> dict[int, float]:
    """Logits less the penalties on what was generated."""
    left = dict(logits)
    for token, times in Counter(generated).items():
        if token in left:
            left[token] -= sampling.presence_penalty + times * sampling.frequency_penalty
    return left


def likeliest(logits: Mapping[int, float], sampling: SamplingParams) -> dict[int, float]:
    """Those that ``top_k`` and ``top_p`` leave, of logits in falling order."""
    kept = dict(list(logits.items())[: sampling.top_k])
    highest = max(kept.values(), default=0.0)
    total = sum(math.exp(logit - highest) for logit in kept.values())
    found: dict[int, float] = {}
    reached = 0.0
    for token, logit in kept.items():
        found[token] = logit
        reached += math.exp(logit - highest) / total
        if reached >= sampling.top_p:
            break
    return found


@lru_cache(64)
def beyond_ascii(value: str | tuple[str, ...]) -> frozenset[str]:
    """The characters of several bytes that a constraint names: those that a first byte may stand for."""
    return frozenset(each for each in "".join(value) if not each.isascii())


def further(structured: StructuredOutput, text: str, rest: bytes) -> Iterable[str]:
    """What text must go on with, by one of these, for its last characters to be whole; ``rest`` begins one.

    Of JSON a checker accepts half an escape, whether or not another half fits.
    """
    if rest:
        return [each for each in beyond_ascii(structured.value) if each.encode().startswith(rest)]
    if structured.kind == "json":
        if (len(text) - len(text.rstrip("\\"))) % 2:
            return '"\\/bfnrt'
        before = text.removesuffix("u")
        if text != before and (len(before) - len(before.rstrip("\\"))) % 2:
            return ""
    return [""]


class ToyBackend(Backend):
    """Needs no server."""

    def launch(self, deployment: Deployment) -> LaunchSpec | None:
        return None

    async def connect(self, endpoint: Endpoint, deployment: Deployment) -> Session:
        return ToySession()


@hookimpl
def register_backends() -> list[BackendInfo]:
    """The backend ``toy``."""
    return [
        BackendInfo(
            name="toy",
            factory="llmengine_core.testing.toy:ToyBackend",
            priority=900,
            capabilities=DECLARED,
            formats=frozenset({"gguf"}),
            architectures=frozenset({"echo"}),
        )
    ]


@hookimpl
def register_models() -> list[ModelCard]:
    """The model ``toy``."""
    return [
        ModelCard(
            name="toy",
            sources=(WeightsSource(url="package://llmengine_core/testing/echo.gguf", format="gguf"),),
            parameters=1,
            context_length=CONTEXT_LENGTH,
            license="Apache-2.0",
            description="a language model of one page",
        )
    ]
