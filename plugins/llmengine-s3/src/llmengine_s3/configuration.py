"""Where a bucket is and how it is spoken to: by the variables and files that all S3 clients read."""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from llmengine_core.interfaces.storage import StorageError

__all__ = ["Configuration", "Origin", "configuration", "environment", "is_on", "origin_of"]

_MAX_FILE = 1 << 20


@dataclass(frozen=True, slots=True)
class Origin:
    """A server: where it listens, and how it names itself."""

    tls: bool
    host: str
    port: int

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.named}"

    @property
    def named(self) -> str:
        """The Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Configuration:
    """What was found."""

    endpoint: Origin | None
    """Named by the operator; None is AWS's own for the region."""
    region: str
    addressing: str
    """ "path", "virtual", or "auto"."""
    ca_bundle: str | None
    environment: Mapping[str, str] = field(repr=False)
    profile_name: str
    profile: Mapping[str, str] = field(repr=False)
    """Its settings, of both files."""

    def origin(self, bucket: str) -> tuple[Origin, str]:
        """The server of a bucket, and what stands before keys in its paths: "/" or "/bucket/"."""
        whole = self.endpoint or Origin(True, f"{self._service}.{self.region}.{_domain(self.region)}", 443)
        style = self.addressing
        if style == "auto":
            plain = bucket == bucket.lower() and "." not in bucket and "_" not in bucket
            style = "virtual" if self.endpoint is None and plain else "path"
        if style == "virtual":
            return Origin(whole.tls, f"{bucket}.{whole.host}", whole.port), "/"
        return whole, f"/{bucket}/"

    @property
    def _service(self) -> str:
        """What AWS calls its own servers."""
        name = "s3-fips" if is_on(self.environment, "AWS_USE_FIPS_ENDPOINT") else "s3"
        return f"{name}.dualstack" if is_on(self.environment, "AWS_USE_DUALSTACK_ENDPOINT") else name


def is_on(variables: Mapping[str, str], name: str) -> bool:
    """Whether a variable says yes."""
    return variables.get(name, "").lower() in ("1", "true", "yes")


def environment() -> dict[str, str]:
    """The variables of this process that matter: one that is empty is as good as none."""
    return {
        name: value
        for name, value in os.environ.items()
        if value and (name.startswith("AWS_") or name in ("HOME", "USERPROFILE"))
    }


def configuration(variables: Mapping[str, str]) -> Configuration:
    """What variables and the files that they name say. Reads files; raises ``StorageError``."""
    name = variables.get("AWS_PROFILE") or variables.get("AWS_DEFAULT_PROFILE") or "default"
    profile, services = _profile(variables, name)
    own = _nested(profile.get("s3", ""))
    ignored = is_on(variables, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")
    endpoint = "" if ignored else _endpoint(variables, profile, services)
    region = variables.get("AWS_REGION") or variables.get("AWS_DEFAULT_REGION") or profile.get("region")
    addressing = own.get("addressing_style", "auto")
    if is_on(variables, "AWS_VIRTUAL_HOSTED_STYLE_REQUEST"):
        addressing = "virtual"
    if addressing not in ("auto", "path", "virtual"):
        raise StorageError(
            f"addressing_style of the profile {name!r} is {addressing!r}; allowed are auto, path and virtual"
        )
    return Configuration(
        endpoint=origin_of(endpoint, "the endpoint URL of S3") if endpoint else None,
        region=region or "us-east-1",
        addressing=addressing,
        ca_bundle=variables.get("AWS_CA_BUNDLE") or profile.get("ca_bundle"),
        environment=variables,
        profile_name=name,
        profile=profile,
    )


def origin_of(url: str, what: str) -> Origin:
    """The server that a URL names. Raises ``StorageError``, which holds no more of it than its scheme and host."""
    allowed = "allowed is http://host:port or https://host:port"
    if "@" in url:
        raise StorageError(f"{what} holds a user name or a password; {allowed}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise StorageError(f"{what} is none; {allowed}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise StorageError(f"{what} is {parts.scheme}://{parts.netloc}...; {allowed}, with nothing behind it")
    tls = parts.scheme == "https"
    return Origin(tls, parts.hostname, port or (443 if tls else 80))


def _endpoint(variables: Mapping[str, str], profile: Mapping[str, str], services: Mapping[str, str]) -> str:
    found = (
        variables.get("AWS_ENDPOINT_URL_S3"),
        variables.get("AWS_ENDPOINT_URL"),
        _nested(services.get("s3", "")).get("endpoint_url"),
        profile.get("endpoint_url"),
    )
    return next((each for each in found if each), "")


def _profile(variables: Mapping[str, str], name: str) -> tuple[dict[str, str], Mapping[str, str]]:
    """The settings of a profile, and those of the services that it names."""
    home = variables.get("HOME") or variables.get("USERPROFILE") or "~"
    shared = Path(variables.get("AWS_SHARED_CREDENTIALS_FILE", f"{home}/.aws/credentials")).expanduser()
    other = Path(variables.get("AWS_CONFIG_FILE", f"{home}/.aws/config")).expanduser()
    configured, secret = _read(other), _read(shared)
    section = name if name == "default" and "default" in configured else f"profile {name}"
    if name != "default" and section not in configured and name not in secret:
        known = {
            each.removeprefix("profile ") for each in configured if not each.startswith(("services ", "sso-"))
        }
        raise StorageError(
            f"AWS_PROFILE is {name!r}, and neither {other} nor {shared} has it; "
            f"they have: {', '.join(sorted(known | set(secret))) or 'none'}"
        )
    found = {**configured.get(section, {}), **secret.get(name, {})}
    return found, configured.get(f"services {found.get('services', '')}", {})


def _read(path: Path) -> dict[str, dict[str, str]]:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_MAX_FILE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeError) as error:
        raise StorageError(
            f"can't read {path}: {getattr(error, 'strerror', None) or 'it is no UTF-8'}"
        ) from None
    if len(text) > _MAX_FILE:
        raise StorageError(f"{path} has more than {_MAX_FILE} characters; is it the right file?")
    parser = configparser.RawConfigParser(default_section="\0", strict=False)
    try:
        parser.read_string(text)
    except configparser.Error as error:  # its message quotes lines, which may be secrets
        raise StorageError(f"{path} is no file of profiles ({type(error).__name__}); correct it") from None
    return {section: dict(parser.items(section)) for section in parser.sections()}


def _nested(text: str) -> dict[str, str]:
    """The settings that are indented under one of a profile."""
    lines = (line.partition("=") for line in text.splitlines())
    return {name.strip(): value.strip() for name, sign, value in lines if sign}


def _domain(region: str) -> str:
    return "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
