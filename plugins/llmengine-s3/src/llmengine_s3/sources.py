"""Where credentials may be: variables, profiles, web identity, a container's and an instance's roles."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from llmengine_core.http import HttpError
from llmengine_core.interfaces.storage import StorageError
from llmengine_s3.answers import Unreadable, fault_of, seconds_of, text_of
from llmengine_s3.configuration import Configuration, Origin, is_on, origin_of
from llmengine_s3.credentials import Credentials, Found
from llmengine_s3.pool import Pool
from llmengine_s3.signing import query_of

__all__ = ["sources"]

NEAR = 1.0
"""Seconds that a service on this machine may take to answer; where there is none, that is what it costs to see."""
FAR = 10.0
"""Seconds that a service elsewhere may take."""
CONTAINER = "http://169.254.170.2"
INSTANCE = "http://169.254.169.254"
TOKEN_SECONDS = "21600"
_MOST = 1 << 20
_LINKS = (
    ip_network("169.254.170.0/23"),
    ip_network("fd00:ec2::23/128"),
    ip_network("127.0.0.0/8"),
    ip_network("::1/128"),
)
"""Where a container's service may be spoken to without TLS."""
_BY_BOTOCORE = frozenset({"role_arn", "sso_session", "sso_start_url", "credential_process", "login_session"})
_TRY = "see what `aws sts get-caller-identity` says"


def sources(found: Configuration, trusted: ssl.SSLContext | None) -> list[Found]:
    """Where to look, in the order in which AWS's own clients do."""
    variables = found.environment
    return [
        partial(_of_variables, variables),
        partial(_of_web_identity, found, trusted),
        partial(_of_profile, found),
        partial(_of_container, variables, trusted),
        partial(_of_instance, variables),
    ]


async def _of_variables(variables: Mapping[str, str]) -> Credentials | None:
    access, secret = variables.get("AWS_ACCESS_KEY_ID"), variables.get("AWS_SECRET_ACCESS_KEY")
    if bool(access) != bool(secret):
        there, missing = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")[:: 1 if access else -1]
        raise StorageError(f"{there} is set, and {missing} is not; set both or none")
    if not access or not secret:
        return None
    return _checked(Credentials(access, secret, variables.get("AWS_SESSION_TOKEN")), "of the environment")


async def _of_profile(found: Configuration) -> Credentials | None:
    profile, name = found.profile, found.profile_name
    if asked := sorted(_BY_BOTOCORE & profile.keys()):
        return await asyncio.to_thread(_by_botocore, name, asked[0])
    access, secret = profile.get("aws_access_key_id"), profile.get("aws_secret_access_key")
    if bool(access) != bool(secret):
        raise StorageError(
            f"the profile {name!r} has only one of aws_access_key_id and aws_secret_access_key; it needs both"
        )
    if not access or not secret:
        return None
    return _checked(Credentials(access, secret, profile.get("aws_session_token")), f"of the profile {name!r}")


def _checked(found: Credentials, where: str) -> Credentials:
    """Credentials that can stand in a header."""
    for text, name in (
        (found.access_key, "access key"),
        (found.secret, "secret"),
        (found.token or "-", "token"),
    ):
        if not (text.isascii() and text.isprintable()) or text != text.strip() or " " in text:
            raise StorageError(f"the {name} {where} has spaces or odd characters in it; copy it again")
    return found


def _by_botocore(name: str, why: str) -> Credentials:
    """Of a profile that borrows a role, logs in or asks a program, which AWS's own library knows how to do."""
    try:
        import botocore.exceptions
        import botocore.session
    except ImportError:
        raise StorageError(
            f"the profile {name!r} says {why}, which AWS's own library sees to: `pip install botocore`, "
            "or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from None
    try:
        session = botocore.session.Session(profile=name)
        credentials = session.get_credentials()
        if credentials is None:
            raise StorageError(f"the profile {name!r} says {why}, and gives no credentials; {_TRY}")
        frozen = credentials.get_frozen_credentials()
        expiry = getattr(credentials, "_expiry_time", None)
        return Credentials(
            frozen.access_key, frozen.secret_key, frozen.token, None if expiry is None else expiry.timestamp()
        )
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        raise StorageError(
            f"the profile {name!r} gives no credentials by {why} ({type(error).__name__}); "
            f"{_TRY}, or log in anew"
        ) from None


async def _of_web_identity(found: Configuration, trusted: ssl.SSLContext | None) -> Credentials | None:
    variables = found.environment
    file, role = variables.get("AWS_WEB_IDENTITY_TOKEN_FILE"), variables.get("AWS_ROLE_ARN")
    if not file or not role:
        return None
    token = await asyncio.to_thread(_token, file, "AWS_WEB_IDENTITY_TOKEN_FILE")
    domain = "amazonaws.com.cn" if found.region.startswith("cn-") else "amazonaws.com"
    url = variables.get("AWS_ENDPOINT_URL_STS") or f"https://sts.{found.region}.{domain}"
    origin = origin_of(url, "the endpoint URL of STS")
    if origin.tls and trusted is None:
        trusted = await asyncio.to_thread(ssl.create_default_context)
    asked = query_of(
        {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": role,
            "RoleSessionName": variables.get("AWS_ROLE_SESSION_NAME", "llmengine"),
            "WebIdentityToken": token,
        }
    )
    headers = {"content-type": "application/x-www-form-urlencoded"}
    what = f"STS ({origin}) for the role {role}"
    status, body = await _asked(origin, "POST", "/", headers, asked.encode(), trusted, FAR, what)
    if status != 200:
        fault = fault_of(status, {}, body)
        raise StorageError(
            f"{what} refused: {fault.code or status} {fault.message}; check the role's trust and the token"
        )
    try:
        return Credentials(
            text_of(body, "AccessKeyId"),
            text_of(body, "SecretAccessKey"),
            text_of(body, "SessionToken"),
            seconds_of(text_of(body, "Expiration")),
        )
    except Unreadable as error:
        raise StorageError(f"{what} answers something else: {error}") from None


async def _of_container(variables: Mapping[str, str], trusted: ssl.SSLContext | None) -> Credentials | None:
    relative, full = (variables.get(f"AWS_CONTAINER_CREDENTIALS_{each}_URI") for each in ("RELATIVE", "FULL"))
    url = CONTAINER + relative if relative else full
    if not url:
        return None
    parts = urlsplit(url)
    origin = origin_of(f"{parts.scheme}://{parts.netloc}", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
    if not origin.tls and not _is_near(origin.host):
        raise StorageError(
            f"AWS_CONTAINER_CREDENTIALS_FULL_URI leads to {origin.host!r} without TLS; allowed are https, loopback "
            "addresses, and those of container services"
        )
    if origin.tls and trusted is None:
        trusted = await asyncio.to_thread(ssl.create_default_context)
    headers = {}
    if file := variables.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"):
        headers["authorization"] = await asyncio.to_thread(
            _token, file, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"
        )
    elif token := variables.get("AWS_CONTAINER_AUTHORIZATION_TOKEN"):
        headers["authorization"] = token.strip()
    path = quote(parts.path or "/", safe="/%") + (f"?{parts.query}" if parts.query else "")
    what = f"the container's service of credentials ({origin})"
    status, body = await _asked(origin, "GET", path, headers, b"", trusted, FAR, what)
    if status != 200:
        raise StorageError(f"{what} answered {status}; check the role of the task or the pod")
    return _of_json(body, what)


async def _of_instance(variables: Mapping[str, str]) -> Credentials | None:
    if is_on(variables, "AWS_EC2_METADATA_DISABLED"):
        return None
    url = variables.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or INSTANCE
    origin = origin_of(url, "AWS_EC2_METADATA_SERVICE_ENDPOINT")
    what = f"the instance's metadata ({origin})"
    path = "/latest/meta-data/iam/security-credentials/"
    wanted = {"x-aws-ec2-metadata-token-ttl-seconds": TOKEN_SECONDS}
    try:
        status, token = await _asked(origin, "PUT", "/latest/api/token", wanted, b"", None, NEAR, what)
        if status != 200:
            return None
        headers = {"x-aws-ec2-metadata-token": token.decode("latin-1").strip()}
        status, role = await _asked(origin, "GET", path, headers, b"", None, NEAR, what)
    except StorageError:  # nobody there: this is no instance of EC2
        return None
    if status != 200 or not role.strip():
        return None
    name = quote(role.decode(errors="replace").splitlines()[0].strip(), safe="")
    status, body = await _asked(origin, "GET", path + name, headers, b"", None, NEAR, what)
    if status != 200:
        raise StorageError(f"{what} answered {status} for the role; check the instance's profile")
    return _of_json(body, what)


def _of_json(body: bytes, what: str) -> Credentials:
    try:
        told: dict[str, Any] = json.loads(body)
        return Credentials(
            told["AccessKeyId"],
            told["SecretAccessKey"],
            told.get("Token"),
            seconds_of(told.get("Expiration")),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StorageError(f"{what} answers something else than credentials") from None


async def _asked(
    origin: Origin,
    method: str,
    path: str,
    headers: Mapping[str, str],
    content: bytes,
    trusted: ssl.SSLContext | None,
    seconds: float,
    what: str,
) -> tuple[int, bytes]:
    """Status and body of one request. Raises ``StorageError`` where there is no answer within ``seconds``."""
    sent = {"host": origin.named, "content-length": str(len(content)), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    pool = Pool(trusted, connect=seconds)
    try:
        async with asyncio.timeout(seconds):
            line, _ = await pool.take(origin)
            await line.exchange(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode(), content)
            body = b""
            while len(body) < _MOST and (piece := await line.read()):
                body += piece
            return line.status, body
    except (OSError, HttpError) as error:  # TimeoutError among them
        why = f"it took more than {seconds:g} s" if isinstance(error, TimeoutError) else type(error).__name__
        raise StorageError(f"{what} gives no credentials: {why}") from None
    finally:
        await pool.aclose()


def _is_near(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost"
    return any(address in each for each in _LINKS if each.version == address.version)


def _token(file: str, variable: str) -> str:
    try:
        with Path(file).open(encoding="ascii") as opened:
            token = opened.read(65_536).strip()
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "it holds no token"
        raise StorageError(f"{variable} is {file!r}, which can't be read: {why}") from None
    if not token or not token.isprintable():
        raise StorageError(f"{variable} is {file!r}, which holds no token")
    return token
