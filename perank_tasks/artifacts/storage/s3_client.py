"""How S3 is reached: endpoint, region, credentials, timeouts, retries.

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

import boto3
import pyarrow as pa
import pyarrow.fs as pafs
from boto3.exceptions import Boto3Error
from botocore import exceptions as aws
from botocore.config import Config

from perank_tasks.artifacts.storage.s3_errors import (
    AGAIN,
    ERRORS,
    KEYS,
    code_of,
    explain,
    is_from_pyarrow,
)
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
    try:
        return S3(access or Access(boto3.Session()))
    except (aws.BotoCoreError, Boto3Error, ValueError) as error:
        # The words of the first two name a profile or a file; a URL may hold a password.
        why = "the endpoint is no URL" if isinstance(error, ValueError) else str(error)
        raise StorageError(f"S3 cannot be reached as it is set up: {why}. {KEYS}") from error


class S3:
    """One way to S3: a client, one that never replaces an object, and pyarrow's file system."""

    def __init__(self, access: Access):
        value = os.environ.get("AWS_MAX_ATTEMPTS", "")
        self.attempts = max(int(value), 1) if value.isdigit() else ATTEMPTS
        config = Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            max_pool_connections=CONNECTIONS,
            retries={"mode": "standard", "total_max_attempts": self.attempts},
            user_agent_extra="perank",
        )
        options: dict[str, Any] = {
            "config": config.merge(access.config) if access.config else config,
            "verify": access.verify,
            "endpoint_url": access.endpoint_url,
        }
        self._session = access.session
        self._verify = access.verify
        self.client = self._session.client("s3", **options)
        self.creating = self._session.client("s3", **options)
        for operation in ("PutObject", "CompleteMultipartUpload"):
            # boto3's upload_file has no argument for it.
            self.creating.meta.events.register(
                f"provide-client-params.s3.{operation}", _only_where_absent
            )
        self._arrow: dict[Any, pafs.S3FileSystem] = {}
        self._regions: dict[str, str] = {}
        self._looked_at: set[str] = set()

    @property
    def endpoint(self) -> str:
        """Where requests go, without anything that could be a secret."""
        parts = urlsplit(self.client.meta.endpoint_url)
        return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")

    @contextmanager
    def errors(self, path: S3Uri) -> Iterator[None]:
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
                is_bare = isinstance(error, aws.ClientError) and code_of(error).isdigit()
                if is_bare or is_from_pyarrow(error):
                    self.look(path)
                raise
        except (*ERRORS, OSError) as error:
            if not isinstance(error, ERRORS) and not is_from_pyarrow(error):
                raise
            cause, remedy = explain(error, self.endpoint)
            raise StorageError(f"{path}: {cause}. {remedy}") from error

    def in_words(self, error: OSError) -> StorageError | None:
        """What pyarrow says of a dataset that was scanned outside of `errors`; None: not its."""
        place = re.search(r"key '(.*?)' in bucket '(.*?)'.*AWS Error", str(error), re.DOTALL)
        if place is None:
            return None
        try:
            with self.errors(S3Uri(place[2], place[1])):
                raise error
        except StorageError as refusal:
            return refusal

    def look(self, path: S3Uri) -> None:
        """List one key of a place; raises what is wrong with bucket, rights or endpoint."""
        self.client.list_objects_v2(Bucket=path.bucket, Prefix=path.key, MaxKeys=1)
        self._looked_at.add(path.bucket)

    def ask(self, path: S3Uri, request: Callable[[pafs.FileSystem, str], T]) -> T:
        """What pyarrow answers, asked once more where it failed on a server that answers again."""
        with self.errors(path):
            if path.bucket not in self._looked_at:
                self.look(path)  # to pyarrow, nothing is in a bucket that is not there
            try:
                return request(self.arrow(path.bucket), path.arrow_path)
            except OSError as error:
                if not is_from_pyarrow(error):
                    raise
                self.look(path)
            return request(self.arrow(path.bucket), path.arrow_path)

    @contextmanager
    def reading(self, path: S3Uri) -> Iterator[pa.NativeFile]:
        """An object as a file; one that is replaced meanwhile is an error, whatever was read."""
        before = self._etag(path)
        with self.errors(path):
            try:
                with self.ask(path, lambda system, name: system.open_input_file(name)) as file:
                    yield file
            finally:
                if self._etag(path) != before:
                    raise StorageError(f"{path}: the object changed meanwhile. {AGAIN}")

    def _etag(self, path: S3Uri) -> str:
        with self.errors(path):
            return str(self.client.head_object(Bucket=path.bucket, Key=path.key)["ETag"])

    def arrow(self, bucket: str) -> pafs.S3FileSystem:
        """pyarrow's file system with the credentials of this moment."""
        with self.errors(S3Uri(bucket)):
            credentials = self._session.get_credentials()
            if credentials is None:
                raise aws.NoCredentialsError()
            keys = credentials.get_frozen_credentials()
            is_aws = re.search(r"\.amazonaws\.com(\.cn)?$", self.endpoint) is not None
            region = self._region(bucket) if is_aws else self.client.meta.region_name
            system = self._arrow.get((keys, region)) or self._file_system(keys, region, is_aws)
            self._arrow = {(keys, region): system}
            return system

    def _file_system(self, keys: Any, region: str, is_aws: bool) -> pafs.S3FileSystem:
        config = self.client.meta.config
        if config.response_checksum_validation == "when_required":
            # pyarrow has no argument for it.
            os.environ.setdefault("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
        certificates = self._verify or os.environ.get("AWS_CA_BUNDLE")
        endpoint = urlsplit(self.endpoint)
        return pafs.S3FileSystem(
            access_key=keys.access_key,
            secret_key=keys.secret_key,
            session_token=keys.token,
            region=region,
            scheme=endpoint.scheme,
            endpoint_override=None if is_aws else endpoint.netloc,
            force_virtual_addressing=(config.s3 or {}).get("addressing_style") == "virtual",
            connect_timeout=CONNECT_TIMEOUT_S,
            request_timeout=READ_TIMEOUT_S,
            retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=self.attempts),
            tls_ca_file_path=certificates if isinstance(certificates, str) else None,
        )

    def _region(self, bucket: str) -> str:
        """The bucket's own region, which pyarrow, unlike boto3, does not find by itself."""
        if bucket not in self._regions:
            answer = self.client.head_bucket(Bucket=bucket)
            headers = answer["ResponseMetadata"]["HTTPHeaders"]
            own = self.client.meta.region_name
            self._regions[bucket] = headers.get("x-amz-bucket-region") or own
        return self._regions[bucket]


def _only_where_absent(params: dict[str, Any], **_: Any) -> None:
    params["IfNoneMatch"] = "*"
