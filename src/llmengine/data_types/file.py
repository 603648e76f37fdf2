"""Responses of files."""

from __future__ import annotations

from llmengine.data_types.payload import Payload

__all__ = [
    "DeleteFileResponse",
    "GetFileContentResponse",
    "GetFileResponse",
    "ListFilesResponse",
    "UploadFileResponse",
]


class UploadFileResponse(Payload):
    """What ``File.upload`` answers."""

    id: str


class GetFileResponse(Payload):
    """What is known of a file."""

    id: str
    filename: str
    """For display only; never a path."""
    size: int
    """Bytes."""


class ListFilesResponse(Payload):
    """What ``File.list`` answers."""

    files: list[GetFileResponse]


class DeleteFileResponse(Payload):
    """What ``File.delete`` answers."""

    deleted: bool


class GetFileContentResponse(Payload):
    """What ``File.download`` answers."""

    id: str
    content: str
    """The file's text; base64 where it isn't UTF-8."""
