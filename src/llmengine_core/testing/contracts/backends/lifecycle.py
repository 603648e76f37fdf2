"""What every backend promises of its replicas: how they start, end, fail and are killed."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import re
import threading
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hypothesis import strategies as st

from llmengine_core.errors import BadRequestError, LLMEngineError, ServerError
from llmengine_core.interfaces.backend import Session
from llmengine_core.interfaces.runtime import Runtime
from llmengine_core.members import Member
from llmengine_core.testing.answers import Answer, ask
from llmengine_core.testing.contracts.backends.lifecycle_ground import LifecycleGround
from llmengine_core.testing.contracts.sessions.streams import Late, Stream, within
from llmengine_core.testing.laws import NotApplicable, law
from llmengine_core.testing.leaks import descendants, own_folder
from llmengine_core.types.launch import Deployment, LaunchSpec

__all__ = ["BackendLifecycleContract"]

QUICK = 2.0
"""Seconds of a call that is quick, on a busy machine."""
CANARY = "a-secret-that-nobody-may-see"
SECRETS = (
    "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "SCALE_API_KEY",
    "LLMENGINE_DATABASE_URL", "WANDB_API_KEY",
)  # fmt: skip
"""Variables that hold secrets."""
SECRET_OPTION = re.compile(
    r"--?(?:[a-z]+[-_])*(?:api[-_]?key|auth[-_]token|secret|password)(?:=.*)?", re.IGNORECASE
)


class BackendLifecycleContract(LifecycleGround):
    """A backend's laws that start engines of their own: few, since each start may take long::

    class TestSampleLifecycle(BackendLifecycleContract):
        backend = "sample"
        model = "echo"
    """

    # -- launch

    @law(per_worker=st.integers(1, 4), context_length=st.sampled_from([None, 64, 256]), weight=0.4)
    def test_launch_says_the_same_each_time(self, per_worker: int, context_length: int | None) -> None:
        """``launch`` depends on the deployment and on nothing else: equal ones are launched alike."""
        first, again = (self._launch(self._deployment(per_worker, context_length)) for _ in range(2))
        assert first == again, f"two calls of launch for equal deployments gave {first} and {again}"

    @law(per_worker=st.integers(1, 4), context_length=st.sampled_from([None, 64, 256]), weight=0.2)
    def test_launch_gives_what_a_runtime_can_carry_out(
        self, per_worker: int, context_length: int | None
    ) -> None:
        """A launch spec is data: an absolute program, a document of JSON, and quantities that can be had."""
        spec = self._launch(self._deployment(per_worker, context_length))
        if spec is None:
            raise NotApplicable("somebody else runs its server")
        assert spec.argv, f"the launch spec names no program: {spec}"
        assert os.path.isabs(spec.argv[0]), (
            f"the program of a launch spec is an absolute path, not {spec.argv[0]!r}"
        )
        texts = [*spec.argv, *spec.env, *spec.env.values(), spec.subject, spec.log_noise]
        wrong = [each for each in texts if type(each) is not str]
        assert not wrong, f"arguments and variables are texts; {wrong} are not"
        try:
            json.dumps(dict(spec.document), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise AssertionError(
                f"the document of a launch spec is no JSON ({error}): {spec.document!r}"
            ) from error
        assert spec.resources.threads >= 1, (
            f"a replica computes on at least one thread, not {spec.resources.threads}"
        )
        re.compile(spec.log_noise)

    @law()
    def test_launch_starts_nothing_and_is_quick(self) -> None:
        """``launch`` comes back soon, and no process, thread or open file is there that was not before."""
        self._launch(self._deployment(1, None))  # what is imported the first time is no business of this law
        before = (set(descendants()), _threads(), _open_files())
        began = time.monotonic()
        for _ in range(3):
            self._launch(self._deployment(1, None))
        took = time.monotonic() - began
        after = (set(descendants()), _threads(), _open_files())
        more = [len(after[0] - before[0]), len(after[1] - before[1]), len(after[2] - before[2])]
        assert more == [0, 0, 0], (
            f"launch started {more[0]} processes, {more[1]} threads and opened {more[2]} files"
        )
        assert took < 3 * QUICK, f"launch took {took / 3:.1f} s; it is pure, and quick"

    @law()
    def test_launch_holds_no_secrets(self) -> None:
        """No secret of our environment, and no key, is in a launch spec: others see a process's arguments."""
        with _secrets():
            spec = self._launch(self._deployment(1, None))
        if spec is None:
            raise NotApplicable("somebody else runs its server")
        texts = {"argv": spec.argv, "env": tuple(spec.env.values()), "document": (repr(spec.document),)}
        for where, values in texts.items():
            shown = [each for each in values if CANARY in each]
            assert not shown, f"a secret of our environment is in the {where} of a launch spec: {shown}"
        options = [each for each in spec.argv if SECRET_OPTION.fullmatch(each)]
        assert not options, (
            f"a secret is among the arguments of a launch spec: {options}; the document has room for it"
        )

    def _deployment(self, per_worker: int, context_length: int | None) -> Deployment:
        usual = self.startable_once_more.deployment
        return copy.deepcopy(replace(usual, per_worker=per_worker, context_length=context_length))

    def _launch(self, deployment: Deployment) -> LaunchSpec | None:
        return self.startable_once_more.backend.launch(deployment)

    # -- connect

    @law(weight=0.1)
    async def test_connecting_to_nobody_is_a_server_error(self) -> None:
        """``connect`` to where nobody answers raises ServerError soon, and leaves nothing behind."""
        found = self.startable_once_more
        async with self.runtime() as runtime:
            async with self.started(runtime) as member:
                if member.replica is None:
                    raise NotApplicable("somebody else runs its server")
                endpoint = member.replica.endpoint
            async with self.leaving_nothing("connecting to nobody"):
                connecting = found.backend.connect(endpoint, found.deployment)
                came = await _outcome(self.ends_within, connecting, "connecting to nobody")
                if isinstance(came, Session):
                    await came.aclose()
        assert isinstance(came, ServerError), (
            f"connecting to {endpoint.address}, where nobody is any more, gave {came!r}; a ServerError is promised"
        )
        assert came.message.strip(), "connecting to nobody raised an error that says nothing"

    # -- the end of an engine

    @law("C10", weight=0.1)
    async def test_a_killed_engine_is_told_to_its_streams(self) -> None:
        """Streams of an engine that is killed raise ServerError soon; none looks whole, and none hangs."""
        async with self.runtime() as runtime:
            before = await asyncio.to_thread(descendants)
            async with self.started(runtime) as member:
                self.needs_a_process(member)
                asked = await self.telling(member.session)
                whole = await ask(member.session, asked)
                async with self.held(member.session) as begin:
                    streams = [begin(asked), begin(asked)]
                    await asyncio.gather(*(each.begin(self.moment) for each in streams))
                    for each in streams[:1]:
                        each.ask_on()  # somebody waits while it is killed
                    await self.kill(before)
                    for each in streams:
                        await self._told(each, whole)
                await self._ended(member)
                await self._asked_in_vain(member)
                await within(
                    self.ends_within, member.session.aclose(), "closing a session whose engine was killed"
                )

    async def _told(self, stream: Stream, whole: Answer) -> None:
        try:
            answer = await stream.rest(self.ends_within)
        except ServerError:
            return
        except Late:
            raise Late(f"{stream} hangs, {self.ends_within:g} s after its engine was killed") from None
        except Exception as error:
            raise AssertionError(
                f"its engine was killed, and {stream} raised {error!r}, no ServerError"
            ) from error
        assert self.whole(answer, whole), (
            f"its engine was killed, and {stream} ended as if it were whole: {answer.finish_reason!r} after "
            f"{answer.usage.completion_tokens} of {whole.usage.completion_tokens} tokens"
        )

    async def _ended(self, member: Member) -> None:
        assert member.replica is not None, "there is no engine of ours"
        end = await within(
            self.ends_within, member.replica.wait(), "hearing of the end of an engine that was killed"
        )
        assert end.signal is not None or end.code != 0, (
            f"an engine was killed, and is said to have ended well: {end}"
        )

    async def _asked_in_vain(self, member: Member) -> None:
        asking = ask(member.session, self.brief())
        came = await _outcome(self.ends_within, asking, "asking an engine that was killed")
        assert isinstance(came, LLMEngineError), f"an engine that was killed was asked, and {came!r} came out"

    @law(weight=0.1)
    async def test_a_killed_engine_can_be_replaced(self) -> None:
        """After an engine was killed another is started in its place, and it answers as the first did."""
        async with self.runtime() as runtime:
            before = await asyncio.to_thread(descendants)
            async with self.started(runtime) as member:
                self.needs_a_process(member)
                first = await ask(member.session, await self.telling(member.session))
                await self.kill(before)
            async with self.started(runtime) as member:
                second = await ask(member.session, await self.telling(member.session))
        assert first.text == second.text, (
            f"an engine answered {first.text!r} before it was killed, and the one in its place {second.text!r}"
        )

    @law("C14", weight=0.1)
    async def test_replicas_know_nothing_of_each_other(self) -> None:
        """Of two replicas one is killed or closed while both answer: the other goes on as if alone."""
        async with self.runtime() as runtime, self.started(runtime) as one:
            asked = await self.telling(one.session)
            alone = await ask(one.session, asked)
            before = await asyncio.to_thread(descendants)
            async with (
                self.started(runtime) as other,
                self.held(one.session) as begin,
                self.held(other.session) as too,
            ):
                stream, ended = begin(asked), too(asked)
                await asyncio.gather(stream.begin(self.moment), ended.begin(self.moment))
                if other.replica is not None and await self.processes(before):
                    await self.kill(before)
                else:
                    await other.session.aclose()
                rest = stream.rest(self.allowed(asked.sampling.max_tokens, 2))
                ending = _outcome(self.ends_within, ended.rest(self.ends_within), "reading what was ended")
                answer, _ = await asyncio.gather(rest, ending)  # so that its session hears of it
        seen = [(each.text, each.finish_reason, each.usage) for each in (alone, answer)]
        assert seen[0] == seen[1], (
            f"a replica answers {seen[0]} alone, and {seen[1]} where another one ends meanwhile"
        )

    @law(weight=0.1)
    async def test_a_replica_that_has_ended_leaves_nothing(self) -> None:
        """No task, thread, process, file, socket or folder is left of replicas that were started, used and ended."""
        async with own_folder() as folder:
            await self._use_one()  # what is made once and kept is there then
            async with self.leaving_nothing("starting a replica, using and ending it", folder):
                await self._use_one()

    async def _use_one(self) -> None:
        async with self.runtime() as runtime, self.started(runtime) as member:
            await ask(member.session, self.brief())

    # -- starts that come to nothing

    @law(weight=0.1)
    async def test_a_start_that_fails_says_why_and_leaves_nothing(self) -> None:
        """Weights that are not there, or are none, are an error of ours with a reason, and nothing is left."""
        if self._launch(self.startable_once_more.deployment) is None:
            raise NotApplicable("somebody else runs its server")
        async with own_folder() as folder, self.runtime() as runtime:
            await within(self.starts_within, self._fails(runtime, None, "as it should"), "a start")
            for what, deployment in (await self.unreadable(folder)).items():
                async with self.leaving_nothing(f"a start {what}"):
                    await self._fails(runtime, deployment, what)

    async def _fails(self, runtime: Runtime, deployment: Deployment | None, what: str) -> None:
        usual = self.startable_once_more.deployment
        starting = self.start(runtime, deployment or usual)
        came = await _outcome(self.starts_within, starting, f"a start of one {what}")
        if isinstance(came, ServerError | BadRequestError):
            assert deployment is not None, f"a start of one {what} failed: {came}"
            assert came.message.strip(), f"the start of one {what} failed without a reason"
            return
        assert isinstance(came, Member), f"the start of one {what} raised {came!r}, none of our errors"
        answer = await _outcome(self.ends_within, ask(came.session, self.brief()), f"asking one {what}")
        await came.end()
        assert isinstance(answer, Answer), (
            f"one {what} was ready all the same, and then could not answer: {answer!r}"
        )

    @law(weight=0.1)
    async def test_a_start_that_is_cancelled_leaves_nothing(self) -> None:
        """A start that is given up, at whatever point, ends soon and leaves nothing behind."""
        found = self.startable_once_more
        async with self.runtime() as runtime:
            async with self.started(runtime):
                pass  # what a runtime keeps for good is there then
            for part in self.in_time((0.5, 0.0, 0.9)):
                async with self.leaving_nothing(f"a start that is cancelled after {part:.0%} of its time"):
                    starting = asyncio.ensure_future(self.start(runtime, found.deployment))
                    await asyncio.wait((starting,), timeout=part * found.seconds)
                    if starting.done():
                        await starting.result().end()
                        continue
                    starting.cancel()
                    await asyncio.wait((starting,), timeout=self.ends_within)
                    assert starting.done(), (
                        f"a start was cancelled, and is not over {self.ends_within:g} s later"
                    )
                    if not starting.cancelled():
                        assert starting.exception() is None, (
                            f"a start was cancelled, and raised {starting.exception()!r}"
                        )
                        await starting.result().end()


async def _outcome(seconds: float, work: Awaitable[object], what: str) -> object:
    """What ``work`` gives, or the error that it raises. Raises ``Late`` where it isn't over in time."""
    try:
        return await within(seconds, work, what)
    except Late:
        raise
    except Exception as error:
        return error


@contextmanager
def _secrets() -> Iterator[None]:
    """Variables that hold secrets, to be found again where they must not be."""
    before = {name: os.environ.get(name) for name in SECRETS}
    os.environ.update(dict.fromkeys(SECRETS, CANARY))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _threads() -> set[int]:
    return {each.ident or 0 for each in threading.enumerate()}


def _open_files() -> set[str]:
    try:
        return {
            f"{each.name} {os.readlink(each)}"
            for each in Path("/proc/self/fd").iterdir()
            if each.is_symlink()
        }
    except OSError:
        return set()
