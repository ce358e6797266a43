"""S3 (AWS, MinIO, SeaweedFS): the one place that makes a client, and whether a bucket can be used as MLflow and DVC use it."""

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from regcls.errors import UserError

TIMEOUTS = (4.0, 8.0)  # seconds to a connection, and to an answer, while a bucket is checked
SKEW_ALLOWED = 900.0  # seconds between our clock and that of S3, after which it refuses each request
GATEWAY = (502, 503, 504)  # HTTP statuses that a proxy answers by itself
PART_BYTES = 5 * 2**20  # S3 takes no smaller part of an upload, but for the last
CREDENTIALS = "Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE and AWS_ENDPOINT_URL."

ANSWERS = {  # error codes of S3 -> what they mean
    "NoSuchBucket": "there is no such bucket",
    "NoSuchKey": "there is no such key in the bucket",
    "AccessDenied": "these credentials may not {doing}",
    "InvalidAccessKeyId": "the access key is not known (AWS_ACCESS_KEY_ID)",
    "SignatureDoesNotMatch": "the secret key is not that of the access key (AWS_SECRET_ACCESS_KEY)",
    "ExpiredToken": "the credentials have expired (AWS_SESSION_TOKEN)",
    "PermanentRedirect": "the bucket is in another region (AWS_DEFAULT_REGION)",
    "AuthorizationHeaderMalformed": "the bucket is in another region (AWS_DEFAULT_REGION)",
    "BucketAlreadyExists": "someone else has a bucket of that name",
    "RequestTimeTooSkewed": "the clocks differ by more than S3 allows. Set this machine's clock (timedatectl set-ntp true)",
    "NotImplemented": "S3 does not know a header of the request: an older server may need AWS_REQUEST_CHECKSUM_CALCULATION=when_required",
}


def s3_client(*, timeouts: tuple[float, float], profile: str | None = None, **given: Any) -> Any:
    """A boto3 client that tries each request once; what is not `given` (endpoint_url, aws_access_key_id, …) the environment says.

    The endpoint is AWS_ENDPOINT_URL (or the one of AWS's configuration file), else MLFLOW_S3_ENDPOINT_URL.
    `timeouts`: seconds to a connection, and between two bytes.

    Raises:
        UserError: no such profile, or no URL for an endpoint.
    """
    import boto3  # type: ignore[import-untyped]
    from botocore.config import Config  # type: ignore[import-untyped]
    from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

    if not {"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"} & set(os.environ):
        given.setdefault("endpoint_url", os.environ.get("MLFLOW_S3_ENDPOINT_URL"))
    config = Config(connect_timeout=timeouts[0], read_timeout=timeouts[1], retries={"total_max_attempts": 1})
    try:
        return boto3.Session(profile_name=profile).client("s3", config=config, **given)
    except (BotoCoreError, ValueError) as error:
        raise UserError(f"no way to S3: {error}. {CREDENTIALS}") from error


def said_by_s3(error: Any, *, doing: str) -> str:
    """What botocore's ClientError means, in words; `doing` completes "these credentials may not …"."""
    said = error.response["Error"]
    if meaning := ANSWERS.get(said["Code"]):
        return meaning.format(doing=doing)
    return f"S3 answers {said['Code']}: {said.get('Message', '')}"


def bucket_of(url: str) -> tuple[str, str]:
    """The bucket and the prefix (with a slash at its end, or empty) of s3://bucket/prefix.

    Raises:
        UserError: it is no such URL.
    """
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc:
        raise UserError(f"{url} names no bucket: write s3://bucket or s3://bucket/prefix")
    prefix = parts.path.strip("/")
    return parts.netloc, f"{prefix}/" if prefix else ""


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """A bucket that is checked. Each check returns what it found, leaves nothing behind, and takes at most the timeouts a request.

    All raise:
        UserError: what is wrong, at which endpoint, and what to do.
    """

    client: Any
    name: str
    prefix: str  # keys are made below it: credentials may be for a part of the bucket
    clock: Callable[[], float] = field(default=time.time)  # Unix seconds

    @property
    def url(self) -> str:
        """As a user writes it."""
        return f"s3://{self.name}/{self.prefix}".rstrip("/")

    @property
    def endpoint(self) -> str:
        """Where requests go."""
        return str(self.client.meta.endpoint_url)

    def credentials(self) -> str:
        """Whose credentials are used, without a secret, and where they come from."""
        found = self.client._request_signer._credentials  # boto3 has no public way to what a client took
        if found is None:
            raise UserError(f"no credentials for {self.endpoint}. {CREDENTIALS}")
        with self._explained("use these credentials"):
            return f"access key {found.access_key[:4]}…, from {found.method}"

    def reach(self) -> str:
        """Endpoint, clock and credentials, by listing one key of the bucket."""
        with self._explained("list the bucket"):
            answer = self.client.list_objects_v2(Bucket=self.name, Prefix=self.prefix, MaxKeys=1)["ResponseMetadata"]
            if "xml" not in answer["HTTPHeaders"].get("content-type", ""):
                raise self._no_s3()
            skew = self._skew(answer)
        return f"{self.endpoint} answers; the clocks differ by {skew:.0f} s, S3 allows {SKEW_ALLOWED:.0f}"

    def exists(self) -> bool:
        """Whether the bucket is there; all else that is wrong is raised."""
        from botocore.exceptions import ClientError

        try:
            self.reach()
        except UserError as error:
            if isinstance(error.__cause__, ClientError) and error.__cause__.response["Error"]["Code"] == "NoSuchBucket":
                return False
            raise
        return True

    def create(self) -> str:
        """Make the bucket, in the client's region."""
        region = self.client.meta.region_name
        elsewhere = {"CreateBucketConfiguration": {"LocationConstraint": region}} if region not in (None, "us-east-1", "aws-global") else {}
        with self._explained("create a bucket"):
            self.client.create_bucket(Bucket=self.name, **elsewhere)
        return f"bucket {self.name} created"

    def round_trip(self) -> str:
        """Put an object, get it back, delete it."""
        content, started = secrets.token_bytes(1024), time.perf_counter()
        with self._new_key() as key:
            with self._explained(f"write below {self.url}"):
                self.client.put_object(Bucket=self.name, Key=key, Body=content)
            self._compare(key, content)
        return f"put, get and delete of 1 KiB in {1000 * (time.perf_counter() - started):.0f} ms"

    def multipart(self) -> str:
        """Upload an object in two parts, as large checkpoints are, and get it back."""
        parts, started = [secrets.token_bytes(PART_BYTES), secrets.token_bytes(1024)], time.perf_counter()
        with self._new_key() as key:
            with self._explained("upload in parts"):
                upload = {"Bucket": self.name, "Key": key}
                upload["UploadId"] = self.client.create_multipart_upload(**upload)["UploadId"]
                try:
                    done = [
                        {"PartNumber": number, "ETag": self.client.upload_part(**upload, PartNumber=number, Body=part)["ETag"]}
                        for number, part in enumerate(parts, 1)
                    ]
                    self.client.complete_multipart_upload(**upload, MultipartUpload={"Parts": done})
                except BaseException:
                    with suppress(Exception):  # the first error is the one to tell
                        self.client.abort_multipart_upload(**upload)
                    raise
            self._compare(key, b"".join(parts))
        return f"upload of {PART_BYTES >> 20} MiB in two parts in {time.perf_counter() - started:.1f} s"

    @contextmanager
    def _new_key(self) -> Iterator[str]:
        """A key that nobody has, deleted at the end."""
        key = f"{self.prefix}regcls-check-{secrets.token_hex(8)}"
        try:
            yield key
        except BaseException:
            with suppress(Exception):  # the first error is the one to tell
                self.client.delete_object(Bucket=self.name, Key=key)
            raise
        with self._explained(f"delete: s3://{self.name}/{key} is left behind"):
            self.client.delete_object(Bucket=self.name, Key=key)

    def _compare(self, key: str, content: bytes) -> None:
        with self._explained(f"read below {self.url}"):
            found = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        if found != content:
            raise UserError(f"{self.url} at {self.endpoint} gives other bytes than it was given. Check what lies between (a proxy?).")

    def _skew(self, answer: Any) -> float:
        """Seconds between the answer's clock and ours."""
        date = answer["HTTPHeaders"].get("date")
        skew = abs(parsedate_to_datetime(date).timestamp() - self.clock()) if date else 0.0
        if skew > SKEW_ALLOWED:
            raise UserError(
                f"this machine's clock and that of {self.endpoint} differ by {skew / 60:.0f} minutes; S3 refuses more than "
                f"{SKEW_ALLOWED / 60:.0f}. Set the clock (timedatectl set-ntp true)."
            )
        return skew

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        from botocore import exceptions  # type: ignore[import-untyped]
        from botocore.parsers import ResponseParserError  # type: ignore[import-untyped]

        try:
            yield
        except exceptions.ClientError as error:
            answer = error.response["ResponseMetadata"]
            if "xml" not in answer["HTTPHeaders"].get("content-type", ""):
                raise self._no_s3(answer["HTTPStatusCode"]) from error
            self._skew(answer)
            raise UserError(f"{self.url}: {said_by_s3(error, doing=doing)} (at {self.endpoint}).") from error
        except ResponseParserError as error:
            raise self._no_s3() from error
        except (exceptions.ConnectTimeoutError, exceptions.ReadTimeoutError) as error:
            raise UserError(
                f"{self.endpoint} gives no answer. Is it the right address (AWS_ENDPOINT_URL), and does a firewall lie between?"
            ) from error
        except (exceptions.ConnectionError, exceptions.HTTPClientError) as error:
            raise UserError(f"cannot reach {self.endpoint}: {innermost(error)}. Does it run, and is AWS_ENDPOINT_URL right?") from error
        except exceptions.ParamValidationError as error:
            raise UserError(f"{self.name} cannot be the name of a bucket") from error
        except exceptions.BotoCoreError as error:
            raise UserError(f"{self.url}: {error}. {CREDENTIALS}") from error

    def _no_s3(self, status: int = 200) -> UserError:
        if status in GATEWAY:
            return UserError(f"{self.endpoint} answers {status}: the proxy there does not reach S3. Its log says more; try again later.")
        return UserError(f"{self.endpoint} answers, but is no S3: it sends a web page or the like. Check AWS_ENDPOINT_URL (the port?).")


def innermost(error: BaseException) -> str:
    """The innermost reason: "Connection refused", not the layers around it."""
    while error.__context__:
        error = error.__context__
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
