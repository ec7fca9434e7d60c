"""Storage: where artifacts lie, a local folder or a prefix of an S3 bucket.

Files are named by *keys*: paths with slashes, relative to the root, the same in both, so that a
root can be copied from one to the other by any tool. pyarrow's file systems read and list both;
what writes differs.

| file           | what it is for                                                         |
|----------------|------------------------------------------------------------------------|
| `base.py`      | all that an artifact asks of a storage; reading and listing            |
| `local.py`     | a folder                                                               |
| `s3.py`        | a prefix of a bucket                                                   |
| `s3_client.py` | how S3 is reached: endpoint, credentials, retries                      |
| `s3_errors.py` | what S3 refuses, in words: cause and remedy                            |
| `s3_path.py`   | places on S3, and files there for those who read paths: the collections|
"""

import errno

from perank_tasks.errors import StorageError

_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG}
"""What only somebody at the machine can mend."""


def in_words(error: OSError) -> StorageError | None:
    """The StorageError that says what was refused, by S3 in the middle of a scan or by the
    system; None: it is another's.

    pyarrow raises its own wherever a dataset is being read.
    """
    if error.errno in _REFUSALS:
        place = error.filename or "The output cannot be written"
        return StorageError(f"{place}: {error.strerror}. Mend that and run the same command again.")
    if "AWS Error" not in str(error):
        return None
    from perank_tasks.artifacts.storage.s3_client import s3  # boto3 takes a third of a second

    return s3().in_words(error)
