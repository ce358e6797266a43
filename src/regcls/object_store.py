"""S3 (AWS, MinIO, SeaweedFS): creates clients, and checks whether a bucket works for MLflow and DVC."""

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
from regcls.proxy import proxy_hint

TIMEOUTS = (4.0, 8.0)  # seconds to connect and to respond, for checks of a bucket
SKEW_ALLOWED = 900.0  # seconds between our clock and S3's; beyond, it refuses all requests
GATEWAY = (502, 503, 504)  # HTTP statuses that come from a proxy
PART_BYTES = 5 * 2**20  # S3's minimum for all parts of an upload but the last
CREDENTIALS = "Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE and AWS_ENDPOINT_URL."

ANSWERS = {  # error codes of S3 -> what they mean
    "NoSuchBucket": "there is no such bucket",
    "NoSuchKey": "there is no such key in the bucket",
    "AccessDenied": "these credentials may not {action}",
    "InvalidAccessKeyId": "the access key is unknown (AWS_ACCESS_KEY_ID)",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key (AWS_SECRET_ACCESS_KEY)",
    "ExpiredToken": "the credentials have expired (AWS_SESSION_TOKEN)",
    "PermanentRedirect": "the bucket is in another region (AWS_DEFAULT_REGION)",
    "AuthorizationHeaderMalformed": "the bucket is in another region (AWS_DEFAULT_REGION)",
    "BucketAlreadyExists": "someone else has a bucket of that name",
    "RequestTimeTooSkewed": "the clocks differ by more than S3 allows. Set this machine's clock (timedatectl set-ntp true)",
    "NotImplemented": "S3 does not know a header of the request: an older server may need AWS_REQUEST_CHECKSUM_CALCULATION=when_required",
}


def s3_client(*, timeouts: tuple[float, float], profile: str | None = None, **settings: Any) -> Any:
    """A boto3 client that tries each request once. Settings (endpoint_url, aws_access_key_id, …) default to the environment.

    The default endpoint is AWS_ENDPOINT_URL (or that of AWS's configuration file), else MLFLOW_S3_ENDPOINT_URL.
    `timeouts`: seconds to connect, and between two bytes.

    Raises:
        UserError: no such profile, or an invalid endpoint URL.
    """
    import boto3  # type: ignore[import-untyped]
    from botocore.config import Config  # type: ignore[import-untyped]
    from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

    if not {"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"} & set(os.environ):
        settings.setdefault("endpoint_url", os.environ.get("MLFLOW_S3_ENDPOINT_URL"))
    config = Config(connect_timeout=timeouts[0], read_timeout=timeouts[1], retries={"total_max_attempts": 1})
    try:
        return boto3.Session(profile_name=profile).client("s3", config=config, **settings)
    except (BotoCoreError, ValueError) as error:
        raise UserError(f"cannot connect to S3: {error}. {CREDENTIALS}") from error


def explain_client_error(error: Any, *, action: str) -> str:
    """The meaning of botocore's ClientError; `action` completes "these credentials may not …"."""
    details = error.response["Error"]
    if meaning := ANSWERS.get(details["Code"]):
        return meaning.format(action=action)
    return f"S3 answers {details['Code']}: {details.get('Message', '')}"


def bucket_of(url: str) -> tuple[str, str]:
    """Bucket and prefix (with a trailing slash, or empty) of s3://bucket/prefix.

    Raises:
        UserError: it is not such a URL.
    """
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc:
        raise UserError(f"{url} names no bucket: write s3://bucket or s3://bucket/prefix")
    prefix = parts.path.strip("/")
    return parts.netloc, f"{prefix}/" if prefix else ""


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """A bucket to check. Each check returns a description of the result, leaves nothing behind, and takes at most the timeouts per request.

    All raise:
        UserError: what is wrong, at which endpoint, and what to do.
    """

    client: Any
    name: str
    prefix: str  # of test keys: credentials may cover only a part of the bucket
    clock: Callable[[], float] = field(default=time.time)  # Unix seconds

    @property
    def url(self) -> str:
        """s3://bucket/prefix."""
        return f"s3://{self.name}/{self.prefix}".rstrip("/")

    @property
    def endpoint(self) -> str:
        """URL that requests go to."""
        return str(self.client.meta.endpoint_url)

    def credentials(self) -> str:
        """The beginning of the access key, and where the credentials come from."""
        credentials = self.client._request_signer._credentials  # boto3 has no public API for a client's credentials
        if credentials is None:
            raise UserError(f"no credentials for {self.endpoint}. {CREDENTIALS}")
        with self._explain_errors("use these credentials"):
            return f"access key {credentials.access_key[:4]}…, from {credentials.method}"

    def reach(self) -> str:
        """Check endpoint, clock and credentials, by listing one key of the bucket."""
        with self._explain_errors("list the bucket"):
            answer = self.client.list_objects_v2(Bucket=self.name, Prefix=self.prefix, MaxKeys=1)["ResponseMetadata"]
            if "xml" not in answer["HTTPHeaders"].get("content-type", ""):
                raise self._no_s3()
            skew = self._skew(answer)
        return f"{self.endpoint} answers; the clocks differ by {skew:.0f} s, S3 allows {SKEW_ALLOWED:.0f}"

    def exists(self) -> bool:
        """Whether the bucket exists; other errors are raised."""
        from botocore.exceptions import ClientError

        try:
            self.reach()
        except UserError as error:
            if isinstance(error.__cause__, ClientError) and error.__cause__.response["Error"]["Code"] == "NoSuchBucket":
                return False
            raise
        return True

    def create(self) -> str:
        """Create the bucket in the client's region."""
        region = self.client.meta.region_name
        location = {"CreateBucketConfiguration": {"LocationConstraint": region}} if region not in (None, "us-east-1", "aws-global") else {}
        with self._explain_errors("create a bucket"):
            self.client.create_bucket(Bucket=self.name, **location)
        return f"bucket {self.name} created"

    def round_trip(self) -> str:
        """Put an object, get it back, delete it."""
        content, started = secrets.token_bytes(1024), time.perf_counter()
        with self._new_key() as key:
            with self._explain_errors(f"write below {self.url}"):
                self.client.put_object(Bucket=self.name, Key=key, Body=content)
            self._compare(key, content)
        return f"put, get and delete of 1 KiB in {1000 * (time.perf_counter() - started):.0f} ms"

    def multipart(self) -> str:
        """Upload an object in two parts, as large checkpoints are uploaded, and get it back."""
        parts, started = [secrets.token_bytes(PART_BYTES), secrets.token_bytes(1024)], time.perf_counter()
        with self._new_key() as key:
            with self._explain_errors("upload in parts"):
                upload = {"Bucket": self.name, "Key": key}
                upload["UploadId"] = self.client.create_multipart_upload(**upload)["UploadId"]
                try:
                    done = [
                        {"PartNumber": number, "ETag": self.client.upload_part(**upload, PartNumber=number, Body=part)["ETag"]}
                        for number, part in enumerate(parts, 1)
                    ]
                    self.client.complete_multipart_upload(**upload, MultipartUpload={"Parts": done})
                except BaseException:
                    with suppress(Exception):  # report the first error, not this one
                        self.client.abort_multipart_upload(**upload)
                    raise
            self._compare(key, b"".join(parts))
        return f"upload of {PART_BYTES >> 20} MiB in two parts in {time.perf_counter() - started:.1f} s"

    @contextmanager
    def _new_key(self) -> Iterator[str]:
        """A unique key, deleted at the end."""
        key = f"{self.prefix}regcls-check-{secrets.token_hex(8)}"
        try:
            yield key
        except BaseException:
            with suppress(Exception):  # report the first error, not this one
                self.client.delete_object(Bucket=self.name, Key=key)
            raise
        with self._explain_errors(f"delete: s3://{self.name}/{key} is left behind"):
            self.client.delete_object(Bucket=self.name, Key=key)

    def _compare(self, key: str, content: bytes) -> None:
        with self._explain_errors(f"read below {self.url}"):
            returned = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        if returned != content:
            raise UserError(f"{self.url} at {self.endpoint} returns other bytes than were stored. Check what lies between (a proxy?).")

    def _skew(self, answer: Any) -> float:
        """Seconds between the server's clock and ours."""
        date = answer["HTTPHeaders"].get("date")
        skew = abs(parsedate_to_datetime(date).timestamp() - self.clock()) if date else 0.0
        if skew > SKEW_ALLOWED:
            raise UserError(
                f"this machine's clock and that of {self.endpoint} differ by {skew / 60:.0f} minutes; S3 refuses more than "
                f"{SKEW_ALLOWED / 60:.0f}. Set the clock (timedatectl set-ntp true)."
            )
        return skew

    @contextmanager
    def _explain_errors(self, action: str) -> Iterator[None]:
        """Turn botocore's exceptions into UserErrors; `action`: see `explain_client_error`."""
        from botocore import exceptions  # type: ignore[import-untyped]
        from botocore.parsers import ResponseParserError  # type: ignore[import-untyped]

        try:
            yield
        except exceptions.ClientError as error:
            answer = error.response["ResponseMetadata"]
            if "xml" not in answer["HTTPHeaders"].get("content-type", ""):
                raise self._no_s3(answer["HTTPStatusCode"]) from error
            self._skew(answer)
            raise UserError(f"{self.url}: {explain_client_error(error, action=action)} (at {self.endpoint}).") from error
        except ResponseParserError as error:
            raise self._no_s3() from error
        except (exceptions.ConnectTimeoutError, exceptions.ReadTimeoutError) as error:
            remedy = f"Is it the right address (AWS_ENDPOINT_URL), and is there a firewall in between?{proxy_hint(self.endpoint)}"
            raise UserError(f"{self.endpoint} does not answer. {remedy}") from error
        except (exceptions.ConnectionError, exceptions.HTTPClientError) as error:
            remedy = f"Is it running, and is AWS_ENDPOINT_URL right?{proxy_hint(self.endpoint)}"
            raise UserError(f"cannot reach {self.endpoint}: {innermost(error)}. {remedy}") from error
        except exceptions.ParamValidationError as error:
            raise UserError(f"{self.name} cannot be the name of a bucket") from error
        except exceptions.BotoCoreError as error:
            raise UserError(f"{self.url}: {error}. {CREDENTIALS}") from error

    def _no_s3(self, status: int = 200) -> UserError:
        hint = proxy_hint(self.endpoint)
        if status in GATEWAY:
            return UserError(
                f"{self.endpoint} answers {status}: the proxy there cannot reach S3. Its log says more; try again later.{hint}"
            )
        what = "is not S3: it sends a web page or the like"
        return UserError(f"{self.endpoint} answers, but {what}. Check AWS_ENDPOINT_URL (the port?).{hint}")


def innermost(error: BaseException) -> str:
    """The message of the innermost exception, such as "Connection refused"."""
    while error.__context__:
        error = error.__context__
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
