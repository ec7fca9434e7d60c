"""Make the passwords and keys of a deployment: `python3 docker/make_secrets.py [FOLDER]`.

In: nothing. Out: files in FOLDER, by default `secrets/` beside this file, which git ignores:
passwords drawn at random, and the addresses that hold them. A folder that is there is left alone:
to change one secret, change its file, and those that hold the same password.

Notes: the folder is closed to others, the files are not: a container reads them as another user,
and the folder's rights do not reach into it.
"""

import json
import secrets
import sys
from base64 import urlsafe_b64encode
from pathlib import Path

FOLDER = Path(__file__).with_name("secrets")


def contents() -> dict[str, str]:
    """{file name: what is in it}, for the services of the Compose file."""
    postgres, redis = secrets.token_hex(24), secrets.token_hex(24)
    access_key, secret_key = secrets.token_hex(10), secrets.token_hex(20)
    ui = secrets.token_urlsafe(15)
    database = f"postgresql+psycopg2://airflow:{postgres}@postgres:5432/airflow"
    return {
        "api_secret_key": secrets.token_hex(32),
        "aws_credentials": (
            f"[default]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret_key}\n"
        ),
        "broker_url": f"redis://:{redis}@redis:6379/0",
        "database_url": database,
        "fernet_key": urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "jwt_secret": secrets.token_hex(64),
        "postgres_password": postgres,
        "redis_password": redis,
        "result_backend": f"db+{database}",
        "s3_auth_key": f"{access_key},{secret_key}",
        "ui_password": ui,
        "ui_passwords": json.dumps({"admin": ui}),
    }


def make_secrets(folder: Path) -> None:
    """Write them all.

    Raises:
        FileExistsError: the folder is there.
    """
    folder.mkdir(mode=0o700)
    for name, text in contents().items():
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o444)


def main(arguments: list[str]) -> int:
    """Make them, and say where they are; never what they are."""
    folder = Path(arguments[0]) if arguments else FOLDER
    try:
        make_secrets(folder)
    except FileExistsError:
        print(f"{folder} is there already and stays as it is.", file=sys.stderr)
        return 1
    print(f"Secrets are in {folder}; the UI's password for admin is in {folder / 'ui_password'}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
