"""What all requests and responses have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

__all__ = ["Payload"]


class Payload(BaseModel):
    """A request or a response: a pydantic model that also answers to the original client's method names.

    Example::

        >>> from llmengine.data_types import UploadFileResponse
        >>> UploadFileResponse.parse_obj({"id": "file-abc123"}).json()
        '{"id": "file-abc123"}'
    """

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    def dict(
        self,
        *,
        include: Any = None,
        exclude: Any = None,
        by_alias: bool | None = None,
        exclude_unset: bool = False,
        exclude_defaults: bool = False,
        exclude_none: bool = False,
        **others: Any,
    ) -> dict[str, Any]:
        """The fields as a dict, nested ones too; enums stay members."""
        return self.model_dump(
            include=include,
            exclude=exclude,
            by_alias=by_alias,
            exclude_unset=exclude_unset,
            exclude_defaults=exclude_defaults,
            exclude_none=exclude_none,
            **others,
        )

    def json(
        self,
        *,
        include: Any = None,
        exclude: Any = None,
        by_alias: bool | None = None,
        exclude_unset: bool = False,
        exclude_defaults: bool = False,
        exclude_none: bool = False,
        **dumps: Any,
    ) -> str:
        """The fields as JSON, null where there is nothing; ``dumps`` goes to ``json.dumps`` (``indent=2``)."""
        fields = self.dict(
            include=include,
            exclude=exclude,
            by_alias=by_alias,
            exclude_unset=exclude_unset,
            exclude_defaults=exclude_defaults,
            exclude_none=exclude_none,
            mode="json",
        )
        return json.dumps(fields, **dumps)

    @classmethod
    def parse_obj(cls, obj: Mapping[str, Any]) -> Self:
        """One made of a dict; raises ``pydantic.ValidationError`` where it doesn't fit."""
        return cls.model_validate(obj)
