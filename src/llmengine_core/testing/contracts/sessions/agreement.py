"""Whether answers that were given beside others are those that are given alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmengine_core.testing.answers import Answer
from llmengine_core.testing.contracts.sessions.streams import StreamGround

__all__ = ["AgreementGround"]

TELLING = 8
"""Characters of an answer from which on no other prompt has the same by chance."""
SEVERAL = 4
"""Different answers that don't all meet a near tie at their beginnings."""


class AgreementGround(StreamGround):
    """How laws compare answers under load with answers alone, as closely as what is declared allows."""

    @property
    def comparable(self) -> Mapping[str, Any]:
        """What a request asks for besides, so that its answer can be compared."""
        return {"logprobs": True} if self.capabilities.logprobs else {}

    def as_alone(self, alone: Sequence[Answer], together: Sequence[Answer], why: str) -> None:
        """Raise ``AssertionError`` unless greedy answers under load are those alone.

        They are equal where that is declared; elsewhere they part at near ties only, as log probs tell. Where
        there are none, no answer may be another's, and they don't all begin otherwise than alone.
        """
        for one, other in zip(alone, together, strict=True):
            self._count_alike(one, other, why)
        if self.capabilities.batch_invariant:
            for one, other in zip(alone, together, strict=True):
                seen = [(each.text, each.finish_reason, each.usage) for each in (one, other)]
                assert seen[0] == seen[1], (
                    f"{why}: {seen[0]} and {seen[1]}, though batch_invariant is declared"
                )
        elif self.capabilities.logprobs:
            for one, other in zip(alone, together, strict=True):
                self.same_greedy(one, other, why)
        else:
            self._not_each_others(alone, together, why)

    def _count_alike(self, alone: Answer, together: Answer, why: str) -> None:
        counts = alone.usage.prompt_tokens, together.usage.prompt_tokens
        assert counts[0] == counts[1], (
            f"{why}: the prompt has {counts[0]} tokens alone, {counts[1]} beside others"
        )
        assert together.finish_reason in ("stop", "length"), (
            f"{why}: it ended with {together.finish_reason!r}, though nobody has closed the session"
        )
        if alone.finish_reason == together.finish_reason == "length":
            ended = alone.usage.completion_tokens, together.usage.completion_tokens
            assert ended[0] == ended[1], (
                f"{why}: {ended[0]} tokens reach the limit alone, {ended[1]} beside others"
            )

    def _not_each_others(self, alone: Sequence[Answer], together: Sequence[Answer], why: str) -> None:
        texts = [each.text for each in alone]
        for number, answer in enumerate(together):
            for other, text in enumerate(texts):
                if len(text) < TELLING or text == texts[number] or answer.text == texts[number]:
                    continue
                assert answer.text != text, (
                    f"{why}: request {number} was answered {answer.text!r}, which is the answer to request {other}; "
                    f"alone it gets {texts[number]!r}"
                )
        begin = {
            one.text: other.text[: (len(one.text) + 3) // 4] == one.text[: (len(one.text) + 3) // 4]
            for one, other in zip(alone, together, strict=True)
        }
        assert any(begin.values()) or len(begin) < SEVERAL, (
            f"{why}: none of {len(together)} answers begins as it does alone: {texts} and "
            f"{[each.text for each in together]}"
        )
