"""What S3 refuses, in words: in, an error of boto3 or pyarrow; out, its cause and what to do.

Never the words of a server, which may repeat a secret.
"""

import re

from boto3.exceptions import Boto3Error
from botocore import exceptions as aws
from botocore.parsers import ResponseParserError

RIGHTS = (
    "Allow these credentials s3:ListBucket on the bucket and s3:GetObject, s3:PutObject and "
    "s3:DeleteObject on its objects; docs/storage.md has the policy."
)
KEYS = (
    "Look at AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, at AWS_PROFILE, or at the connection "
    "that PERANK_AWS_CONN_ID names."
)
AGAIN = "Run the same command again; finished parts are kept."
RENEW = f"Renew it (`aws sso login`, or a new session token), then: {AGAIN}"
REGION = "Set AWS_DEFAULT_REGION to it."
ENDPOINT = "Look at AWS_ENDPOINT_URL, or at the connection's endpoint_url."

ERRORS = (
    aws.BotoCoreError,
    aws.ClientError,
    Boto3Error,
    ResponseParserError,
    RecursionError,  # boto3 asks for a bucket's region again and again where all answers redirect
)
"""All that boto3 raises; pyarrow raises an OSError, see `is_from_pyarrow`."""

NO_ANSWER = (
    "nothing answers at {endpoint} ({error})",
    f"See that the server runs and that AWS_ENDPOINT_URL names it. {AGAIN}",
)
NO_OBJECT = ("there is no such object", "Run the stage that makes it again.")
NO_SERVER = ("what answers at {endpoint} is no S3 server", ENDPOINT)
BROKE_OFF = ("{endpoint} broke off while it was read", AGAIN)

_WORDS = {
    # A server's codes, and pyarrow's.
    "NoSuchBucket": (
        "there is no such bucket",
        "Correct the bucket's name, or make it: aws s3 mb s3://BUCKET.",
    ),
    "AccessDenied": ("access is denied", RIGHTS),
    "ACCESS_DENIED": ("access is denied", RIGHTS),
    "AllAccessDisabled": ("access is disabled", RIGHTS),
    "InvalidAccessKeyId": ("the server does not know the access key", KEYS),
    "SignatureDoesNotMatch": ("the secret key is not the access key's", KEYS),
    "InvalidToken": ("the session token is not valid", KEYS),
    "ExpiredToken": ("the session token has expired", RENEW),
    "ExpiredTokenException": ("the session token has expired", RENEW),
    "TokenRefreshRequired": ("the session token has expired", RENEW),
    "RequestTimeTooSkewed": (
        "this machine's clock and the server's differ too much",
        "Set the clock (NTP), then run the same command again.",
    ),
    "PermanentRedirect": ("the bucket is in another region", REGION),
    "AuthorizationHeaderMalformed": ("the bucket is in another region", REGION),
    "SlowDown": ("the server asks for fewer requests", AGAIN),
    "ServiceUnavailable": ("the server is overloaded or starting", AGAIN),
    "InternalError": ("the server failed", AGAIN),
    "NoSuchKey": NO_OBJECT,
    # Classes of errors that no server sent; a class's own words come before its bases'.
    "NoCredentialsError": ("there are no credentials", KEYS),
    "PartialCredentialsError": ("there are no credentials", KEYS),
    "SSOError": ("the sign-on's token has expired", RENEW),
    "TokenRetrievalError": ("the sign-on's token has expired", RENEW),
    "ProfileNotFound": ("the credentials cannot be read ({error})", KEYS),
    "CredentialRetrievalError": ("the credentials cannot be read ({error})", KEYS),
    "SSLError": (
        "{endpoint} has a certificate that is not trusted",
        "Set AWS_CA_BUNDLE to the authority's certificates.",
    ),
    "ReadTimeoutError": ("{endpoint} stopped answering", f"See that it runs. {AGAIN}"),
    "ConnectionClosedError": ("{endpoint} stopped answering", f"See that it runs. {AGAIN}"),
    "ResponseStreamingError": BROKE_OFF,
    "IncompleteReadError": BROKE_OFF,
    "HTTPClientError": NO_ANSWER,
    "ConnectionError": NO_ANSWER,
    "ResponseParserError": NO_SERVER,
    "RecursionError": NO_SERVER,
    "FileNotFoundError": NO_OBJECT,
    "OSError": BROKE_OFF,
    "BaseException": ("{error}", ENDPOINT),
}


_OF_HEAD = {"403": "AccessDenied", "404": "NoSuchKey"}
"""An answer to HEAD has a status alone."""


def explain(error: BaseException, endpoint: str) -> tuple[str, str]:
    """What is wrong and what to do."""
    if isinstance(error, Boto3Error):  # upload_file's own words; the reason is behind them
        error = error.__context__ or error
    code = code_of(error)
    classes = [kind.__name__ for kind in type(error).__mro__]
    if code in _WORDS:
        cause, remedy = _WORDS[code]
        cause += " ({code}, {endpoint})"
    elif not isinstance(error, aws.ClientError):
        cause, remedy = next(_WORDS[name] for name in classes if name in _WORDS)
    elif code in _OF_HEAD and error.operation_name.startswith("Head"):
        cause, remedy = _WORDS[_OF_HEAD[code]]
        cause += " ({endpoint})"
    elif code.isdigit() and not code.startswith("5"):
        cause, remedy = NO_SERVER
        cause += " (HTTP status {code})"
    else:
        cause, remedy = "{endpoint} refused it: {code}", AGAIN
    return cause.format(endpoint=endpoint, code=code, error=type(error).__name__), remedy


def code_of(error: BaseException | None) -> str:
    """The server's code of a refusal, upload_file's included; empty where no server refused."""
    while error is not None and not isinstance(error, aws.ClientError):
        if is_from_pyarrow(error):
            return "".join(re.findall(r"AWS Error (\w+)", str(error))[:1])
        error = error.__cause__ or error.__context__
    return str(error.response.get("Error", {}).get("Code", "")) if error else ""


def is_from_pyarrow(error: BaseException) -> bool:
    """Whether it is pyarrow's, of S3."""
    return isinstance(error, OSError) and bool(
        re.search("AWS Error|Path does not exist", str(error))
    )
