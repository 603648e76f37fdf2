"""Sessions whose answers are wrong."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace

from tests.contract.mutants import Mutant
from tests.contract.mutants.toys import toy_mutant

from llmengine_core.testing.toy import ToySession
from llmengine_core.types.generation import GenerationChunk, GenerationRequest


class CumulativeText(ToySession):
    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        so_far = ""
        async for chunk in super().generate(request):
            so_far += chunk.text
            yield replace(chunk, text=so_far)


MUTANTS: list[Mutant] = [
    toy_mutant("cumulative_text", "each chunk repeats all text so far", CumulativeText, killers=()),
]
