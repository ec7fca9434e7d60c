"""`s3://bucket/key`, parsed; nothing is imported or asked for."""

import re
from dataclasses import dataclass
from typing import Self

from perank_tasks.errors import ConfigError

SCHEME = "s3://"

# AWS's rules, less the few special prefixes; other servers follow them.
_BUCKET = re.compile(r"(?!\d+\.\d+\.\d+\.\d+$)[a-z0-9](?!.*\.\.)[a-z0-9.-]{1,61}[a-z0-9]")
_NAME = re.compile(r"(?!\.\.?$)[^\x00-\x1f\x7f\\?#/]+")


@dataclass(frozen=True)
class S3Uri:
    """A bucket and a key below it, which may be empty and has no slash at either end."""

    bucket: str
    key: str = ""

    def __str__(self) -> str:
        return SCHEME + self.arrow_path

    def __truediv__(self, name: str) -> Self:
        return type(self)(self.bucket, f"{self.key}/{name}".strip("/"))

    @property
    def arrow_path(self) -> str:
        """As pyarrow names it: `bucket/key`."""
        return f"{self.bucket}/{self.key}".rstrip("/")

    @classmethod
    def parse(cls, text: str, what: str) -> Self:
        """Read a URI.

        Args:
            what: whose it is, for the message: a variable's name, say.

        Raises:
            ConfigError: it is malformed.
        """
        bucket, _, key = text.removeprefix(SCHEME).partition("/")
        key = key.strip("/")
        wrong = None
        if not text.startswith(SCHEME):
            wrong = "it does not begin with s3://"
        elif not _BUCKET.fullmatch(bucket):
            wrong = f"{bucket!r} is no bucket (3 to 63 of a-z, 0-9, dot and hyphen)"
        elif key and not all(_NAME.fullmatch(name) for name in key.split("/")):
            wrong = f"{key!r} is no prefix: names between single slashes, without ? # \\ . or .."
        if "@" in bucket:
            text, wrong = "s3://…@…", "keys do not belong into it"
        if wrong:
            raise ConfigError(
                f"{what} is {text!r}: {wrong}. Expected s3://bucket or s3://bucket/prefix; an "
                "endpoint is set by AWS_ENDPOINT_URL, credentials by AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, AWS_PROFILE or PERANK_AWS_CONN_ID."
            )
        return cls(bucket, key)
