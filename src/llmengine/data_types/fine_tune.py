"""Requests and responses of fine-tunes."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AliasChoices, Field

from llmengine.data_types.enums import FineTuneStatus
from llmengine.data_types.payload import Payload

__all__ = [
    "CancelFineTuneResponse",
    "CreateFineTuneRequest",
    "CreateFineTuneResponse",
    "GetFineTuneEventsResponse",
    "GetFineTuneResponse",
    "LLMFineTuneEvent",
    "ListFineTunesResponse",
]


class CreateFineTuneRequest(Payload):
    """A fine-tune as the REST route takes it."""

    model: str
    training_file: str
    validation_file: str | None = None
    hyperparameters: dict[str, Any] | None = None
    wandb_config: dict[str, Any] | None = None
    suffix: str | None = None


class CreateFineTuneResponse(Payload):
    """What ``FineTune.create`` answers; its id goes by two names (F06)."""

    id: Annotated[str, Field(validation_alias=AliasChoices("id", "fine_tune_id"))]
    fine_tune_id: str = Field(default_factory=lambda known: known.get("id", ""))
    """The same."""


class GetFineTuneResponse(CreateFineTuneResponse):
    """How a fine-tune stands."""

    fine_tuned_model: str | None = None
    """The model that it made, for ``Completion.create``; None until it did."""
    status: FineTuneStatus


class ListFineTunesResponse(Payload):
    """What ``FineTune.list`` answers."""

    jobs: list[GetFineTuneResponse]


class CancelFineTuneResponse(Payload):
    """What ``FineTune.cancel`` answers."""

    success: bool
    """False where there was nothing to cancel."""


class LLMFineTuneEvent(Payload):
    """One thing that happened in a fine-tune."""

    timestamp: float | None = None
    """Seconds since the epoch."""
    message: str
    level: str


class GetFineTuneEventsResponse(Payload):
    """What ``FineTune.get_events`` answers."""

    events: list[LLMFineTuneEvent]
    """In order."""
