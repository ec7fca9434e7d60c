"""How S3 is reached: endpoint, region, credentials, timeouts, retries, and errors in words.

All of it comes from the standard chain (`AWS_*` variables, profiles, roles of the machine), or
from an `Access` that somebody hands over, as the Airflow adapter does with a connection. Secrets
stay in this process's memory: they are in no message, and nothing here writes one down.

Notes: requests are tried `ATTEMPTS` times (AWS_MAX_ATTEMPTS sets another number) with waits that
double, for about half a minute, which outlasts a server's restart. boto3 refreshes temporary
credentials by itself; a pyarrow file system takes them as they are, so it is made anew whenever
they have changed.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

import boto3
import pyarrow.fs as pafs
from boto3.exceptions import Boto3Error
from botocore import exceptions as aws
from botocore.config import Config
from botocore.parsers import ResponseParserError

from perank_tasks.errors import StorageError
from perank_tasks.support.s3_uri import S3Uri

ATTEMPTS = 7
CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60
CONNECTIONS = 32

T = TypeVar("T")


@dataclass(frozen=True)
class Access:
    """A way to S3 other than the standard chain; what is None is the chain's."""

    session: boto3.Session
    endpoint_url: str | None = None
    config: Config | None = None
    verify: bool | str | None = None


_given: Access | None = None


def use_access(access: Access | None) -> None:
    """Reach S3 this way from now on, in this process; None: by the standard chain."""
    global _given
    _given = access


def s3() -> "S3":
    """This process's client, made anew where the way to S3 has changed."""
    chain = tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith("AWS_")))
    return _client(_given, chain)


@cache
def _client(access: Access | None, chain: tuple[tuple[str, str], ...]) -> "S3":
    return S3(access)


class S3:
    """One way to S3: a client, one that never replaces an object, and pyarrow's file system."""

    def __init__(self, access: Access | None):
        self.attempts = _attempts()
        with _setting_errors():
            self._session = access.session if access else boto3.Session()
            config = Config(
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                max_pool_connections=CONNECTIONS,
                retries={"mode": "standard", "total_max_attempts": self.attempts},
                user_agent_extra="perank",
            )
            if access and access.config:
                config = config.merge(access.config)
            self._verify = access.verify if access else None
            options: dict[str, Any] = {"config": config, "verify": self._verify}
            if access and access.endpoint_url:
                options["endpoint_url"] = access.endpoint_url
            self.client = self._session.client("s3", **options)
            self.creating = self._session.client("s3", **options)
        for operation in ("PutObject", "CompleteMultipartUpload"):
            # boto3's upload_file has no argument for it.
            self.creating.meta.events.register(
                f"provide-client-params.s3.{operation}", _only_where_absent
            )
        self._lock = threading.Lock()
        self._arrow: tuple[Any, pafs.S3FileSystem] | None = None

    @property
    def endpoint(self) -> str:
        """Where requests go, without anything that could be a secret."""
        parts = urlsplit(self.client.meta.endpoint_url)
        return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")

    def in_words(self, error: OSError) -> StorageError | None:
        """What pyarrow says of a dataset that was scanned outside of `errors`; None: not its."""
        found = re.search(r"key '(.*?)' in bucket '(.*?)'.*AWS Error", str(error), re.DOTALL)
        if found is None:
            return None
        try:
            with self.errors(S3Uri(found[2], found[1])):
                raise error
        except StorageError as said:
            return said

    @contextmanager
    def errors(self, uri: S3Uri) -> Iterator[None]:
        """Say of every refusal where it happened, why, and what to do.

        Raises:
            StorageError: in place of the errors of boto3 and pyarrow.
        """
        try:
            try:
                yield
            except Exception as error:
                # An answer to HEAD has no body that says what is wrong, and pyarrow's words are
                # its own: a listing of the same place says it.
                if _is_arrows(error) or (isinstance(error, aws.ClientError) and _is_bare(error)):
                    self.look(uri)
                raise
        except _ERRORS as error:
            cause, remedy = _explain(_said_by_the_server(error), self.endpoint)
            raise StorageError(f"{uri}: {cause}. {remedy}") from error

    def look(self, uri: S3Uri) -> None:
        """List one key of a place; raises what is wrong with bucket, rights or endpoint."""
        self.client.list_objects_v2(Bucket=uri.bucket, Prefix=uri.key, MaxKeys=1)

    def head(self, uri: S3Uri) -> dict[str, Any] | None:
        """Size, time, ETag and metadata of an object; None where there is none."""
        with self.errors(uri):
            try:
                return dict(self.client.head_object(Bucket=uri.bucket, Key=uri.key))
            except aws.ClientError as error:
                if _code(error) not in ("404", "NoSuchKey"):
                    raise
        return None

    def get(self, uri: S3Uri, **options: str) -> bytes | None:
        """An object's content, or the `Range` of it; None where there is none.

        A connection that breaks while the content is read is retried, which boto3 leaves to us.
        """
        with self.errors(uri):
            try:
                return self.retried(lambda: self._get(uri, options))
            except aws.ClientError as error:
                if _code(error) != "NoSuchKey":
                    raise
        return None

    def _get(self, uri: S3Uri, options: dict[str, str]) -> bytes:
        answer = self.client.get_object(Bucket=uri.bucket, Key=uri.key, **options)
        if options.get("IfMatch") not in (None, answer["ETag"]):  # a server that ignores it
            raise StorageError(f"{uri}: the object changed meanwhile. {_AGAIN}")
        content: bytes = answer["Body"].read()
        return content

    def retried(self, request: Callable[[], T]) -> T:
        """Call again where a connection broke after the first bytes of an answer."""
        broken = (aws.ResponseStreamingError, aws.IncompleteReadError, aws.ReadTimeoutError)
        for attempt in range(1, self.attempts):
            try:
                return request()
            except broken:
                time.sleep(min(2 ** (attempt - 2), 8))
        return request()

    def scanned(self, uri: S3Uri, request: Callable[[], T]) -> T:
        """Read by pyarrow, once more where it failed on a server that answers again."""
        with self.errors(uri):
            try:
                return request()
            except OSError as error:
                if not _is_arrows(error):
                    raise
                self.look(uri)
            return request()

    def arrow(self, bucket: str) -> pafs.S3FileSystem:
        """pyarrow's file system with the credentials of this moment."""
        with self.errors(S3Uri(bucket)), self._lock:
            found = self._session.get_credentials()
            if found is None:
                raise aws.NoCredentialsError()
            keys = found.get_frozen_credentials()
            aws_itself = re.search(r"\.amazonaws\.com(\.cn)?$", self.endpoint)
            region = self._region(bucket) if aws_itself else self.client.meta.region_name
            wanted = (keys, region)
            if self._arrow is None or self._arrow[0] != wanted:
                style = (self.client.meta.config.s3 or {}).get("addressing_style")
                if self.client.meta.config.response_checksum_validation == "when_required":
                    # pyarrow has no argument for it.
                    os.environ.setdefault("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
                ca = self._verify or os.environ.get("AWS_CA_BUNDLE")
                system = pafs.S3FileSystem(
                    access_key=keys.access_key,
                    secret_key=keys.secret_key,
                    session_token=keys.token,
                    region=region,
                    scheme=urlsplit(self.endpoint).scheme,
                    endpoint_override=None if aws_itself else urlsplit(self.endpoint).netloc,
                    force_virtual_addressing=style == "virtual",
                    connect_timeout=CONNECT_TIMEOUT_S,
                    request_timeout=READ_TIMEOUT_S,
                    retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=self.attempts),
                    tls_ca_file_path=ca if isinstance(ca, str) else None,
                )
                self._arrow = (wanted, system)
            return self._arrow[1]

    def _region(self, bucket: str) -> str:
        """The bucket's own region, which pyarrow, unlike boto3, does not find by itself."""
        answer = self.client.head_bucket(Bucket=bucket)
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        region: str = headers.get("x-amz-bucket-region") or self.client.meta.region_name
        return region


def is_taken(error: BaseException | None) -> bool:
    """Whether a creating request was refused because the object is there."""
    return isinstance(error, aws.ClientError) and _code(error) == "PreconditionFailed"


def has_collided(error: BaseException | None) -> bool:
    """Whether a creating request met another one of its kind, and is to be made again."""
    return isinstance(error, aws.ClientError) and _code(error) == "ConditionalRequestConflict"


def is_unknown(error: BaseException | None) -> bool:
    """Whether the server says that it cannot create on condition."""
    return isinstance(error, aws.ClientError) and _code(error) in ("NotImplemented", "501")


def _only_where_absent(params: dict[str, Any], **_: Any) -> None:
    params["IfNoneMatch"] = "*"


def _attempts() -> int:
    value = os.environ.get("AWS_MAX_ATTEMPTS", "")
    return max(int(value), 1) if value.isdigit() else ATTEMPTS


def _code(error: aws.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


_RIGHTS = (
    "Allow these credentials s3:ListBucket on the bucket and s3:GetObject, s3:PutObject and "
    "s3:DeleteObject on its objects; docs/storage.md has the policy."
)
_KEYS = (
    "Look at AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, at AWS_PROFILE, or at the connection "
    "that PERANK_AWS_CONN_ID names."
)
_AGAIN = "Run the same command again; finished parts are kept."
_RENEW = f"Renew it (`aws sso login`, or a new session token), then: {_AGAIN}"
_ENDPOINT = "Look at AWS_ENDPOINT_URL, or at the connection's endpoint_url."

_CAUSES: dict[str, tuple[str, str]] = {
    "NoSuchBucket": (
        "there is no such bucket",
        "Correct the bucket's name, or make it: aws s3 mb s3://BUCKET.",
    ),
    "AccessDenied": ("access is denied", _RIGHTS),
    "AllAccessDisabled": ("access is disabled", _RIGHTS),
    "InvalidAccessKeyId": ("the server does not know the access key", _KEYS),
    "SignatureDoesNotMatch": ("the secret key is not the access key's", _KEYS),
    "InvalidToken": ("the session token is not valid", _KEYS),
    "ExpiredToken": ("the session token has expired", _RENEW),
    "ExpiredTokenException": ("the session token has expired", _RENEW),
    "TokenRefreshRequired": ("the session token has expired", _RENEW),
    "RequestTimeTooSkewed": (
        "this machine's clock and the server's differ too much",
        "Set the clock (NTP), then run the same command again.",
    ),
    "PermanentRedirect": ("the bucket is in another region", "Set AWS_DEFAULT_REGION to it."),
    "AuthorizationHeaderMalformed": (
        "the bucket is in another region",
        "Set AWS_DEFAULT_REGION to it.",
    ),
    "SlowDown": ("the server asks for fewer requests", _AGAIN),
    "ServiceUnavailable": ("the server is overloaded or starting", _AGAIN),
    "InternalError": ("the server failed", _AGAIN),
    "NoSuchKey": ("there is no such object", "Run the stage that makes it again."),
    "PreconditionFailed": ("the object changed meanwhile", _AGAIN),
    # Of an object that was there a moment ago, and longer.
    "InvalidRange": ("the object changed meanwhile", _AGAIN),
}


_ERRORS = (
    aws.BotoCoreError,
    aws.ClientError,
    Boto3Error,
    ResponseParserError,
    OSError,
    RecursionError,  # boto3 asks for a bucket's region again and again where all answers redirect
)


@contextmanager
def _setting_errors() -> Iterator[None]:
    try:
        yield
    except (aws.BotoCoreError, Boto3Error, ValueError) as error:
        # The words of the first two name a profile or a file; a URL may hold a password.
        why = "the endpoint is no URL" if isinstance(error, ValueError) else str(error)
        raise StorageError(f"S3 cannot be reached as it is set up: {why}. {_KEYS}") from error


def _said_by_the_server(error: BaseException) -> BaseException:
    """The reason behind what upload_file says in its own words."""
    return error.__context__ or error if isinstance(error, Boto3Error) else error


def _is_arrows(error: BaseException) -> bool:
    # Some of boto3's are also OSErrors, by way of another library's.
    return isinstance(error, OSError) and not isinstance(error, aws.BotoCoreError)


def _is_bare(error: aws.ClientError) -> bool:
    return _code(error).isdigit()


def _explain(error: BaseException, endpoint: str) -> tuple[str, str]:
    """What is wrong and what to do; never the words of a server that may repeat a secret."""
    if isinstance(error, aws.ClientError):
        code = _code(error)
        if code in _CAUSES:
            cause, remedy = _CAUSES[code]
            return f"{cause} ({code}, {endpoint})", remedy
        if code == "403" and error.operation_name.startswith("Head"):
            return f"access is denied ({endpoint})", _RIGHTS
        if code.isdigit() and not code.startswith("5"):
            return f"what answers at {endpoint} is no S3 server (HTTP status {code})", _ENDPOINT
        return f"{endpoint} refused it: {code}", _AGAIN
    if isinstance(error, (aws.NoCredentialsError, aws.PartialCredentialsError)):
        return "there are no credentials", _KEYS
    if isinstance(
        error, (aws.UnauthorizedSSOTokenError, aws.SSOTokenLoadError, aws.TokenRetrievalError)
    ):
        return "the sign-on's token has expired", _RENEW
    if isinstance(error, (aws.ProfileNotFound, aws.CredentialRetrievalError)):
        return f"the credentials cannot be read ({type(error).__name__})", _KEYS
    if isinstance(error, aws.SSLError):
        return (
            f"{endpoint} has a certificate that is not trusted",
            "Set AWS_CA_BUNDLE to the authority's certificates.",
        )
    if isinstance(error, (aws.ResponseStreamingError, aws.IncompleteReadError)):
        return f"{endpoint} stopped in the middle of an answer", _AGAIN
    if isinstance(error, (aws.ReadTimeoutError, aws.ConnectionClosedError)):
        return f"{endpoint} stopped answering", f"See that it runs. {_AGAIN}"
    if isinstance(error, (aws.HTTPClientError, aws.ConnectionError)):
        return (
            f"nothing answers at {endpoint} ({type(error).__name__})",
            f"See that the server runs and that AWS_ENDPOINT_URL names it. {_AGAIN}",
        )
    if isinstance(error, (ResponseParserError, RecursionError)):
        return f"what answers at {endpoint} is no S3 server", _ENDPOINT
    if isinstance(error, OSError):
        return f"{endpoint} broke off while it was read", _AGAIN
    return f"{type(error).__name__}", _ENDPOINT
