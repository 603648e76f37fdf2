"""What every test of the workspace gets: Hypothesis profiles, the event loop, a watch for blocking calls."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import settings

if TYPE_CHECKING:
    from tests.servers.seaweed import S3Server

ROOT = Path(__file__).parent

# A shell ignores Ctrl-C for what it starts in the background, and programs hand that on to those they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The number of examples is chosen here and by HYPOTHESIS_PROFILE, never in a test.
settings.register_profile("smoke", max_examples=10, deadline=None)
settings.register_profile("default", max_examples=50, deadline=None)
settings.register_profile("thorough", max_examples=2_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The one event loop that the core runs on."""
    return "asyncio"


@pytest.fixture(scope="session")
def engines_home() -> Path:
    """The state folder whose engine environments `nox -s engines` has built."""
    return Path(os.environ["LLMENGINE_TEST_ENGINES"])


@pytest.fixture(scope="session")
def transformers_python(engines_home: Path) -> str:
    """The interpreter of the environment of Transformers that has its quantizers beside it, the newest."""
    (python,) = engines_home.glob("environments/transformers-5.23.0-*/bin/python")
    return str(python)


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """The small model as safetensors, as `nox -s engines` made it."""
    return Path(os.environ["LLMENGINE_TEST_WEIGHTS"])


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """The S3 server that tests share; each takes buckets of its own."""
    from tests.servers.seaweed import s3_server

    with s3_server() as server:
        yield server


@pytest.fixture(scope="session")
def frail_s3_server() -> Iterator[S3Server]:
    """Another one, which tests kill and hang; each leaves it running."""
    from tests.servers.seaweed import s3_server

    with s3_server() as server:
        yield server


@pytest.fixture(scope="session", autouse=True)
def no_blocking_calls() -> Iterator[BlockBuster]:
    """Fail a test in which code of ours blocks the event loop."""
    typed = [*ROOT.glob("src/*/py.typed"), *ROOT.glob("plugins/*/src/*/py.typed")]
    packages = [path.parent.name for path in typed]
    # What the contract kit does itself between two calls of what it judges may block: nobody else is on its loop.
    with blockbuster_ctx(packages, excluded_modules=["llmengine_core.testing.contracts"]) as blockbuster:
        # Coverage locks its own records when a line is the first of its file to run; that isn't our code's doing.
        blockbuster.functions["threading.Lock.acquire"].can_block_in("coverage/collector.py", "lock_data")
        yield blockbuster
