"""How an engine is set up: arguments, then the environment, then ``llmengine.toml``, then defaults."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any

import platformdirs
from pydantic import BeforeValidator, ByteSize, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from llmengine_core.errors import BadRequestError

__all__ = ["Settings", "load_settings"]

TOML_NAME = "llmengine.toml"


def _names(value: object) -> object:
    """ "a, b" as ("a", "b"); environment variables hold lists this way."""
    if isinstance(value, str):
        return tuple(name for name in (part.strip() for part in value.split(",")) if name)
    return value


def _bytes(given: Any) -> Any:
    """50Gi, as sizes are written elsewhere, is 50GiB."""
    return f"{given}B" if isinstance(given, str) and given.endswith("i") else given


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)]


def default_home() -> Path:
    """``LLMENGINE_HOME``, or the platform's folder for a user's application state."""
    return Path(os.environ.get("LLMENGINE_HOME") or platformdirs.user_data_dir("llmengine", appauthor=False))


class Settings(BaseSettings):
    """What an ``Engine`` needs to know.

    Each field is also the environment variable ``LLMENGINE_<FIELD>`` and a key of ``llmengine.toml``, looked
    for in the current folder and then in ``home``.
    """

    model_config = SettingsConfigDict(env_prefix="LLMENGINE_", extra="forbid", frozen=True)

    home: Annotated[Path, BeforeValidator(lambda given: given or default_home())] = Field(
        default_factory=default_home
    )
    """Where all state lives."""
    database_url: str = ""
    """Where metadata lives; empty is ``sqlite:///<home>/state.db``."""
    storage_url: str = ""
    """Where objects live; empty is ``file://<home>/objects``."""
    plugins: Names | None = None
    """Only these plugins, besides those of the database and the storage; None is all that are installed."""
    disabled_plugins: Names = ()
    """Not these plugins."""
    idle_seconds: Annotated[float, Field(gt=0)] = 300.0
    """A replica above ``min_workers`` that served nobody for this long is ended."""
    start_seconds: Annotated[float, Field(gt=0)] = 900.0
    """A replica that isn't ready after this long has failed."""
    queue_size: Annotated[int, Field(ge=0)] = 1024
    """Requests that may wait for one model; one more is refused."""
    private_hosts: Names = ()
    """Hosts that URLs of users may lead to although they are not public: names, addresses, or networks such as
    10.0.0.0/8. Others on private, loopback and link-local addresses are refused."""
    weights_size: Annotated[ByteSize, BeforeValidator(_bytes), Field(gt=0)] = ByteSize(200 << 30)
    """Most that fetched and derived weights may take on this machine together; beyond it those go first that were
    used longest ago, never those in use."""
    allow_remote_code: bool = False
    """Whether code that comes with a checkpoint may run, with this user's rights. Allow it for checkpoints only
    whose code you have read."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        files = [path for path in (Path(TOML_NAME), default_home() / TOML_NAME) if path.is_file()]
        return init_settings, env_settings, *(TomlConfigSettingsSource(settings_cls, path) for path in files)

    @property
    def effective_database_url(self) -> str:
        """``database_url``, or the default under ``home``."""
        return self.database_url or f"sqlite:///{self.home.absolute() / 'state.db'}"

    @property
    def effective_storage_url(self) -> str:
        """``storage_url``, or the default under ``home``."""
        return self.storage_url or (self.home.absolute() / "objects").as_uri()


def load_settings(**fields: Any) -> Settings:
    """Settings with what was given laid over environment, file and defaults.

    Raises ``BadRequestError`` that names every field that is wrong; values are not repeated in it.
    """
    try:
        return Settings(**fields)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}"
            for e in error.errors(include_url=False, include_input=False)
        )
        raise BadRequestError(
            f"the settings are wrong: {faults}. Mend the LLMENGINE_* variables or {TOML_NAME}."
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise BadRequestError(f"{TOML_NAME}, here or in {default_home()}, is no TOML: {error}") from None
