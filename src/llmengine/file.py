"""Files: private data for fine-tunes."""

from __future__ import annotations

import base64
from functools import partial
from typing import IO

from llmengine.api_engine import APIEngine, get_caller
from llmengine.data_types.file import (
    DeleteFileResponse,
    GetFileContentResponse,
    GetFileResponse,
    ListFilesResponse,
    UploadFileResponse,
)
from llmengine.uploads import Upload
from llmengine_core.arguments.checks import text
from llmengine_core.responses import file_response
from llmengine_core.sync import call

__all__ = ["File"]

FILE_ID = "the id of a file, file-…"


class File(APIEngine):
    """Files that only their owner sees.

    Example::

        import io
        from llmengine import File

        uploaded = File.upload(io.BytesIO(b"prompt,response\\nhi,hello\\n"))
        print(File.download(uploaded.id).content)
    """

    @classmethod
    def upload(cls, file: IO[bytes] | IO[str]) -> UploadFileResponse:
        """Store an open file's content, from its current position on; streamed.

        A file that is open as text gives the raw bytes behind it. Nothing is left behind where it breaks off.

        Example::

            from llmengine import File

            with open("training_dataset.csv", "w") as file:
                file.write("prompt,response\\nhi,hello\\n")
            with open("training_dataset.csv", "r") as file:
                print(File.upload(file).json())
        """
        upload = Upload(file)
        engine = cls._engine()
        store = partial(engine.files.upload, upload.pieces(), filename=upload.filename, caller=get_caller())
        return UploadFileResponse(id=call(engine, store, instead="engine.files.upload").id)

    @classmethod
    def get(cls, file_id: str) -> GetFileResponse:
        """A file's name and its size in bytes; raises ``NotFoundError``.

        Example::

            import io
            from llmengine import File

            uploaded = File.upload(io.BytesIO(b"hello"))
            print(File.get(uploaded.id).json())
        """
        key = text("file_id", file_id, FILE_ID)
        engine = cls._engine()
        get = partial(engine.files.get, key, caller=get_caller())
        return GetFileResponse.model_validate(file_response(call(engine, get, instead="engine.files.get")))

    @classmethod
    def download(cls, file_id: str) -> GetFileContentResponse:
        """A file's content as text, or as base64 where it isn't UTF-8; raises ``NotFoundError``.

        Example::

            import io
            from llmengine import File

            uploaded = File.upload(io.BytesIO(b"hello"))
            print(File.download(uploaded.id).content)
        """
        key = text("file_id", file_id, FILE_ID)
        engine = cls._engine()

        async def read() -> bytes:
            return b"".join([piece async for piece in engine.files.read(key, caller=caller)])

        caller = get_caller()
        content = call(engine, read, instead="engine.files.read")
        return GetFileContentResponse(id=key, content=_as_text(content))

    @classmethod
    def list(cls) -> ListFilesResponse:
        """Your files, the oldest first.

        Example::

            from llmengine import File

            print(File.list().json())
        """
        engine = cls._engine()
        records = call(engine, partial(engine.files.list, caller=get_caller()), instead="engine.files.list")
        return ListFilesResponse.model_validate({"files": [file_response(each) for each in records]})

    @classmethod
    def delete(cls, file_id: str) -> DeleteFileResponse:
        """Remove a file; raises ``NotFoundError``.

        Example::

            import io
            from llmengine import File

            uploaded = File.upload(io.BytesIO(b"hello"))
            print(File.delete(uploaded.id).json())
        """
        key = text("file_id", file_id, FILE_ID)
        engine = cls._engine()
        delete = partial(engine.files.delete, key, caller=get_caller())
        return DeleteFileResponse(deleted=call(engine, delete, instead="engine.files.delete"))


def _as_text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return base64.b64encode(content).decode("ascii")
