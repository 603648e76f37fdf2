"""Plans carried out: in which environment, with what beside the engine, and what becomes of broken-off work."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests import motor
from tests.motor import FAILS, RUNS, put_environment

import llmengine_core.testing
from llmengine_core.errors import BadRequestError, LLMEngineError, ServerError
from llmengine_core.inspection import inspect
from llmengine_core.provisioning import Provisioner
from llmengine_core.records import from_json, to_json
from llmengine_core.registry import Registry
from llmengine_core.resolution import resolve
from llmengine_core.settings import Settings
from llmengine_core.types.launch import Deployment
from llmengine_core.types.models import ModelSpec
from llmengine_core.types.plan import Plan
from llmengine_core.types.progress import Progress

pytestmark = pytest.mark.anyio

ECHO = Path(llmengine_core.testing.__file__).with_name("echo.gguf")
SPEC = ModelSpec(name="mine", model="block", inference_framework="motor")


@pytest.fixture(autouse=True)
def nothing_ran() -> Iterator[None]:
    RUNS.clear()
    FAILS.clear()
    yield
    RUNS.clear()
    FAILS.clear()


class Bench:
    """A home, and what carries out plans in it."""

    def __init__(self, home: Path, **settings: object) -> None:
        self.settings = Settings(home=home, **settings)  # type: ignore[arg-type]
        self.registry = Registry.build(self.settings, modules=[motor], sources=[])
        assert not self.registry.faults
        self.news: list[Progress] = []
        self.provisioner = Provisioner(self.settings, self.registry, on_progress=self.news.append)

    async def plan(self, spec: ModelSpec = SPEC) -> Plan:
        facts = await inspect(spec, self.registry.models.get(spec.model), self.registry, self.settings)
        return resolve(spec, self.registry.declarations, facts)

    async def prepare(self, spec: ModelSpec = SPEC, plan: Plan | None = None) -> Deployment:
        return await self.provisioner.prepare(spec, plan or await self.plan(spec))

    def made(self) -> list[Path]:
        """What was made, and what is left of what was not."""
        weights = self.settings.home / "weights"
        return sorted([*weights.glob("entries/*/content/*"), *weights.glob("making/*/*/*")])


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


# -- where it runs -----------------------------------------------------------------------------------------------


async def test_a_deployment_has_the_environment_and_what_is_beside_the_engine(
    bench: Bench, tmp_path: Path
) -> None:
    python = put_environment(tmp_path, "motor-2.0", "2.0", "tuner", "judge")
    deployment = await bench.prepare(replace(SPEC, quantize="fine"))
    assert (deployment.backend, deployment.version, deployment.python) == ("motor", "2.0", str(python))
    assert (deployment.accelerator, deployment.masker) == ("cpu", "judge.masker:Masker")
    assert (deployment.quantization, deployment.load_options) == ("fine", {"tuned": "fine", "for": "motor"})
    plain = await bench.prepare()
    assert (plain.quantization, plain.load_options) == (None, {}), "a conversion gives full precision"
    assert plain.key != deployment.key


async def test_without_a_masker_in_its_environment_there_is_none(bench: Bench, tmp_path: Path) -> None:
    put_environment(tmp_path, "motor-2.0")
    assert (await bench.prepare()).masker is None


async def test_an_environment_that_was_removed_is_an_error_with_the_command_that_brings_it(
    bench: Bench, tmp_path: Path
) -> None:
    put_environment(tmp_path, "motor-a", "1.0", "tuner")
    spec = replace(SPEC, quantize="fine")
    plan = await bench.plan(spec)
    shutil.rmtree(tmp_path / "environments" / "motor-a")
    put_environment(tmp_path, "motor-b", "2.0", "tuner")
    put_environment(tmp_path, "motor-c", "1.0")
    with pytest.raises(ServerError, match=r"nothing here has motor 1\.0 with tuner any more") as caught:
        await bench.prepare(spec, plan)
    assert "Mend: llmengine engines install motor --version 1.0 --quantize" in caught.value.message


async def test_an_equal_environment_takes_the_place_of_one_that_was_removed(
    bench: Bench, tmp_path: Path
) -> None:
    put_environment(tmp_path, "motor-a", "1.0", "judge")
    plan = await bench.plan()
    before = await bench.prepare(plan=plan)
    shutil.rmtree(tmp_path / "environments" / "motor-a")
    put_environment(tmp_path, "motor-b", "2.0", "judge")
    python = put_environment(tmp_path, "motor-c", "1.0", "judge")
    after = await bench.prepare(plan=plan)
    assert after == replace(before, python=str(python))


async def test_an_engine_that_was_upgraded_where_we_run_is_taken_as_it_is(
    bench: Bench, tmp_path: Path
) -> None:
    spec = replace(SPEC, inference_framework="settled")
    plan = await bench.plan(spec)
    choice = plan.choice
    assert choice
    assert choice.environment
    stored = replace(choice, version="0.1", environment=replace(choice.environment, version="0.1"))
    others = [each for each in plan.candidates if each is not choice]
    older = replace(plan, candidates=(stored, *others))
    deployment = await bench.prepare(spec, older)
    assert (deployment.version, deployment.python) == (pytest.__version__, "")
    exact = replace(spec, inference_framework_image_tag="0.1")
    with pytest.raises(ServerError, match=r"nothing here has pytest 0\.1 any more"):
        await bench.prepare(exact, older)


async def test_a_backend_or_quantizer_that_is_gone_says_what_brings_it_back(
    bench: Bench, tmp_path: Path
) -> None:
    put_environment(tmp_path, "motor-2.0", "2.0", "tuner")
    spec = replace(SPEC, quantize="fine")
    plan = await bench.plan(spec)
    choice = plan.choice
    assert choice
    for gone, message in (
        (replace(choice, name="engine_x"), "needs the backend 'engine_x', whose plugin is no longer here"),
        (replace(choice, quantizer="squeeze"), "the quantizer 'squeeze' is not registered any more"),
    ):
        candidates = (gone, *plan.candidates[1:])
        with pytest.raises(ServerError, match=message):
            await bench.prepare(spec, replace(plan, candidates=candidates, chosen=gone.name))


# -- code of a checkpoint's own ----------------------------------------------------------------------------------


async def test_code_runs_only_where_the_settings_still_allow_it(bench: Bench, tmp_path: Path) -> None:
    careful, trusting = bench, await asyncio.to_thread(Bench, tmp_path, allow_remote_code=True)
    spec = replace(SPEC, inference_framework="settled")
    plan = await careful.plan(spec)
    coded = replace(plan, checkpoint=replace(plan.checkpoint, remote_code=True, architecture="strange"))
    assert (await trusting.prepare(spec, coded)).allow_remote_code
    assert not (await careful.prepare(spec, coded)).allow_remote_code
    assert not (await trusting.prepare(spec, plan)).allow_remote_code
    known = replace(careful.registry.backends["settled"], architectures=frozenset({"echo"}))
    careful.registry.backends = {**careful.registry.backends, "settled": known}
    with pytest.raises(BadRequestError, match="LLMENGINE_ALLOW_REMOTE_CODE=true"):
        await careful.prepare(spec, coded)


# -- transforms --------------------------------------------------------------------------------------------------


async def test_each_step_is_made_once_in_the_environment_that_it_needs(bench: Bench, tmp_path: Path) -> None:
    python = put_environment(tmp_path, "motor-2.0")
    other = await asyncio.to_thread(Bench, tmp_path)
    first, second = await asyncio.gather(bench.prepare(), other.prepare())
    assert [*RUNS] == [("unpack", str(python)), ("polish", "")]
    assert first == second
    assert (Path(first.weights) / "content").read_bytes() == b"polishunpack" + ECHO.read_bytes()
    assert first.subject == ECHO.name
    assert {(news.subject, news.phase) for news in bench.news} <= {("mine", "transform")}


async def test_what_was_made_is_kept_until_the_weights_change(bench: Bench, tmp_path: Path) -> None:
    put_environment(tmp_path, "motor-2.0")
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(ECHO.read_bytes())
    spec = replace(SPEC, checkpoint_path=str(copy))
    before = await bench.prepare(spec)
    RUNS.clear()
    assert (await bench.prepare(spec)).weights == before.weights
    assert RUNS == []
    copy.write_bytes(ECHO.read_bytes() + b"!")  # it is another one now
    await bench.prepare(spec)
    assert [name for name, _ in RUNS] == ["unpack", "polish"]


async def test_what_another_revision_of_a_transform_made_is_not_taken(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_environment(tmp_path, "motor-2.0")
    before = await bench.prepare()
    plan = await bench.plan()
    transforms = dict(bench.registry.transforms)
    loaded = bench.registry.load
    monkeypatch.setattr(
        bench.registry, "transforms", transforms | {"polish": replace(transforms["polish"], revision=2)}
    )
    monkeypatch.setattr(bench.registry, "load", lambda info: loaded(replace(info, revision=1)))
    RUNS.clear()
    after = await bench.prepare(plan=plan)  # as it was stored
    assert [name for name, _ in RUNS] == ["polish"]
    assert after.key != before.key


@pytest.mark.parametrize("error", [ServerError("the work failed"), asyncio.CancelledError()])
async def test_what_broke_off_is_thrown_away_and_finished_steps_are_kept(
    bench: Bench, tmp_path: Path, error: BaseException
) -> None:
    put_environment(tmp_path, "motor-2.0")
    FAILS["polish"] = error
    with pytest.raises(type(error)):
        await bench.prepare()
    assert [path.name for path in bench.made()] == ["crate"]
    FAILS.clear()
    assert (await bench.prepare()).weights.endswith("/block")
    assert [name for name, _ in RUNS] == ["unpack", "polish", "polish"]


async def test_a_transforms_environment_that_was_removed_says_what_brings_it_back(
    bench: Bench, tmp_path: Path
) -> None:
    put_environment(tmp_path, "motor-2.0")
    plan = await bench.plan()
    choice = plan.choice
    assert choice
    # An engine that needs none of its own, so that only the transform's is missed.
    elsewhere = replace(choice, name="settled", environment=None, version=None)
    plan = replace(plan, candidates=(elsewhere,), chosen="settled")
    shutil.rmtree(tmp_path / "environments")
    with pytest.raises(ServerError, match="nothing here can run the transform 'unpack'") as caught:
        await bench.prepare(replace(SPEC, inference_framework="settled"), plan)
    assert "Mend: llmengine engines install motor" in caught.value.message


async def test_a_transform_that_nobody_registers_any_more_is_named(bench: Bench, tmp_path: Path) -> None:
    put_environment(tmp_path, "motor-2.0")
    plan = await bench.plan()
    choice = plan.choice
    assert choice
    steps = tuple(replace(step, transform="unwrap") for step in choice.transforms)
    plan = replace(plan, candidates=(replace(choice, transforms=steps),))
    with pytest.raises(ServerError, match="needs the transform 'unwrap', whose plugin is no longer here"):
        await bench.prepare(plan=plan)


@pytest.mark.parametrize("error", [ServerError("it ended with exit code 1"), OSError(28, "No space left")])
async def test_a_disk_that_is_full_says_what_and_where(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: LLMEngineError | OSError
) -> None:
    put_environment(tmp_path, "motor-2.0")
    FAILS["unpack"] = error
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=40 << 10))
    with pytest.raises(ServerError, match="the disk is full: 40 KiB are free in ") as caught:
        await bench.prepare()
    assert str(tmp_path / "weights" / "making") in caught.value.message
    assert str(error) in caught.value.message
    assert not bench.made()


async def test_plans_of_an_older_version_are_still_carried_out(bench: Bench, tmp_path: Path) -> None:
    """They know nothing of environments."""
    spec = replace(SPEC, inference_framework="settled")
    stored = to_json(await bench.plan(spec))
    for candidate in stored["candidates"]:
        for field in ("environment", "quantizer", "masker"):
            del candidate[field]
    del stored["why"]
    plan = from_json(Plan, json.loads(json.dumps(stored)))
    assert (await bench.prepare(spec, plan)).python == ""
