"""How replicas start: what they are told, what is heard of them, and what becomes of those that fail."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from typing import Any

from llmengine_core.errors import ServerError
from llmengine_core.interfaces.runtime import Replica
from llmengine_core.testing.contracts.runtimes.ground import SERVE, RuntimeGround, Step, together
from llmengine_core.testing.laws import law
from llmengine_core.testing.lives import gate
from llmengine_core.types.progress import Progress

__all__ = ["StartingLaws"]

ADDED = ("address", "key", "threads", "memory")
BULK = 200_000
"""Bytes: more than a pipe holds."""
NOISE = (
    "", "loading...", "[1, 2]", "7", '"text"', "{", "{not json}", "\xff\xfe\x00", "x" * BULK, "null",
    '{"level": "info"}', '{"ready": false}', '{"a":' * 20_000,
)  # fmt: skip
"""What engines write to their standard output besides; none of it is news."""
JSON: Mapping[str, Any] = {
    "": "",
    "path": "/a b/ü\u2028.gguf",
    "numbers": [0, -1, 1e-7, 2**53, True, None],
    "deep": {"a\nb": {"'": [[], {}]}},
}


class StartingLaws(RuntimeGround):
    """Laws on ``Runtime.start``."""

    @law()
    async def test_what_is_ready_answers_at_its_endpoint(self) -> None:
        """A replica answers at its endpoint's address, to the endpoint's key and to no other."""
        async with self.replica() as (replica, _):
            endpoint = replica.endpoint
            seen = [await self.status(endpoint), await self.status(endpoint, "another")]
        assert seen == [200, 401], (
            f"asked with the endpoint's key and with another, {endpoint.address} answered {seen}, not [200, 401]"
        )

    @law()
    async def test_the_child_reads_the_document_and_four_members(self) -> None:
        """The child reads the spec's document with address, key, threads and memory added, and nothing else."""
        threads = 3
        given = {**JSON, "bulk": "é" * (BULK // 4)}
        before = json.dumps(given)
        async with self.replica(("ready", {}), document=given, threads=threads) as (replica, _):
            seen = dict(replica.endpoint.facts["seen"]["document"])
            missing = [name for name in ADDED if name not in seen and name != "key"]
            assert not missing, f"the child's document lacks {missing}; it has {sorted(seen)}"
            added = {name: seen.pop(name) for name in ADDED if name != "key"}
            assert seen == given, f"the child was given {_short(given)}, and read {_short(seen)}"
            assert json.dumps(given) == before, "start() changed the document that it was given"
            granted, memory = added["threads"], added["memory"]
            assert type(granted) is int, f"threads is {granted!r}, not a whole number"
            assert 1 <= granted <= threads, (
                f"threads is {granted}; asked were {threads}, and at least 1 is granted"
            )
            assert type(memory) is int, f"memory is {memory!r}, not a whole number of bytes"
            assert memory > 0, f"memory is {memory}, which nothing can run in"
            assert added["address"].startswith(("unix:/", "http://")), (
                f"the address to listen on is {added['address']!r}, neither unix:/... nor http://..."
            )

    @law()
    async def test_facts_are_what_the_child_said(self) -> None:
        """The further members of the child's ``ready`` line are the endpoint's facts."""
        facts = {**JSON, "progress": 1, "phase": "load", "context_length": 4096}
        async with self.replica(("ready", facts)) as (replica, _):
            found = {name: value for name, value in replica.endpoint.facts.items() if name != "seen"}
        assert found == facts, f"the child said {facts!r} of itself, and the endpoint's facts are {found!r}"

    @law()
    async def test_a_child_is_ready_when_it_says_so(self) -> None:
        """start() returns once the child is ready, not before; the loop runs on meanwhile."""
        async with self.a_life() as life:
            path, opener = await asyncio.to_thread(gate, life.path.parent)
            try:
                spec = self.spec(life, ("progress", 0.1), ("beat",), ("await_word", str(path)), *SERVE)
                starting = asyncio.ensure_future(self.start(self.runtime_given, spec))
                try:
                    assert await life.begun(2, self.starting), "the program did not run"
                    early, _ = await asyncio.wait({starting}, timeout=0.05)
                    assert not early, "start() returned while the child was still loading"
                    await asyncio.to_thread(os.write, opener, b".")
                    await (await starting).aclose()
                finally:
                    starting.cancel()
            finally:
                await asyncio.to_thread(os.close, opener)

    @law()
    async def test_progress_is_passed_on(self) -> None:
        """What the child says of its progress until it is ready is passed on, in order, under the spec's subject."""
        told = [("load", 0.25), ("load", 0.5), ("warm", 1.0)]
        heard: list[Progress] = []
        steps: list[Step] = [("progress", done, phase) for phase, done in told]
        async with self.replica(*steps, ("ready", {}), on_progress=heard.append):
            pass
        seen = [(each.phase, each.done / (each.total or 1.0)) for each in heard if each.subject == "tiny"]
        rest = iter(seen)
        assert all(each in rest for each in told), (
            f"the child said {told} of its progress, and this was passed on: {heard}"
        )

    @law()
    async def test_noise_on_standard_output_is_harmless(self) -> None:
        """What else a child writes to its standard output is no news, and no harm."""
        noise: Step = ("say", "\n".join([*NOISE, '{"progress": 0.5}', *NOISE]))
        heard: list[Progress] = []
        async with self.replica(noise, *SERVE, noise, on_progress=heard.append) as (replica, _):
            status = await self.status(replica.endpoint)
        assert status == 200, f"after lines that are no news the replica answered {status}, not 200"
        seen = [each.done / (each.total or 1.0) for each in heard if each.subject == "tiny"]
        assert set(seen) == {0.5}, (
            f"between lines that are no news it said progress 0.5, and this was passed on: {heard}"
        )

    @law()
    async def test_a_talkative_child_is_not_held_up(self) -> None:
        """A child may log without end, before it is ready and after."""
        flood: Step = ("flood", 4 * BULK)
        async with self.replica(flood, *SERVE, flood, ("beat",)) as (replica, life):
            assert await life.begun(2, self.starting), (
                f"the replica wrote {4 * BULK:,} bytes to each of its outputs, and was held up: nobody reads them"
            )
            assert await self.status(replica.endpoint) == 200, "it answered no more after it had logged a lot"

    @law()
    async def test_replicas_are_independent(self) -> None:
        """Each replica has an address and a key of its own, and the end of one is not another's."""
        async with self.a_life() as one, self.a_life() as two, self.a_life() as three:
            replicas = await together(
                *(self.start(self.runtime_given, self.spec(life, *SERVE)) for life in (one, two, three))
            )
            try:
                ends = [replica.endpoint for replica in replicas]
                assert len({end.address for end in ends}) == 3, f"replicas share an address: {ends}"
                assert len({end.key for end in ends}) == 3, "replicas share a key"
                assert await self.status(ends[0], ends[1].key) == 401, "a replica took another's key"
                await self.ended(replicas[0])
                left = [await self.status(end) for end in ends[1:]]
                assert left == [200, 200], f"one of three replicas was ended; the others answered {left}"
            finally:
                await asyncio.gather(*(replica.aclose() for replica in replicas))

    # -- starts that fail ------------------------------------------------------------------------------------

    @law()
    async def test_a_child_that_ends_early_is_an_error_with_its_words(self) -> None:
        """A child that ends before it is ready is a ServerError that carries the child's last words."""
        words = "error loading model: tensor 'blk.0' is bad"
        cases: tuple[tuple[tuple[Step, ...], str], ...] = (
            ((("log", words), ("leave", 1)), words),
            ((("flood", BULK), ("log", words), ("leave", 3)), words),
            ((("log", words), ("die", signal.SIGKILL)), words),
            ((("progress", 0.5), ("leave", 0)), ""),
        )
        said = await together(*(self.refused(*steps) for steps, _ in cases))
        for (steps, wanted), message in zip(cases, said, strict=True):
            assert wanted in message, (
                f"a child that did {steps} was ended before it was ready; the error doesn't carry its last words "
                f"{wanted!r}: {message[:500]!r}"
            )

    @law()
    async def test_noise_of_logs_is_left_out_of_reasons(self) -> None:
        """What ``log_noise`` names is left out of the reason, and so are lines that say nothing else."""
        steps = (("log", "12.5 E the tensor is bad"), ("log", "12.6 E failed"), ("leave", 1))
        message = await self.refused(*steps, log_noise=r"^[\d.]+ E (failed)?")
        assert "the tensor is bad" in message, f"the reason is missing: {message!r}"
        assert "12.5 E" not in message, f"what the spec calls noise is in the reason: {message!r}"
        message = await self.refused(("log", "12.6 E failed"), ("leave", 1), log_noise=r"^[\d.]+ E (failed)?")
        assert "failed" in message, (
            f"all that was said is noise, and none of it is in the reason: {message!r}"
        )

    @law()
    async def test_a_program_that_is_not_there_is_an_error(self) -> None:
        """A program that can't be run is a ServerError."""
        async with self.a_life() as life:
            spec = self.spec(life)
            object.__setattr__(spec, "argv", ("/nowhere/engine", "--serve"))
            await self.refusal(spec)

    @law()
    async def test_a_failed_start_leaves_nothing(self) -> None:
        """Of a child that ends before it is ready, what it has started ends too."""
        async with self.a_life() as life:
            await self.refusal(self.spec(life, ("descend",), ("leave", 1)))
            await self.gone(life, "a start that failed")

    async def refused(self, *steps: Step, **fields: Any) -> str:
        """What a start that must fail says."""
        async with self.a_life() as life:
            return await self.refusal(self.spec(life, *steps, **fields))

    async def refusal(self, spec: Any) -> str:
        """The same for a whole spec."""
        replica: Replica | None = None
        try:
            replica = await self.start(self.runtime_given, spec)
        except ServerError as error:
            return str(error)
        except AssertionError:
            raise
        except Exception as error:
            raise AssertionError(
                f"a start that can't succeed raised {type(error).__name__}({error}), not a ServerError"
            ) from error
        await replica.aclose()
        raise AssertionError("start() gave a replica of a child that had ended before it was ready")


def _short(document: dict[str, Any]) -> str:
    said = repr(document)
    return said if len(said) < 400 else f"{said[:200]} ... {said[-200:]}"
