"""What S3 refuses, in words: in, an error of boto3 or pyarrow; out, its cause and what to do.

Never the words of a server, which may repeat a secret.
"""

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
ENDPOINT = "Look at AWS_ENDPOINT_URL, or at the connection's endpoint_url."
NO_SERVER = "what answers at {endpoint} is no S3 server"

ERRORS = (
    aws.BotoCoreError,
    aws.ClientError,
    Boto3Error,
    ResponseParserError,
    OSError,
    RecursionError,  # boto3 asks for a bucket's region again and again where all answers redirect
)
"""All that boto3 and pyarrow raise."""

_BY_CODE = {
    "NoSuchBucket": (
        "there is no such bucket",
        "Correct the bucket's name, or make it: aws s3 mb s3://BUCKET.",
    ),
    "AccessDenied": ("access is denied", RIGHTS),
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
    "PermanentRedirect": ("the bucket is in another region", "Set AWS_DEFAULT_REGION to it."),
    "AuthorizationHeaderMalformed": (
        "the bucket is in another region",
        "Set AWS_DEFAULT_REGION to it.",
    ),
    "SlowDown": ("the server asks for fewer requests", AGAIN),
    "ServiceUnavailable": ("the server is overloaded or starting", AGAIN),
    "InternalError": ("the server failed", AGAIN),
    "NoSuchKey": ("there is no such object", "Run the stage that makes it again."),
    "PreconditionFailed": ("the object changed meanwhile", AGAIN),
    # Of an object that was there a moment ago, and longer.
    "InvalidRange": ("the object changed meanwhile", AGAIN),
}

_BY_CLASS: list[tuple[tuple[type[BaseException], ...], str, str]] = [
    ((aws.NoCredentialsError, aws.PartialCredentialsError), "there are no credentials", KEYS),
    (
        (aws.UnauthorizedSSOTokenError, aws.SSOTokenLoadError, aws.TokenRetrievalError),
        "the sign-on's token has expired",
        RENEW,
    ),
    (
        (aws.ProfileNotFound, aws.CredentialRetrievalError),
        "the credentials cannot be read ({error})",
        KEYS,
    ),
    (
        (aws.SSLError,),
        "{endpoint} has a certificate that is not trusted",
        "Set AWS_CA_BUNDLE to the authority's certificates.",
    ),
    (
        (aws.ResponseStreamingError, aws.IncompleteReadError),
        "{endpoint} stopped in the middle of an answer",
        AGAIN,
    ),
    (
        (aws.ReadTimeoutError, aws.ConnectionClosedError),
        "{endpoint} stopped answering",
        f"See that it runs. {AGAIN}",
    ),
    (
        (aws.HTTPClientError, aws.ConnectionError),
        "nothing answers at {endpoint} ({error})",
        f"See that the server runs and that AWS_ENDPOINT_URL names it. {AGAIN}",
    ),
    ((ResponseParserError, RecursionError), NO_SERVER, ENDPOINT),
    ((OSError,), "{endpoint} broke off while it was read", AGAIN),
    ((BaseException,), "{error}", ENDPOINT),
]
"""The first that fits says it."""


def explain(error: BaseException, endpoint: str) -> tuple[str, str]:
    """What is wrong and what to do."""
    if isinstance(error, Boto3Error):  # upload_file's own words; the reason is behind them
        error = error.__context__ or error
    if isinstance(error, aws.ClientError):
        return _explain_refusal(error, endpoint)
    cause, remedy = next(words for classes, *words in _BY_CLASS if isinstance(error, classes))
    return cause.format(endpoint=endpoint, error=type(error).__name__), remedy


def _explain_refusal(error: aws.ClientError, endpoint: str) -> tuple[str, str]:
    code = code_of(error)
    if code in _BY_CODE:
        cause, remedy = _BY_CODE[code]
        return f"{cause} ({code}, {endpoint})", remedy
    if code == "403" and error.operation_name.startswith("Head"):
        return f"access is denied ({endpoint})", RIGHTS
    if code.isdigit() and not code.startswith("5"):
        return f"{NO_SERVER.format(endpoint=endpoint)} (HTTP status {code})", ENDPOINT
    return f"{endpoint} refused it: {code}", AGAIN


def code_of(error: BaseException | None) -> str:
    """The server's code of a refusal, upload_file's included; empty where no server refused."""
    while error is not None and not isinstance(error, aws.ClientError):
        error = error.__cause__ or error.__context__
    return str(error.response.get("Error", {}).get("Code", "")) if error else ""


def is_from_pyarrow(error: BaseException) -> bool:
    """Whether an OSError is pyarrow's; some of boto3's are OSErrors by another library's way."""
    return isinstance(error, OSError) and not isinstance(error, aws.BotoCoreError)
