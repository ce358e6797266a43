"""Checks with real requests whether an S3 bucket works for data and artifacts."""

import os
from contextlib import closing
from pathlib import Path
from typing import Any

from regcls.dvc_remote import default_remote
from regcls.errors import MissingError, UserError
from regcls.object_store import TIMEOUTS, Bucket, bucket_of, s3_client
from regcls.progress import say

# Variables from which `mlflow server` reads --artifacts-destination and --default-artifact-root.
DESTINATIONS = ("MLFLOW_ARTIFACTS_DESTINATION", "MLFLOW_DEFAULT_ARTIFACT_ROOT")


def check(root: Path, url: str | None, *, create: bool) -> None:
    """Check endpoint, clock, credentials, bucket, put, get and delete, and a multipart upload; print the result of each step.

    `url`: s3://bucket or s3://bucket/prefix; None: the default DVC remote's, or else MLflow's artifact destination.
    `create`: create the bucket if it is missing.

    Raises:
        UserError: what is wrong and what to do; or there is neither a `url` nor a configured bucket.
    """
    url, settings = (url, {}) if url else configured(root)
    bucket, prefix = bucket_of(url)
    with closing(s3_client(timeouts=TIMEOUTS, **settings)) as client:
        store = Bucket(client=client, name=bucket, prefix=prefix)
        say(f"{store.url} at {store.endpoint}")
        print(f"ok  {store.credentials()}", flush=True)
        if not store.exists():
            if not create:
                raise UserError(f"there is no bucket {bucket} at {store.endpoint}. To create it: regcls s3 check {url} --create")
            print(f"ok  {store.create()}", flush=True)
        for step in (store.reach, store.round_trip, store.multipart):
            print(f"ok  {step()}", flush=True)


def configured(root: Path) -> tuple[str, dict[str, Any]]:
    """The s3:// URL that this project is configured with, and the settings for `s3_client`.

    Raises:
        UserError: there is none.
    """
    try:
        remote = default_remote(root)
    except MissingError:
        remote = None
    if remote and remote.url.startswith("s3://"):
        return remote.url, remote.s3_settings()
    for name in DESTINATIONS:
        if (url := os.environ.get(name, "")).startswith("s3://"):
            return url, {}
    raise UserError(
        f"which bucket? No DVC remote is on S3, and neither is {' or '.join(DESTINATIONS)}. Name it: regcls s3 check s3://bucket"
    )
