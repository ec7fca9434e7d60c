"""Prepare a deployment, once for all its containers; the same again changes nothing.

In: Airflow's environment, PERANK_ROOT, `pools.json` beside this file. Out: Airflow's database,
made or migrated; the pools that were missing, since a task whose pool is missing waits for ever,
while one whose slots somebody has changed stays as it is; the buckets of artifacts and of task
logs, where these are on S3.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

POOLS = Path(__file__).with_name("pools.json")
AIRFLOW = [sys.executable, "-P", "-m", "airflow"]


def make_pools() -> None:
    """Create the pools that are not there."""
    done = subprocess.run(
        [*AIRFLOW, "pools", "list", "--output", "json"],
        check=True,
        capture_output=True,
        encoding="utf-8",
    )
    # Airflow's notices may come before the list.
    listed = json.loads(done.stdout[done.stdout.index("[{") :])
    present = {pool["pool"] for pool in listed}
    wanted = json.loads(POOLS.read_text(encoding="utf-8"))
    missing = {name: pool for name, pool in wanted.items() if name not in present}
    if missing:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".json") as file:
            json.dump(missing, file)
            file.flush()
            subprocess.run([*AIRFLOW, "pools", "import", file.name], check=True)
    print(f"pools: {', '.join(sorted(wanted))}", flush=True)


def make_bucket(root: str) -> None:
    """Create the bucket of an S3 address where it is not there; another root needs nothing."""
    address = urlsplit(root)
    if address.scheme != "s3":
        return
    import boto3
    from botocore.exceptions import ClientError

    client = boto3.client("s3")
    try:
        client.head_bucket(Bucket=address.netloc)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        region = client.meta.region_name
        # The one region that S3 refuses to be told.
        elsewhere = {"CreateBucketConfiguration": {"LocationConstraint": region}}
        client.create_bucket(Bucket=address.netloc, **({} if region == "us-east-1" else elsewhere))
    print(f"bucket: {address.netloc}", flush=True)


def main() -> None:
    """Database, pools, buckets."""
    subprocess.run([*AIRFLOW, "db", "migrate"], check=True)
    make_pools()
    for variable in ("PERANK_ROOT", "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER"):
        make_bucket(os.environ.get(variable, ""))


if __name__ == "__main__":
    main()
