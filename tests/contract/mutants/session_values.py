"""Sessions that honour sampling values here, and not there."""

from __future__ import annotations

from dataclasses import replace

from tests.contract.mutants import Mutant
from tests.contract.mutants.session_sampling import AsksAnother
from tests.contract.mutants.toys import toy_mutant

from llmengine_core.testing.toy import CAPABILITIES
from llmengine_core.types.sampling import SamplingParams


class RoundsTemperature(AsksAnother):
    def instead(self, sampling: SamplingParams) -> SamplingParams:
        return replace(sampling, temperature=float(int(sampling.temperature)))


class PenalizesGreedyOnly(AsksAnother):
    def instead(self, sampling: SamplingParams) -> SamplingParams:
        if sampling.temperature == 0:
            return sampling
        return replace(sampling, presence_penalty=0.0, frequency_penalty=0.0)


class OneSeed(AsksAnother):
    def instead(self, sampling: SamplingParams) -> SamplingParams:
        return replace(sampling, seed=1)


class OneCut(AsksAnother):
    def instead(self, sampling: SamplingParams) -> SamplingParams:
        return sampling if sampling.top_k is None else replace(sampling, top_p=1.0)


MUTANTS: list[Mutant] = [
    toy_mutant(
        "rounded_temperature",
        "takes temperatures for whole numbers",
        RoundsTemperature,
        killers=("test_c02_a_temperature_below_one_still_draws",),
    ),
    toy_mutant(
        "greedy_penalties",
        "penalizes greedy answers alone",
        PenalizesGreedyOnly,
        killers=("test_a_presence_penalty_has_an_effect", "test_a_frequency_penalty_has_an_effect"),
    ),
    toy_mutant(
        "one_cut", "drops top_p beside top_k", OneCut, killers=("test_top_p_draws_from_the_likeliest",)
    ),
    toy_mutant(
        "one_seed_untold",
        "drops seeds, and tells no log probs",
        OneSeed,
        killers=("test_other_seeds_give_other_texts",),
        declared=replace(CAPABILITIES, logprobs=False),
    ),
]
