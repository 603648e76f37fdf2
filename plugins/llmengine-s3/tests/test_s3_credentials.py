"""Whose requests they are: all the means by which S3 clients learn it, and nothing of it in any text."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from s3_stub import Asked, refusal, stub

from llmengine_core.interfaces.storage import StorageError
from llmengine_s3.configuration import configuration
from llmengine_s3.credentials import Credentials
from llmengine_s3.storage import S3Storage

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLE"
TOKEN = "FwoGZXIvYXdzEXAMPLETOKEN"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A home without settings."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@asynccontextmanager
async def opened(url: str = "s3://some-bucket/folder") -> AsyncIterator[S3Storage]:
    storage = S3Storage(url)
    try:
        yield storage
    finally:
        await storage.aclose()


def files(home: Path, *, config: str = "", credentials: str = "") -> None:
    (home / ".aws").mkdir(exist_ok=True)
    (home / ".aws" / "config").write_text(config)
    (home / ".aws" / "credentials").write_text(credentials)


async def signed_by(url: str = "s3://some-bucket/folder") -> str:
    """The URL that grants access: it names the key, the region and the server, and asks nobody."""
    async with opened(url) as storage:
        return await storage.presign("k", expires=60)


async def refused(url: str = "s3://some-bucket/folder") -> str:
    async with opened(url) as storage:
        with pytest.raises(StorageError) as caught:
            await storage.presign("k", expires=60)
    assert SECRET not in str(caught.value)
    assert TOKEN not in str(caught.value)
    return str(caught.value)


async def test_variables_are_taken_before_all_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files(tmp_path, credentials="[default]\naws_access_key_id = OTHER\naws_secret_access_key = other\n")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKVARIABLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    url = await signed_by()
    assert url.startswith(
        "https://some-bucket.s3.eu-west-3.amazonaws.com/folder/k?X-Amz-Algorithm=AWS4-HMAC-SHA256"
    )
    assert "Credential=AKVARIABLE%2F" in url
    assert f"X-Amz-Security-Token={TOKEN}" in url
    assert SECRET not in url


async def test_one_variable_of_two_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert "AWS_SECRET_ACCESS_KEY is set, and AWS_ACCESS_KEY_ID is not" in await refused()


async def test_profiles_name_keys_regions_and_servers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files(
        tmp_path,
        config="[profile minio]\nregion = us-east-7\nendpoint_url = http://storage.example:9000\n"
        "[default]\nregion = eu-north-1\ns3 =\n    addressing_style = path\n",
        credentials=f"[default]\naws_access_key_id = AKDEFAULT\naws_secret_access_key = {SECRET}\n"
        f"[minio]\naws_access_key_id = AKMINIO\naws_secret_access_key = {SECRET}\naws_session_token = {TOKEN}\n",
    )
    url = await signed_by()
    assert url.startswith("https://s3.eu-north-1.amazonaws.com/some-bucket/folder/k?")
    assert "AKDEFAULT%2F" in url
    monkeypatch.setenv("AWS_PROFILE", "minio")
    url = await signed_by()
    assert url.startswith("http://storage.example:9000/some-bucket/folder/k?")
    assert "AKMINIO%2F" in url
    assert "%2Fus-east-7%2Fs3%2F" in url
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://other.example")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://[::1]:8333/")
    assert (await signed_by()).startswith("http://[::1]:8333/some-bucket/folder/k?")
    monkeypatch.setenv("AWS_PROFILE", "mini")
    assert "AWS_PROFILE is 'mini'" in (told := await refused())
    assert "they have: default, minio" in told


async def test_files_may_lie_elsewhere_and_be_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(elsewhere))
    elsewhere.write_text(f"[default]\naws_access_key_id=AKELSEWHERE\naws_secret_access_key={SECRET}%%\n")
    assert "AKELSEWHERE%2F" in await signed_by()
    elsewhere.write_text(f"aws_secret_access_key={SECRET}\n")
    assert f"{elsewhere} is no file of profiles" in await refused()
    elsewhere.write_text(f"[default]\naws_secret_access_key={SECRET}\n")
    assert "the profile 'default' has only one of" in await refused()
    elsewhere.write_bytes(b"\xff\xfe")
    assert "it is no UTF-8" in await refused()


async def test_a_secret_with_a_line_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AK")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"{SECRET}\r\n")
    assert "the secret of the environment has spaces or odd characters" in await refused()


async def test_profiles_that_borrow_roles_are_left_to_botocore(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    said = {"Version": 1, "AccessKeyId": "AKPROGRAM", "SecretAccessKey": SECRET, "SessionToken": TOKEN}
    program.write_text(f"print({json.dumps(json.dumps(said))})")
    files(tmp_path, config=f"[default]\ncredential_process = {sys.executable} {program}\n")
    assert "AKPROGRAM%2F" in await signed_by()
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    told = await refused()
    assert "the profile 'default' says credential_process" in told
    assert "`pip install botocore`" in told


async def test_a_web_identity_borrows_its_role(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("the.web.identity\n")
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))

    def sts(asked: Asked) -> Any:
        if b"WebIdentityToken=the.web.identity" not in asked.body:
            return refusal(400, "InvalidIdentityToken", "No such token")
        body = (
            "<AssumeRoleWithWebIdentityResponse xmlns='https://sts.amazonaws.com/doc/2011-06-15/'><Credentials>"
            f"<AccessKeyId>AKROLE</AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey><SessionToken>{TOKEN}"
            f"</SessionToken><Expiration>{soon}</Expiration></Credentials></AssumeRoleWithWebIdentityResponse>"
        )
        return 200, {}, body.encode()

    with stub(sts) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", server.url)
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/some")
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
        async with opened() as storage:
            for _ in range(3):
                assert "AKROLE%2F" in await storage.presign("k", expires=60)
        assert len(server.asked) == 1
        (tmp_path / "token").write_text("another")
        assert "refused: InvalidIdentityToken No such token; check" in await refused()
        (tmp_path / "token").unlink()
        assert "which can't be read: No such file" in await refused()


async def test_a_container_gives_its_role_and_what_ends_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    def service(asked: Asked) -> Any:
        if asked.headers.get("authorization") != "let me in":
            return 401, {}, b""
        number = len(server.asked)
        ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + (60 if number == 1 else 3600)))
        return (
            200,
            {},
            json.dumps(
                {
                    "AccessKeyId": f"AKTASK{number}",
                    "SecretAccessKey": SECRET,
                    "Token": TOKEN,
                    "Expiration": ends,
                }
            ).encode(),
        )

    with stub(service) as server:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{server.url}/v2/credentials/some?x=1")
        assert "answered 401; check the role" in await refused()
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "let me in")
        server.asked.clear()
        async with opened() as storage:
            assert ["AKTASK1%2F" in await storage.presign("k", expires=60) for _ in range(2)] == [True, False]
            assert "AKTASK2%2F" in await storage.presign("k", expires=60)
        assert server.asked[0].path == "/v2/credentials/some?x=1"
    assert "gives no credentials: ConnectionRefusedError" in await refused()
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://192.0.2.1/credentials")
    assert "leads to '192.0.2.1' without TLS" in await refused()


async def test_an_instance_gives_its_role(monkeypatch: pytest.MonkeyPatch) -> None:
    def metadata(asked: Asked) -> Any:
        if asked.path == "/latest/api/token":
            return (200, {}, b"session") if asked.method == "PUT" else (405, {}, b"")
        if asked.headers.get("x-aws-ec2-metadata-token") != "session":
            return 401, {}, b""
        if asked.path.endswith("/security-credentials/"):
            return 200, {}, b"the-role"
        return (
            200,
            {},
            json.dumps({"AccessKeyId": "AKINSTANCE", "SecretAccessKey": SECRET, "Token": TOKEN}).encode(),
        )

    with stub(metadata) as server:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)
        assert "there are no credentials for S3" in await refused()
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        assert "AKINSTANCE%2F" in await signed_by()


async def test_without_any_it_is_told_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    began = time.monotonic()
    told = await refused()
    assert time.monotonic() - began < 5
    assert told.startswith("there are no credentials for S3; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("AWS_ENDPOINT_URL", f"http://key:{SECRET}@host", "holds a user name or a password"),
        ("AWS_ENDPOINT_URL", "ftp://host", "allowed is http://host:port or https://host:port"),
        ("AWS_ENDPOINT_URL", "http://host:99999", "allowed is http://host:port"),
        ("AWS_ENDPOINT_URL", "http://host/path", "with nothing behind it"),
        ("AWS_CA_BUNDLE", "/nowhere/at/all.pem", "AWS_CA_BUNDLE or ca_bundle is '/nowhere/at/all.pem'"),
    ],
)
async def test_odd_settings_are_told(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, why: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AK")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv(name, value)
    assert why in await refused()


@pytest.mark.parametrize(
    "url",
    [
        f"s3://AKEY:{SECRET}@some-bucket/folder", "s3://", "s3:///folder", "s3://b", "s3://bucket:9000/x",
        "s3://buck et",         "s3://some-bucket/a//b", "s3://some-bucket/../x", "s3://some-bucket/a%00", f"s3://some-bucket/x?secret={SECRET}",
        f"s3://some-bucket/x#{SECRET}", "https://some-bucket/x", "s3://some-bucket/%ff",
    ],
)  # fmt: skip
def test_urls_that_name_no_bucket_are_refused(url: str) -> None:
    with pytest.raises(StorageError) as caught:
        S3Storage(url)
    assert SECRET not in str(caught.value)


def test_nothing_shows_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AK")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    storage = S3Storage("s3://some-bucket/folder")
    shown = [storage, storage._client, configuration(dict(os.environ)), Credentials("AK", SECRET, TOKEN)]
    for text in (format(each) + repr(each) for each in shown):
        assert SECRET not in text
        assert TOKEN not in text
    assert repr(storage) == "S3Storage('s3://some-bucket/folder')"


def test_aws_servers_by_region(monkeypatch: pytest.MonkeyPatch) -> None:
    def origin(bucket: str, **variables: str) -> str:
        found, base = configuration({"HOME": "/nowhere", **variables}).origin(bucket)
        return f"{found}{base}"

    assert origin("b-c") == "https://b-c.s3.us-east-1.amazonaws.com/"
    assert origin("b.c") == "https://s3.us-east-1.amazonaws.com/b.c/"
    assert origin("b-c", AWS_REGION="cn-north-1") == "https://b-c.s3.cn-north-1.amazonaws.com.cn/"
    assert origin("b-c", AWS_USE_FIPS_ENDPOINT="true") == "https://b-c.s3-fips.us-east-1.amazonaws.com/"
    assert (
        origin("b-c", AWS_USE_DUALSTACK_ENDPOINT="1") == "https://b-c.s3.dualstack.us-east-1.amazonaws.com/"
    )
    named = {"AWS_ENDPOINT_URL": "https://h:444"}
    assert origin("b-c", **named) == "https://h:444/b-c/"
    assert origin("b-c", **named, AWS_VIRTUAL_HOSTED_STYLE_REQUEST="true") == "https://b-c.h:444/"


def test_declaring_imports_nothing_that_is_heavy() -> None:
    check = (
        "import sys, threading, llmengine_s3.plugin as p; p.register_storages();"
        "assert not {'asyncio', 'ssl', 'llmengine_s3.storage'} & set(sys.modules);"
        "assert threading.active_count() == 1"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
