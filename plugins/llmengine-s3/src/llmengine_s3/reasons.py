"""Why a request failed, and what mends it."""

from __future__ import annotations

import socket
import ssl

from llmengine_core.http import InvalidAnswer
from llmengine_core.interfaces.storage import ObjectMissing, StorageError
from llmengine_s3.answers import Unreadable
from llmengine_s3.client import Lost, Refused
from llmengine_s3.places import Place

__all__ = ["explained"]

_CODES = {
    "AccessDenied": "the credentials may not do that; give them {actions} on it, or use others",
    "AllAccessDisabled": "the bucket is closed to everybody; ask its owner",
    "AccountProblem": "there is a problem with the account; ask its owner",
    "SignatureDoesNotMatch": "the secret access key is wrong; check AWS_SECRET_ACCESS_KEY, or the profile's",
    "InvalidAccessKeyId": "the server doesn't know the access key; check AWS_ACCESS_KEY_ID, and AWS_ENDPOINT_URL",
    "InvalidToken": "the session token is wrong; check AWS_SESSION_TOKEN, or leave it out",
    "InvalidClientTokenId": "the server doesn't know the access key; check AWS_ACCESS_KEY_ID",
    "ExpiredToken": "the credentials have expired; renew them (`aws sso login`, or a new AWS_SESSION_TOKEN)",
    "ExpiredTokenException": "the credentials have expired; renew them (`aws sso login`, or a new AWS_SESSION_TOKEN)",
    "TokenRefreshRequired": "the credentials have expired; renew them",
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it (NTP)",
    "RequestExpired": "this machine's clock is wrong; set it (NTP)",
    "NoSuchBucket": "there is no such bucket; create it, or correct the URL or AWS_ENDPOINT_URL",
    "InvalidBucketName": "the bucket has a name that the server doesn't allow; correct the URL",
    "SlowDown": "the server is overloaded and refused {tries} tries within {seconds:.0f} s; try again later",
    "ServiceUnavailable": "the server is overloaded and refused {tries} tries within {seconds:.0f} s; try again later",
    "TooManyRequests": "the server is overloaded and refused {tries} tries within {seconds:.0f} s; try again later",
    "KeyTooLongError": "the key is longer than the server takes; shorten it",
    "EntityTooLarge": "the content is larger than the server takes",
    "InvalidObjectState": "the object is archived; restore it first (`aws s3api restore-object`)",
    "NoSuchUpload": "somebody ended the upload while it was under way, as a lifecycle rule may; put it again",
    "XAmzContentSHA256Mismatch": "the content changed on its way; try again, and check the network",
    "BadDigest": "the content changed on its way; try again, and check the network",
    "NotImplemented": "the server doesn't do that; use another one",
    "MethodNotAllowed": "the server doesn't do that; check the bucket and AWS_ENDPOINT_URL",
    "ConditionalRequestConflict": "others kept changing it; try again",
    "OperationAborted": "others kept changing it; try again",
    "QuotaExceeded": "the server has no room for more; free some",
}
_STATUSES = {
    401: "AccessDenied",
    403: "AccessDenied",
    429: "SlowDown",
    503: "SlowDown",
    501: "NotImplemented",
}
_ELSEWHERE = frozenset(
    {
        "PermanentRedirect",
        "TemporaryRedirect",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
    }
)
_ACTIONS = {
    "get": "s3:GetObject",
    "look": "s3:GetObject and s3:ListBucket",
    "list": "s3:ListBucket",
    "delete": "s3:DeleteObject and s3:GetObject",
    "copy": "s3:GetObject and s3:PutObject",
    "put": "s3:PutObject, s3:AbortMultipartUpload and s3:ListMultipartUploadParts",
}


def explained(error: Refused | Lost | Unreadable, doing: str, place: Place) -> StorageError:
    """The error to raise: what failed, where, why, the mend. It holds no secret and no signature."""
    if isinstance(error, Unreadable):
        return StorageError(
            f"can't {doing} in {place}: {error}; check that AWS_ENDPOINT_URL leads to an S3 server"
        )
    if isinstance(error, Lost):
        return StorageError(f"can't {doing} in {place}: {_lost(error)}")
    fault = error.fault
    if fault.code == "NoSuchKey":
        return ObjectMissing(f"can't {doing} in {place}: there is no such object")
    return StorageError(f"can't {doing} in {place}: {_refused(error, doing)}")


def _refused(error: Refused, doing: str) -> str:
    fault = error.fault
    if fault.code in _ELSEWHERE or fault.status in (301, 307, 308):
        return _elsewhere(fault.region)
    said = (
        f" ({fault.code or fault.status}: {fault.message})"
        if fault.message
        else f" ({fault.code or fault.status})"
    )
    code = fault.code if fault.code in _CODES else ""
    if not fault.code and fault.status == 404:
        return f"the server at hand answers as none of S3's does{said}; check AWS_ENDPOINT_URL"
    if not code:
        code = _STATUSES.get(fault.status, "")
    if code:
        actions = _ACTIONS.get(doing.partition(" ")[0], "access")
        return _CODES[code].format(actions=actions, tries=error.tries, seconds=error.seconds) + said
    if fault.status >= 500:
        tried = f"{error.tries} times within {error.seconds:.0f} s"
        return f"the server failed {tried}{said}; see its log, or try again later"
    return f"the server refused{said}"


def _elsewhere(region: str) -> str:
    if region:
        return f"the bucket is in the region {region}; set AWS_REGION={region}"
    return "the bucket is in another region or at another server; set AWS_REGION or AWS_ENDPOINT_URL to where it is"


def _lost(error: Lost) -> str:
    cause, at = error.cause, f"{error.origin}"
    tried = f"within {error.seconds:.0f} s" if error.tries > 1 else "at once"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"the certificate of {at} isn't trusted ({cause.verify_message}); "
            "name the certificates of your own authority by AWS_CA_BUNDLE"
        )
    if isinstance(cause, ssl.SSLError):
        why = (cause.reason or "unknown").replace("_", " ").lower()
        return f"{at} doesn't speak TLS as is due ({why}); check whether AWS_ENDPOINT_URL is to begin with http://"
    if isinstance(cause, socket.gaierror):
        return f"nobody knows the name of {at}; check AWS_ENDPOINT_URL, AWS_REGION and the network"
    if isinstance(cause, TimeoutError):
        what = "nothing came" if error.sent else "it took no connection"
        return f"{at} is too slow: {what} ({error.tries} tries {tried}); try again later"
    if isinstance(cause, InvalidAnswer | Unreadable):
        return f"{at} answers as none of S3's servers does; check AWS_ENDPOINT_URL"
    if not error.sent:
        why = getattr(cause, "strerror", None) or "it can't be reached"
        why = f"{why}; {error.tries} tries {tried}"
        return f"nobody answers at {at} ({why}); start the server, or correct AWS_ENDPOINT_URL"
    return f"the connection to {at} was lost {error.tries} times {tried}; see the server's log, or try again later"
