"""Programs of calls on models, and the dict that says what each must give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from hypothesis import strategies as st

from llmengine_core.errors import BadRequestError, LLMEngineError, NotFoundError
from llmengine_core.types.models import ModelRecord, ModelStatus

if TYPE_CHECKING:
    from llmengine_core.testing.contracts.engines.ground import EngineGround

__all__ = [
    "TOUR",
    "Complete",
    "Create",
    "Delete",
    "Get",
    "List",
    "Program",
    "Reopen",
    "Run",
    "Update",
    "Wait",
    "programs",
]

CALLERS = ("me", "you")
NAMES = ("a", "b")
BASE = "<the base model>"
DEFAULTS: Mapping[str, Any] = {
    "min_workers": 0,
    "max_workers": 1,
    "per_worker": 2,
    "public_inference": True,
    "labels": {},
}


@dataclass(frozen=True)
class Create:
    """``Model.create``."""

    name: str
    caller: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Update:
    """``Model.update``."""

    name: str
    caller: str
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Delete:
    """``Model.delete``."""

    name: str
    caller: str


@dataclass(frozen=True)
class Get:
    """``Model.get``."""

    name: str
    caller: str


@dataclass(frozen=True)
class List:
    """``Model.list``."""

    caller: str


@dataclass(frozen=True)
class Wait:
    """Wait until what was begun for a model is over."""

    name: str


@dataclass(frozen=True)
class Complete:
    """``Completion.create``, as a stream or whole."""

    name: str
    caller: str
    stream: bool = False


@dataclass(frozen=True)
class Reopen:
    """Another engine on the same store; with ``crash`` the first has not been closed."""

    crash: bool = False


Step: TypeAlias = Create | Update | Delete | Get | List | Wait | Complete | Reopen
Program: TypeAlias = list[Step]

_names = st.sampled_from(NAMES)
_callers = st.sampled_from(CALLERS)
_fields = st.fixed_dictionaries(
    {},
    optional={
        "min_workers": st.sampled_from((0, 1)),
        "max_workers": st.sampled_from((1, 2, 0)),
        "per_worker": st.sampled_from((1, 3, 0)),
        "public_inference": st.booleans(),
        "labels": st.sampled_from(({}, {"team": "ü"})),
    },
)


def programs(steps: int = 14) -> st.SearchStrategy[Program]:
    """Programs of up to so many calls, most of which can succeed."""
    create = st.builds(Create, _names, _callers, st.just({}) | _fields)
    return st.lists(
        create
        | st.builds(Create, st.sampled_from((*NAMES, BASE)), _callers, _fields)
        | st.builds(Update, _names, _callers, _fields)
        | st.builds(Delete, _names, _callers)
        | st.builds(Get, _names, _callers)
        | st.builds(List, _callers)
        | st.builds(Wait, _names)
        | st.builds(Complete, _names, _callers, st.booleans())
        | st.builds(Reopen, st.booleans()),
        min_size=4,
        max_size=steps,
    )


TOUR: Sequence[Step] = (
    Create("a", "me", {"public_inference": False}),
    Create("b", "you", {"labels": {"team": "ü"}}),
    Create("a", "you"),
    Create(BASE, "me"),
    *(Get(name, caller) for name in NAMES for caller in CALLERS),
    *(List(caller) for caller in CALLERS),
    *(Complete(name, caller, stream) for name in NAMES for caller in CALLERS for stream in (False, True)),
    Update("b", "me", {"per_worker": 3}),
    Update("a", "you", {"per_worker": 3}),
    Update("b", "you", {"max_workers": 2}),
    Update("b", "you", {"per_worker": 3, "labels": {}}),
    Wait("b"),
    Get("b", "me"),
    Delete("b", "me"),
    Delete("a", "you"),
    Update("a", "me", {"public_inference": True}),
    Get("a", "you"),
    Complete("a", "you"),
    Delete("a", "me"),
    *(Get("a", caller) for caller in CALLERS),
    Complete("a", "me"),
    Delete("a", "me"),
    Create("a", "you"),
    Get("a", "me"),
)
"""A program in which everybody tries what is theirs and what isn't."""


@dataclass
class Known:
    """What the dict says of one model."""

    owner: str
    fields: Mapping[str, Any]
    settled: bool = False
    """Whether what was asked last has been waited for."""

    def visible_to(self, caller: str) -> bool:
        return bool(self.fields["public_inference"]) or self.owner == caller


def valid(fields: Mapping[str, Any]) -> bool:
    """M07: numbers of workers that go together."""
    least, most = fields["min_workers"], fields["max_workers"]
    return bool(most >= least and fields["per_worker"] >= 1 and (least > 0 or most == 1))


class Run:
    """One program on an engine, beside the dict."""

    def __init__(self, ground: EngineGround) -> None:
        self.ground = ground
        self.prefix = ground.fresh()
        self.known: dict[str, Known] = {}
        self.done: Program = []

    async def play(self, program: Sequence[Step]) -> None:
        """Play it, and look at all that is left; the models are gone afterwards."""
        try:
            for step in program:
                self.done.append(step)
                await self.step(step)
            for name in NAMES:
                await self.step(Wait(name))
            for caller in CALLERS:
                await self.step(List(caller))
                for name in NAMES:
                    await self.step(Get(name, caller))
        finally:
            for name, known in self.known.items():
                try:
                    await self.ground.engine.models.delete(self.full(name), caller=known.owner)
                except LLMEngineError:
                    continue

    async def step(self, step: Step) -> None:
        """One call, held against the dict."""
        match step:
            case Create():
                await self.create(step)
            case Update():
                await self.update(step)
            case Delete():
                await self.delete(step)
            case Get():
                await self.get(step)
            case List():
                await self.list(step)
            case Wait():
                await self.wait(step.name)
            case Complete():
                await self.complete(step)
            case Reopen():
                await self.ground.reopened(crash=step.crash)

    def full(self, name: str) -> str:
        """A name that no other program uses."""
        return self.ground.model if name == BASE else f"{self.prefix}{name}"

    def right(self, condition: bool, message: str) -> None:
        """Fail with the program so far, as code."""
        if not condition:
            program = ", ".join(map(repr, self.done))
            raise AssertionError(
                f"{message}\nafter the program [{program}], which Run(contract).play() plays again"
            )

    async def outcome(self, step: Step, call: Any, expected: type[Exception] | None) -> Any:
        """What a call gives, or None where it raised what it was to raise."""
        said = "is right" if expected is None else f"must raise {expected.__name__}"
        try:
            given = await call
        except LLMEngineError as error:
            right = expected is not None and isinstance(error, expected)
            self.right(right, f"{step} {said}; it raised {type(error).__name__}({error})")
            return None
        self.right(expected is None, f"{step} {said}; it gave {given}")
        return given

    def refusal(self, step: Update | Delete) -> type[Exception] | None:
        """What a change of a model by somebody raises for who they are."""
        known = self.known.get(step.name)
        if known is None or not known.visible_to(step.caller):
            return NotFoundError
        return None if known.owner == step.caller else BadRequestError

    async def create(self, step: Create) -> None:
        wanted = {**DEFAULTS, **step.fields}
        free = step.name != BASE and step.name not in self.known

        async def call() -> ModelRecord:
            spec = self.ground.spec(self.full(step.name), **step.fields)
            return await self.ground.engine.models.create(spec, caller=step.caller)

        expected = None if free and valid(wanted) else BadRequestError
        record = await self.outcome(step, call(), expected)
        if record is not None:
            self.known[step.name] = Known(step.caller, wanted)
            self.looks_right(step, record, self.known[step.name])

    async def update(self, step: Update) -> None:
        known = self.known.get(step.name)
        expected = self.refusal(step)
        merged = {**(known.fields if known is not None else DEFAULTS), **step.changes}
        if expected is None and not valid(merged):
            expected = BadRequestError
        call = self.ground.engine.models.update(self.full(step.name), step.changes, caller=step.caller)
        record = await self.outcome(step, call, expected)
        if record is None or known is None:
            return
        public = known.fields["public_inference"] == merged["public_inference"]
        self.known[step.name] = replace(known, fields=merged, settled=False)
        if not public:  # until it is carried out the old one counts
            await self.wait(step.name)

    async def delete(self, step: Delete) -> None:
        expected = self.refusal(step)
        call = self.ground.engine.models.delete(self.full(step.name), caller=step.caller)
        given = await self.outcome(step, call, expected)
        if expected is None:
            self.right(given is True, f"{step} deleted a model that was there, and gave {given!r}, not True")
            del self.known[step.name]

    async def get(self, step: Get) -> None:
        known = self.known.get(step.name)
        seen = known is not None and known.visible_to(step.caller)
        call = self.ground.engine.models.get(self.full(step.name), caller=step.caller)
        record = await self.outcome(step, call, None if seen else NotFoundError)
        if record is not None and known is not None:
            self.looks_right(step, record, known)

    async def list(self, step: List) -> None:
        records = await self.outcome(step, self.ground.engine.models.list(caller=step.caller), None)
        names = [record.spec.name for record in records]
        self.right(self.ground.model in names, f"{step} lacks the base model: {names}")
        seen = [name.removeprefix(self.prefix) for name in names if name.startswith(self.prefix)]
        wanted = sorted(name for name, known in self.known.items() if known.visible_to(step.caller))
        self.right(seen == wanted, f"{step} gave {seen} of this program's models; visible are {wanted}")

    async def wait(self, name: str) -> None:
        known = self.known.get(name)
        if known is None:
            return
        step = Wait(name)
        call = self.ground.engine.models.wait(self.full(name), caller=known.owner)
        record = await self.outcome(step, call, None)
        known.settled = True
        self.looks_right(step, record, known)

    async def complete(self, step: Complete) -> None:
        known = self.known.get(step.name)
        seen = known is not None and known.visible_to(step.caller)
        name = self.full(step.name)

        async def call() -> str:
            if not step.stream:
                return (await self.ground.complete(name, step.caller)).text
            async with await self.ground.stream(name, step.caller) as stream:
                chunks = [chunk async for chunk in stream]
            return "".join(chunk.text for chunk in chunks)

        await self.outcome(step, call(), None if seen else NotFoundError)

    def looks_right(self, step: Step, record: ModelRecord, known: Known) -> None:
        """A record says what the dict does; what isn't settled may still be on its way."""
        self.right(record.owner == known.owner, f"{step}: the owner is {record.owner!r}, not {known.owner!r}")
        self.right(
            record.spec.model == self.ground.model,
            f"{step}: the base model is {record.spec.model!r}, not {self.ground.model!r}",
        )
        self.right(
            record.status in (ModelStatus.READY, ModelStatus.UPDATE_PENDING, ModelStatus.UPDATE_IN_PROGRESS),
            f"{step}: the status is {record.status}, the reason {record.reason!r}",
        )
        if not known.settled:
            return
        self.right(record.status is ModelStatus.READY, f"{step}: the status is {record.status}, not READY")
        fields = {name: getattr(record.spec, name) for name in DEFAULTS}
        self.right(fields == known.fields, f"{step}: the fields are {fields}, not {dict(known.fields)}")
