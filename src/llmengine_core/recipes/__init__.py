"""What to install for an engine with a quantizer, a masker and the like beside it: pure.

Each part brings a list of builds (``EnvironmentBuild``) that it is known to work with. A merge takes one of
each, the first that fit together, and is a ``Recipe``; or it is a ``Conflict`` that says what keeps them apart.
The same content gives the same recipe, in whatever order the parts were named.
"""

from __future__ import annotations

from llmengine_core.recipes.composing import (
    compose,
    environment_specs,
    masker_for,
    owners,
    pins_wanted,
    quantizer_for,
)
from llmengine_core.recipes.merging import merge
from llmengine_core.recipes.recipe import Conflict, Recipe
from llmengine_core.recipes.versions import (
    ANY_VERSION,
    allows,
    canonical,
    holds,
    is_version,
    parse_pins,
    requirement,
)

__all__ = [
    "ANY_VERSION",
    "Conflict",
    "Recipe",
    "allows",
    "canonical",
    "compose",
    "environment_specs",
    "holds",
    "is_version",
    "masker_for",
    "merge",
    "owners",
    "parse_pins",
    "pins_wanted",
    "quantizer_for",
    "requirement",
]
