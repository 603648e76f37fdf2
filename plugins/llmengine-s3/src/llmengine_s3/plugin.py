"""What this plugin registers with llmengine."""

from __future__ import annotations

from llmengine_core.hookspecs import hookimpl
from llmengine_core.types.declarations import StorageInfo

__all__ = ["CONTRACT", "register_storages"]

CONTRACT = 1


@hookimpl
def register_storages() -> list[StorageInfo]:
    """Objects in buckets, by ``s3://bucket/prefix`` URLs."""
    return [StorageInfo(name="s3", schemes=frozenset({"s3"}), factory="llmengine_s3.storage:S3Storage")]
