"""What Transformers itself makes of a folder, run by path in the engine's environment.

Standard input brings ``{"folder", "texts", "prompts", "count"}`` as one JSON document; the answer has the tokens of
each text, and for each prompt the greedy tokens that follow, with how far each was ahead of the next (natural
logarithm).
"""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    asked = json.load(sys.stdin)
    tokenizer = AutoTokenizer.from_pretrained(asked["folder"])
    model = AutoModelForCausalLM.from_pretrained(asked["folder"], dtype=torch.float32)
    torch.set_num_threads(1)
    followed = []
    for prompt in asked["prompts"]:
        tokens = torch.tensor([tokenizer(prompt).input_ids])
        made = model.generate(
            tokens,
            max_new_tokens=asked["count"],
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        best = [logits[0].topk(2).values for logits in made.logits]
        followed.append(
            {
                "tokens": made.sequences[0, tokens.shape[1] :].tolist(),
                "ahead": [float(first - second) for first, second in best],
            }
        )
    json.dump(
        {"texts": [tokenizer(text).input_ids for text in asked["texts"]], "prompts": followed}, sys.stdout
    )


if __name__ == "__main__":
    main()
