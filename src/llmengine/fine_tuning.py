"""Fine-tunes: models trained further on data of your own. Their signatures; the work comes later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from llmengine.api_engine import APIEngine
from llmengine_core.arguments.checks import text
from llmengine_core.arguments.jobs import check_fine_tune
from llmengine_core.errors import UnsupportedFeatureError

if TYPE_CHECKING:
    from llmengine.data_types.fine_tune import (
        CancelFineTuneResponse,
        CreateFineTuneResponse,
        GetFineTuneEventsResponse,
        GetFineTuneResponse,
        ListFineTunesResponse,
    )

__all__ = ["FineTune"]


class FineTune(APIEngine):
    """Fine-tunes. Not in this version: every call raises ``UnsupportedFeatureError`` once its arguments are right."""

    @classmethod
    def create(
        cls,
        model: str,
        training_file: str,
        validation_file: str | None = None,
        hyperparameters: dict[str, Any] | None = None,
        wandb_config: dict[str, Any] | None = None,
        suffix: str | None = None,
    ) -> CreateFineTuneResponse:
        """Train a base model on a file of prompts and responses.

        Args:
            model: the base model's name.
            training_file: the id of an uploaded CSV file, or its http or https URL.
            validation_file: likewise; None sets a tenth of the training file aside.
            hyperparameters: ``lr``, ``warmup_ratio``, ``epochs``, ``weight_decay``, ``peft_config``, ``report_to``.
            wandb_config: ``api_key``, ``base_url`` and what else Weights & Biases takes.
            suffix: part of the new model's name: 1 to 28 letters, digits and hyphens.
        """
        check_fine_tune(
            model=model,
            training_file=training_file,
            validation_file=validation_file,
            hyperparameters=hyperparameters,
            wandb_config=wandb_config,
            suffix=suffix,
        )
        _refuse("create")

    @classmethod
    def get(cls, fine_tune_id: str) -> GetFineTuneResponse:
        """How a fine-tune stands."""
        _check(fine_tune_id)
        _refuse("get")

    @classmethod
    def get_events(cls, fine_tune_id: str) -> GetFineTuneEventsResponse:
        """What happened in a fine-tune so far, losses included."""
        _check(fine_tune_id)
        _refuse("get_events")

    @classmethod
    def list(cls) -> ListFineTunesResponse:
        """Your fine-tunes."""
        _refuse("list")

    @classmethod
    def cancel(cls, fine_tune_id: str) -> CancelFineTuneResponse:
        """Stop a fine-tune."""
        _check(fine_tune_id)
        _refuse("cancel")


def _check(fine_tune_id: str) -> None:
    text("fine_tune_id", fine_tune_id, "the id of a fine-tune, ft-…")


def _refuse(method: str) -> NoReturn:
    raise UnsupportedFeatureError(
        f"FineTune.{method} needs fine-tuning, which comes with a later version of llmengine and its plugin "
        "llmengine-peft"
    )
