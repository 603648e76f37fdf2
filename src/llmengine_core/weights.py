"""Where a spec's weights are, and what they are: by its checkpoint_path, or by the card of its base model."""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from typing import NamedTuple

from llmengine_core.looks import HERE, Absent, Unreachable, look, scheme_of, shown, split_location
from llmengine_core.registry import Registry
from llmengine_core.types.models import ModelCard, ModelSpec, WeightsSource
from llmengine_core.types.plan import CheckpointFacts, Problem
from llmengine_core.urls import UrlPolicy

__all__ = ["Located", "find_base", "find_weights", "locate", "look_again"]

REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
"""What names on the hub look like."""
MOST_NAMED = 8
"""Base models that an error names; more are counted."""


async def find_weights(
    spec: ModelSpec, card: ModelCard | None, registry: Registry, policy: UrlPolicy, *, afar: bool = True
) -> CheckpointFacts:
    """What can be seen of the weights that a spec names; what is wrong is a ``Problem`` in it.

    ``policy`` says where URLs may lead. Unless ``afar``, weights of a card that lie elsewhere aren't looked at:
    they are taken at the card's word.
    """
    if spec.checkpoint_path is not None:
        return await _look(spec.checkpoint_path, registry, policy)
    if card is None:
        mend = "name a base model that is known, or give a checkpoint_path"
        if REPOSITORY.fullmatch(spec.model):
            mend = f"checkpoint_path='hf://{spec.model}', if that is a repository of the Hugging Face hub"
        problem = _unknown(spec.model, "there is no checkpoint_path", mend, registry)
        return CheckpointFacts(url="", problem=problem)
    return await _find_by_card(card, registry, policy, afar=afar)


async def find_base(
    spec: ModelSpec, card: ModelCard | None, registry: Registry, policy: UrlPolicy, *, afar: bool = True
) -> CheckpointFacts:
    """The same for the base model of a spec whose checkpoint_path is an adapter."""
    if card is None:
        mend = "name the base model that the adapter was trained on"
        problem = _unknown(spec.model, "the checkpoint_path is only an adapter", mend, registry)
        return CheckpointFacts(url="", problem=problem)
    return await _find_by_card(card, registry, policy, afar=afar)


async def look_again(checkpoint: CheckpointFacts, registry: Registry, policy: UrlPolicy) -> CheckpointFacts:
    """What lies now where weights were taken at a card's word; what was said of them stays where nothing is seen.

    A ``Problem`` in it says why they can't be had.
    """
    seen = await _look(checkpoint.url, registry, policy)
    if seen.problem is not None:
        return replace(checkpoint, problem=seen.problem)
    return _vouched(
        replace(
            seen,
            parameters=seen.parameters or checkpoint.parameters,
            context_length=seen.context_length or checkpoint.context_length,
        ),
        checkpoint.url,
        checkpoint.sha256,
    )


class Located(NamedTuple):
    """Where the files of weights that lie elsewhere are."""

    url: str
    """Of the folder, to open a storage at."""
    keys: tuple[str, ...]
    """Their keys there, in the order of ``CheckpointFacts.files``."""
    served: str | None
    """The name of the file among them that is served, with all the others beside it; None for the folder."""


def locate(checkpoint: CheckpointFacts) -> Located:
    """Where the files of a checkpoint that has some are."""
    root, key = split_location(checkpoint.url)
    names = tuple(file.name for file in checkpoint.files)
    if names and names[0] in (key, key.partition("?")[0]):
        return Located(root, (key, *names[1:]), names[0])
    return Located(checkpoint.url.rstrip("/"), names, None)


async def _find_by_card(
    card: ModelCard, registry: Registry, policy: UrlPolicy, *, afar: bool
) -> CheckpointFacts:
    problems: list[Problem] = []
    for source in card.sources:
        facts = await _look_at_source(source, card, registry, policy, afar=afar)
        if facts.problem is None:
            return facts
        problems.append(facts.problem)
    reasons = "; ".join(problem.message for problem in problems)
    mends = dict.fromkeys(problem.mend for problem in problems if problem.mend)
    problem = Problem(f"the weights of {card.name!r} are not here: {reasons}", ", or ".join(mends) or None)
    return CheckpointFacts(url=card.sources[0].url, problem=problem)


def _unknown(model: str, besides: str, mend: str, registry: Registry) -> Problem:
    close = sorted(name for name in registry.models if model.lower() in name.lower())[:3]
    close = close or difflib.get_close_matches(model, registry.models, n=3)
    known = f"known are {', '.join(sorted(registry.models)) or 'none'}"
    if len(registry.models) > MOST_NAMED:
        known = f"`llmengine models zoo` lists the {len(registry.models)} that are known"
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else known
    return Problem(
        f"no base model is called {model!r}, and {besides}; {hint}",
        f"model={close[0]!r}" if close else mend,
    )


async def _look_at_source(
    source: WeightsSource, card: ModelCard, registry: Registry, policy: UrlPolicy, *, afar: bool
) -> CheckpointFacts:
    """A source, held against its card; one elsewhere that can't be reached now is taken at the card's word."""
    scheme = scheme_of(source.url)
    elsewhere = scheme not in HERE and scheme in registry.storages_by_scheme
    said = CheckpointFacts(
        url=source.url,
        format=source.format,
        size=source.size,
        sha256=source.sha256,
        quantization=source.quantization,
        parameters=card.parameters,
        context_length=card.context_length,
    )
    if elsewhere and not afar:
        return said
    try:
        seen = await look(source.url, registry, policy)
    except Unreachable as error:
        if elsewhere:
            return said
        return CheckpointFacts(url=source.url, problem=_with(error.problem, source.mend))
    except Absent as error:
        return CheckpointFacts(url=source.url, problem=_with(error.problem, source.mend))
    problem = seen.problem
    single = seen.format == "gguf" or source.sha256 is not None
    if problem is None and single and source.size is not None and source.size != seen.size:
        problem = Problem(f"{shown(source.url)} has {seen.size:,} bytes, but {source.size:,} are expected")
    if problem is not None:
        return replace(seen, problem=_with(problem, source.mend))
    seen = replace(
        seen,
        parameters=seen.parameters or card.parameters,
        context_length=seen.context_length or card.context_length,
    )
    return _vouched(seen, source.url, source.sha256)


def _with(problem: Problem, mend: str | None) -> Problem:
    return replace(problem, mend=mend or problem.mend)


def _vouched(seen: CheckpointFacts, url: str, sha256: str | None) -> CheckpointFacts:
    """What was seen at a URL, with the digest that somebody else than its storage vouches for."""
    if not seen.files:
        return replace(seen, url=url, sha256=sha256)
    if sha256 is None or len(seen.files) > 1:
        return seen
    (file,) = seen.files
    if file.sha256 not in (None, sha256):
        message = f"{shown(seen.url)} has the SHA-256 {file.sha256}, but {sha256} is expected"
        return replace(seen, sha256=sha256, problem=Problem(message))
    return replace(seen, sha256=sha256, files=(replace(file, sha256=sha256),))


async def _look(location: str, registry: Registry, policy: UrlPolicy) -> CheckpointFacts:
    """What is at a path or URL; that nothing can be seen is a ``Problem``."""
    try:
        return await look(location, registry, policy)
    except Absent as error:
        return CheckpointFacts(url=location, problem=error.problem)
