"""Runtimes that are wrong."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.contract.mutants import Mutant
from tests.contract.mutants.runtimes import NaiveReplica, NaiveRuntime, runtime_mutant

from llmengine_core.interfaces.runtime import Replica
from llmengine_core.runtime_local import LocalRuntime
from llmengine_core.types.launch import Endpoint, Exit, LaunchSpec
from llmengine_core.types.progress import OnProgress


class AllOfOurEnvironment(NaiveRuntime):
    def env(self, spec: LaunchSpec) -> dict[str, str]:
        return {**os.environ, **spec.env}


class KeyAsArgument(NaiveRuntime):
    def argv(self, spec: LaunchSpec, key: str) -> tuple[str, ...]:
        return (*spec.argv, f"--api-key={key}")


class OneKey(NaiveRuntime):
    def key(self) -> str:
        return "k" * 32


class NoMemory(NaiveRuntime):
    def document(self, spec: LaunchSpec, facts: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in super().document(spec, facts).items() if name != "memory"}


class AllThreads(NaiveRuntime):
    def document(self, spec: LaunchSpec, facts: Mapping[str, Any]) -> dict[str, Any]:
        return super().document(spec, facts) | {"threads": 128}


class NoProgress(NaiveRuntime):
    async def start(self, spec: LaunchSpec, *, on_progress: OnProgress | None = None) -> Replica:
        return await super().start(spec)


class ReadyAtOnce(NaiveRuntime):
    async def given(self, replica: NaiveReplica) -> None:
        replica.ready.set_result({})


class OwnError(NaiveRuntime):
    def failed(self, spec: LaunchSpec, end: Exit) -> Exception:
        return RuntimeError(str(end))


class NoWords(NaiveRuntime):
    def reason(self, reason: str) -> str:
        return ""


class AllLines(NaiveRuntime):
    """Right but for what the spec calls noise."""


class NoiseIsFatal(NaiveRuntime):
    def noise(self, replica: NaiveReplica) -> None:
        replica.kill()


class NoFacts(NaiveRuntime):
    def reached(self, endpoint: Endpoint) -> Endpoint:
        return replace(endpoint, facts={"seen": endpoint.facts.get("seen")})


class OtherKey(NaiveRuntime):
    def reached(self, endpoint: Endpoint) -> Endpoint:
        return replace(endpoint, key="0" * 32)


class OneWaiter(NaiveRuntime):
    async def start(self, spec: LaunchSpec, *, on_progress: OnProgress | None = None) -> Replica:
        replica = await super().start(spec, on_progress=on_progress)
        assert isinstance(replica, NaiveReplica)
        replica.wait = lambda: _bare(replica.end)  # type: ignore[method-assign]
        return replica


async def _bare(end: asyncio.Future[Exit]) -> Exit:
    return await end


class ClosedInput(NaiveRuntime):
    async def given(self, replica: NaiveReplica) -> None:
        assert replica.process.stdin is not None
        replica.process.stdin.close()


class UnreadErrors(NaiveRuntime):
    limit = 1 << 16

    async def given(self, replica: NaiveReplica) -> None:
        replica.tasks[1].cancel()

    async def close(self, replica: NaiveReplica) -> None:
        await replica.bury()


class ChildOnly(NaiveRuntime):
    """Ends the group and waits for the child: what left the group is nobody's."""


class ClosesOnce(NaiveRuntime):
    async def close(self, replica: NaiveReplica) -> None:
        self.replicas.remove(replica)
        replica.kill()
        await replica.wait()
        await replica.bury()


class KeepsSockets(NaiveRuntime):
    async def close(self, replica: NaiveReplica) -> None:
        replica.kill()
        await replica.wait()


class ForgetsTheUnready(NaiveRuntime):
    async def aclose(self) -> None:
        await asyncio.gather(*(replica.aclose() for replica in self.replicas if replica.ready.done()))


class WaitsNow(LocalRuntime):
    def close_now(self) -> None:
        super().close_now()
        time.sleep(1.1)


class ThreadNow(LocalRuntime):
    def close_now(self) -> None:
        threading.Thread(target=super().close_now).start()
        threading.Thread(target=threading.Event().wait, args=(0.5,)).start()


class LeavesTheCancelled(NaiveRuntime):
    def given_up(self, replica: NaiveReplica) -> None:
        self.replicas.remove(replica)


class KeepsTheCaller(NaiveRuntime):
    async def start(self, spec: LaunchSpec, *, on_progress: OnProgress | None = None) -> Replica:
        starting = asyncio.ensure_future(super().start(spec, on_progress=on_progress))
        starting.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(starting)


class BlocksTheLoop(LocalRuntime):
    async def start(self, spec: LaunchSpec, *, on_progress: OnProgress | None = None) -> Replica:
        started = asyncio.ensure_future(super().start(spec, on_progress=on_progress))
        await asyncio.sleep(0.1)
        time.sleep(1.5)  # noqa: ASYNC251
        return await started


class OpenFolder(LocalRuntime):
    async def start(self, spec: LaunchSpec, *, on_progress: OnProgress | None = None) -> Replica:
        replica = await super().start(spec, on_progress=on_progress)
        folder = Path(replica.endpoint.address.removeprefix("unix:")).parent
        await asyncio.to_thread(folder.chmod, 0o755)
        return replica


MUTANTS: list[Mutant] = [
    runtime_mutant(
        "environment_handed_on",
        "the child gets all of this process's environment",
        AllOfOurEnvironment,
        ("test_secrets_of_this_process_stay_here",),
    ),
    runtime_mutant(
        "key_as_argument",
        "the key is an argument of the child's, for every user to read",
        KeyAsArgument,
        ("test_keys_are_not_in_arguments_or_environments",),
    ),
    runtime_mutant("one_key", "all replicas have one key", OneKey, ("test_replicas_are_independent",)),
    runtime_mutant(
        "no_memory",
        "the child isn't told how much memory it may use",
        NoMemory,
        ("test_the_child_reads_the_document_and_four_members",),
    ),
    runtime_mutant(
        "all_threads",
        "each child may compute on all threads of the machine",
        AllThreads,
        ("test_the_child_reads_the_document_and_four_members",),
    ),
    runtime_mutant("no_progress", "progress isn't passed on", NoProgress, ("test_progress_is_passed_on",)),
    runtime_mutant(
        "ready_at_once",
        "a child is taken for ready once it runs",
        ReadyAtOnce,
        ("test_a_child_is_ready_when_it_says_so",),
    ),
    runtime_mutant(
        "blocks_the_loop",
        "start blocks the event loop while the engine loads",
        BlocksTheLoop,
        ("test_a_child_is_ready_when_it_says_so",),
        patience=1.0,
    ),
    runtime_mutant(
        "error_of_its_own",
        "a start that fails is an error of the runtime's own kind",
        OwnError,
        ("test_a_child_that_ends_early_is_an_error_with_its_words",),
    ),
    runtime_mutant(
        "no_words",
        "a start that fails says its exit code alone",
        NoWords,
        ("test_a_child_that_ends_early_is_an_error_with_its_words",),
        shipped="mudler/LocalAI#10720",
    ),
    runtime_mutant(
        "missing_program",
        "a program that isn't there is the system's error, not ours",
        NaiveRuntime,
        ("test_a_program_that_is_not_there_is_an_error",),
    ),
    runtime_mutant(
        "noise_in_reasons",
        "what the spec calls noise is in reasons",
        AllLines,
        ("test_noise_of_logs_is_left_out_of_reasons",),
    ),
    runtime_mutant(
        "noise_is_fatal",
        "a line that isn't JSON ends the replica",
        NoiseIsFatal,
        ("test_noise_on_standard_output_is_harmless",),
    ),
    runtime_mutant(
        "no_facts",
        "what the child says of itself is dropped",
        NoFacts,
        ("test_facts_are_what_the_child_said",),
    ),
    runtime_mutant(
        "other_key",
        "the endpoint has another key than the child",
        OtherKey,
        ("test_what_is_ready_answers_at_its_endpoint",),
    ),
    runtime_mutant(
        "one_waiter",
        "who gives up waiting for a replica's end ends it for all who wait",
        OneWaiter,
        ("test_every_caller_of_wait_is_told_the_end",),
    ),
    runtime_mutant(
        "closed_input",
        "the child's input closes once it has its document",
        ClosedInput,
        ("test_a_replica_runs_until_it_is_ended",),
    ),
    runtime_mutant(
        "unread_errors",
        "nobody reads the child's standard error, so that it stands still once the pipe is full",
        UnreadErrors,
        ("test_a_talkative_child_is_not_held_up",),
    ),
    runtime_mutant(
        "child_only",
        "closing ends the child and its group, not what left the group",
        ChildOnly,
        ("test_closing_ends_the_child_and_its_descendants", "test_a_failed_start_leaves_nothing"),
    ),
    runtime_mutant(
        "closes_once",
        "closing a replica a second time fails",
        ClosesOnce,
        ("test_closing_a_replica_is_idempotent",),
    ),
    runtime_mutant(
        "keeps_sockets",
        "sockets of replicas that ended stay",
        KeepsSockets,
        ("test_closing_a_replica_is_idempotent",),
    ),
    runtime_mutant(
        "forgets_the_unready",
        "closing the runtime leaves a replica that is still starting",
        ForgetsTheUnready,
        ("test_closing_the_runtime_ends_everything",),
    ),
    runtime_mutant(
        "waits_now",
        "close_now waits for the replicas' ends",
        WaitsNow,
        ("test_close_now_lets_go_without_waiting",),
    ),
    runtime_mutant(
        "thread_now",
        "close_now starts a thread, which fails at interpreter exit",
        ThreadNow,
        ("test_close_now_lets_go_without_waiting",),
    ),
    runtime_mutant(
        "leaves_the_cancelled",
        "a start that is given up leaves its child",
        LeavesTheCancelled,
        ("test_cancelling_a_start_ends_the_child", "test_cancelling_a_start_anywhere_leaves_nothing"),
    ),
    runtime_mutant(
        "keeps_the_caller",
        "a start that is given up goes on behind the caller's back",
        KeepsTheCaller,
        ("test_cancelling_a_start_ends_the_child",),
    ),
    runtime_mutant(
        "orphans",
        "replicas outlive a process that was killed",
        NaiveRuntime,
        ("test_nothing_is_left_when_this_process_is_killed",),
        starting=10.0,
    ),
    runtime_mutant(
        "open_folder",
        "everybody may enter the folder of sockets",
        OpenFolder,
        ("test_sockets_are_private_and_short",),
    ),
]
