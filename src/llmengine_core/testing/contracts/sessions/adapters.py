"""Laws of sessions: adapters on a shared base."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from uuid import uuid4

from llmengine_core.errors import BadRequestError
from llmengine_core.testing.answers import Answer, ask, request
from llmengine_core.testing.contracts.sessions.comparing import ComparingGround
from llmengine_core.testing.laws import NotApplicable, law
from llmengine_core.types.generation import GenerationChunk, GenerationRequest

__all__ = ["AdapterLaws"]

PROMPTS = ("Once upon a time", "The capital of France is", "1, 2, 3,", "A")
TOKENS = 8


class AdapterLaws(ComparingGround):
    """Adapters come and go beside each other and their base, and each answers its own requests alone."""

    @law(level="adapters")
    def test_declared_adapters_can_be_tried(self) -> None:
        """Whoever declares dynamic adapters names some for these laws."""
        if self.declared().adapters == "dynamic":
            assert self.adapters, (
                "dynamic adapters are declared, and none is there to try: set `adapters` of this contract to folders "
                "by name, of two adapters that differ and that the model takes"
            )

    @law(level="adapters")
    async def test_an_adapter_changes_what_is_said(self) -> None:
        """With an adapter the model says something else than without, and than with another one."""
        async with self._loaded() as names:
            seen = {name: [await self._said(prompt, name) for prompt in PROMPTS] for name in (None, *names)}
        for one in seen:
            for other in seen:
                assert one == other or seen[one] != seen[other], (
                    f"with the adapters {one} and {other} (None is the base) the answers to {list(PROMPTS)} are the "
                    f"same: {[text for text, _ in seen[one]]}"
                )

    @law("C14", level="adapters", weight=0.2)
    async def test_c14_adapters_answer_at_once_as_they_do_alone(self, prompt: str) -> None:
        """Requests of several adapters and of their base at once are answered as each is alone."""
        async with self._loaded() as names:
            asked = [await self._asked(prompt, name) for name in (*names, None, *names)]
            alone = [await ask(self.session, each) for each in asked]
            beside = await asyncio.gather(*(ask(self.session, each) for each in asked))
        for each, one, other in zip(asked, alone, beside, strict=True):
            self.agree(one, other, f"the adapter {each.adapter} answers {prompt!r} otherwise among others")

    @law("C14", level="adapters", weight=0.2)
    async def test_c14_an_adapter_leaves_its_base_as_it_was(self, prompt: str) -> None:
        """The base answers the same before an adapter is loaded, after it was used, and once it is unloaded."""
        base = await self._asked(prompt, None)
        before = await ask(self.session, base)
        async with self._loaded() as names:
            loaded = await ask(self.session, base)
            for name in names:
                await ask(self.session, await self._asked(prompt, name))
            used = await ask(self.session, base)
        after = await ask(self.session, base)
        for when, answer in {"loaded": loaded, "used": used, "unloaded": after}.items():
            self.agree(before, answer, f"the base's answer to {prompt!r} changed once adapters were {when}")

    @law(level="adapters", weight=0.2)
    async def test_an_adapter_that_was_unloaded_is_forgotten(self, prompt: str) -> None:
        """An unloaded adapter is a BadRequestError, never the base's answer; loaded again it is what it was."""
        name = next(iter(self.adapters), "")
        asked = await self._asked(prompt, name)
        answers: list[Answer] = []
        for _ in range(2):
            async with self._loaded():
                answers.append(await ask(self.session, asked))
            await self._is_refused(asked)
        one, other = answers
        self.agree(one, other, f"the adapter {name} answers {prompt!r} otherwise once it is loaded again")

    @law(level="adapters", weight=0.2)
    async def test_a_name_is_of_the_adapter_loaded_last(self, prompt: str) -> None:
        """A name that is given to another adapter, once the first is unloaded, means that one."""
        folders = list(self.adapters.values())
        async with self._loaded() as names:
            own = await ask(self.session, await self._asked(prompt, names[-1]))
        found = None
        for folder in (folders[0], folders[-1]):
            async with self._loaded({"again": folder}):
                found = await ask(self.session, await self._asked(prompt, "again"))
        if found is not None:
            self.agree(
                own,
                found,
                f"the name of an unloaded adapter, given to {names[-1]}, answers {prompt!r} otherwise",
            )

    @law(level="adapters")
    async def test_an_adapter_that_is_not_there_is_refused(self) -> None:
        """Loading a folder that doesn't exist, or holds no adapter, is a BadRequestError, and harms nothing."""
        self._dynamic()
        base = await self._asked(PROMPTS[0], None)
        before = await ask(self.session, base)
        empty = await asyncio.to_thread(tempfile.mkdtemp)
        try:
            for number, path in enumerate((f"{empty}/{uuid4().hex}", empty)):
                name = f"absent-{number}"
                try:
                    await self.session.load_adapter(name, path)
                except BadRequestError:
                    pass
                else:
                    await self.session.unload_adapter(name)
                    raise AssertionError(f"an adapter was loaded from {path}, where there is none")
                await self._is_refused(await self._asked(PROMPTS[0], name))
        finally:
            await asyncio.to_thread(Path(empty).rmdir)
        after = await ask(self.session, base)
        self.agree(before, after, "the base's answer changed once an adapter could not be loaded")

    @law(level="adapters", weight=0.2)
    async def test_requests_end_before_their_adapter_is_unloaded(self, prompt: str) -> None:
        """An answer that has begun goes on to its end as it would, though its adapter is unloaded meanwhile."""
        async with self._loaded() as names:
            asked = await self._asked(prompt, names[0])
            alone = await ask(self.session, asked)
            async with aclosing(self.session.generate(asked)) as stream:
                chunks = [await anext(stream)]
                _, rest = await asyncio.gather(self.session.unload_adapter(names[0]), _rest(stream))
            self.agree(
                alone,
                Answer((*chunks, *rest)),
                f"unloading {names[0]} under an answer to {prompt!r} changed it",
            )
            await self._is_refused(asked)
            await self.session.load_adapter(names[0], self.adapters[names[0]])

    # ---------------------------------------------------------------------------------------------- how

    def _dynamic(self) -> None:
        if self.capabilities.adapters != "dynamic":
            raise NotApplicable("adapters can't be loaded while it runs")

    @asynccontextmanager
    async def _loaded(self, folders: dict[str, str] | None = None) -> AsyncIterator[list[str]]:
        """The names of all adapters, or those of ``folders``, loaded meanwhile."""
        if not self.adapters:
            raise NotApplicable("no adapters are there to try")
        self._dynamic()
        wanted = dict(self.adapters) if folders is None else folders
        done: list[str] = []
        try:
            for name, path in wanted.items():
                await self.session.load_adapter(name, path)
                done.append(name)
            yield done
        finally:
            for name in done:
                await self.session.unload_adapter(name)

    async def _asked(self, prompt: str, adapter: str | None) -> GenerationRequest:
        logprobs = self.capabilities.logprobs
        return await self.fitted(request(prompt, adapter=adapter, max_tokens=TOKENS, logprobs=logprobs))

    async def _said(self, prompt: str, adapter: str | None) -> tuple[str, list[float | None]]:
        answer = await ask(self.session, await self._asked(prompt, adapter))
        return answer.text, answer.logprobs

    async def _is_refused(self, asked: GenerationRequest) -> None:
        try:
            answer = await ask(self.session, asked)
        except BadRequestError:
            return
        raise AssertionError(
            f"the adapter {asked.adapter}, which is not loaded, answered {answer.text!r} instead of a BadRequestError"
        )


async def _rest(stream: AsyncIterator[GenerationChunk]) -> list[GenerationChunk]:
    return [chunk async for chunk in stream]
