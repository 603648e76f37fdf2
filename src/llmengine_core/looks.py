"""Looks at what lies at a path or URL: on this machine, in a package, or in a storage."""

from __future__ import annotations

import asyncio

from llmengine_core.errors import LLMEngineError
from llmengine_core.interfaces.storage import StorageError
from llmengine_core.locations import HERE, Absent, Unreachable, scheme_of, shown, split_location
from llmengine_core.looks_afar import look_afar
from llmengine_core.looks_here import look_here
from llmengine_core.plugins import describe_error
from llmengine_core.registry import Registry
from llmengine_core.types.plan import CheckpointFacts
from llmengine_core.urls import UrlPolicy

__all__ = ["HERE", "Absent", "Unreachable", "look", "scheme_of", "shown", "split_location"]

LOOK_SECONDS = 20.0
"""How long a storage may take to say what a checkpoint is."""


async def look(location: str, registry: Registry, policy: UrlPolicy) -> CheckpointFacts:
    """What is at a path or URL. Raises ``Absent`` where that can't be said; what is wrong with it is in the facts."""
    scheme, seen = scheme_of(location), shown(location)
    try:
        if scheme is None or scheme in HERE:
            return await asyncio.to_thread(look_here, location, scheme)
        async with asyncio.timeout(LOOK_SECONDS):
            return await look_afar(location, scheme, registry, policy)
    except TimeoutError:
        raise Unreachable(f"{seen} did not answer within {LOOK_SECONDS:g} s") from None
    except OSError as error:
        raise Unreachable(f"{seen} can't be read: {error.strerror or describe_error(error)}") from error
    except (StorageError, LLMEngineError) as error:
        raise Absent(f"{seen} can't be reached: {error}") from error
    except Absent:
        raise
    except Exception as error:  # a storage's own
        raise Absent(f"{seen} can't be reached: {describe_error(error)}") from error
