# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A target in an S3-compatible object store.

The only part of the engine that needs boto3, and it asks for it only when such a target is used. Works
with boto3 1.26 (Debian 12) and newer. Credentials come from the target's own file, never from the
environment, and the environment's AWS settings are not looked at.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from ..core.clock import Clock
from ..core.errors import ConfigError, PreconditionError, StoreError
from ..core.fsio import read_json
from .base import CHUNK, AccessDenied, ObjectInfo, ObjectMissing, Piece, Store, Unfinished, Version, checked_key
from .throttle import Throttle

PART_BYTES = 8 << 20
_SINGLE_PUT_BYTES = 2 * PART_BYTES
# Servers copy at most 5 GiB in one request, and answer only when they are done.
COPY_BYTES = 512 << 20
_MOST_PARTS = 9000
# Parts on their way at once; one more is being read, so that memory stays at four of them.
_PARALLEL = 3
_HELD = datetime.max.replace(tzinfo=timezone.utc)
_SYSTEM_CA = Path("/etc/ssl/certs/ca-certificates.crt")
_MISSING = ("404", "NoSuchKey", "NotFound")
_DENIED = ("403", "AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch")
_EXISTS = ("412", "PreconditionFailed", "ConditionalRequestConflict")


class S3Store(Store):
    """Objects in one bucket, below one prefix.

    Each object is sent with its SHA-256, which the server verifies, and then read back whole: storing a
    generation therefore costs its size once up and once down.

    Args:
        name: the target's name in the configuration.
        endpoint: URL of the service; plain `http` is meant for closed networks only.
        credentials_file: JSON with `access_key` and `secret_key`, not readable by others.
        credentials: the two themselves, where there is no such file.
        lock_days: days for which each new object is locked; 0 leaves that to the bucket's default.
        write_credentials_file: of the same form, used for writing alone, when the first may only read.
        bandwidth_limit_bytes_s: most bytes a second while storing, in each direction; 0 is no limit.
        retries: attempts for each request after the first one failed.
        copy_bytes: what is larger is copied within the server in parts of this size; at least 5 MiB.
    """

    def __init__(
        self,
        name: str,
        *,
        endpoint: str,
        region: str,
        bucket: str,
        credentials_file: Path | None = None,
        credentials: tuple[str, str] = ("", ""),
        prefix: str = "",
        lock_days: int = 0,
        write_credentials_file: Path | None = None,
        bandwidth_limit_bytes_s: int = 0,
        clock: Clock | None = None,
        connect_timeout_s: float = 10,
        read_timeout_s: float = 60,
        retries: int = 3,
        copy_bytes: int = COPY_BYTES,
    ) -> None:
        self.name = name
        self.endpoint = endpoint
        self.bucket = bucket
        self._prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self._lock_days = lock_days
        self._copy_bytes = copy_bytes
        self._clock = clock or Clock()
        self._up = Throttle(bandwidth_limit_bytes_s, self._clock)
        self._down = Throttle(bandwidth_limit_bytes_s, self._clock)
        self._boto = _Boto()
        limits = (connect_timeout_s, read_timeout_s, retries)
        if credentials_file is not None:
            credentials = _credentials(credentials_file)
        self._client = self._boto.client(endpoint, region, credentials, *limits)
        self._writer = self._client
        if write_credentials_file is not None:
            self._writer = self._boto.client(endpoint, region, _credentials(write_credentials_file), *limits)

    def check(self) -> None:
        """Raise StoreError unless the bucket answers to these credentials."""
        with self._errors(""):
            self._client.list_objects_v2(Bucket=self.bucket, Prefix=self._prefix, MaxKeys=1)

    def stat(self, key: str) -> ObjectInfo | None:
        """The object's size and time, or None when there is none."""
        try:
            with self._errors(key):
                head = self._client.head_object(Bucket=self.bucket, Key=self._key(key))
        except ObjectMissing:
            return None
        return ObjectInfo(key, head["ContentLength"], head["LastModified"])

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object below `prefix`: one request for each thousand."""
        with self._errors(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self._prefix + checked_key(prefix, prefix=True)
            )
            for page in pages:
                for item in page.get("Contents", ()):
                    yield ObjectInfo(item["Key"][len(self._prefix) :], item["Size"], item["LastModified"])

    def versions(self, prefix: str) -> Iterator[Version]:
        """Every version, hidden ones and delete markers too; where only listing is allowed, the latest ones."""
        found: dict[str, list[Version]] = {}
        try:
            with self._errors(prefix):
                pages = self._client.get_paginator("list_object_versions").paginate(
                    Bucket=self.bucket, Prefix=self._prefix + checked_key(prefix, prefix=True)
                )
                for page in pages:
                    for kind in ("Versions", "DeleteMarkers"):
                        for item in page.get(kind, ()):
                            version = self._version(item, marker=kind == "DeleteMarkers")
                            found.setdefault(version.key, []).append(version)
        except AccessDenied:
            yield from super().versions(prefix)
            return
        for _key, versions in sorted(found.items()):
            # The server gives them newest first, markers apart.
            yield from sorted(versions, key=lambda item: not item.latest)

    def _version(self, item: dict[str, Any], *, marker: bool) -> Version:
        key = item["Key"][len(self._prefix) :]
        return Version(key, item["VersionId"], item.get("Size", 0), item["LastModified"], item["IsLatest"], marker)

    def delete(self, key: str, version: str = "") -> None:
        """Remove one version for good. A version must be named: without one S3 only hides the object."""
        if not version:
            raise StoreError("only a version that is named can be removed from a bucket", subject=key)
        with self._errors(key), contextlib.suppress(ObjectMissing):
            self._writer.delete_object(Bucket=self.bucket, Key=self._key(key), VersionId=version)

    def retained_until(self, key: str, version: str = "") -> datetime | None:
        """The end of its retention; far in the future under a legal hold."""
        with self._errors(key):
            which = {"VersionId": version} if version else {}
            head = self._client.head_object(Bucket=self.bucket, Key=self._key(key), **which)
        if head.get("ObjectLockLegalHoldStatus") == "ON":
            return _HELD
        until: datetime | None = head.get("ObjectLockRetainUntilDate")
        return until

    def now(self) -> datetime:
        """The server's clock."""
        with self._errors(""):
            answer = self._client.list_objects_v2(Bucket=self.bucket, Prefix=self._prefix, MaxKeys=1)
        said = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        return email.utils.parsedate_to_datetime(said) if said else self._clock.now()

    def unfinished(self, prefix: str) -> Iterator[Unfinished]:
        """Multipart uploads that were neither completed nor aborted."""
        with self._errors(prefix):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self.bucket, Prefix=self._prefix + checked_key(prefix, prefix=True)
            )
            for page in pages:
                for item in page.get("Uploads", ()):
                    yield Unfinished(item["Key"][len(self._prefix) :], item["UploadId"], item["Initiated"])

    def abort(self, upload: Unfinished) -> None:
        """Abort a multipart upload."""
        with self._errors(upload.key), contextlib.suppress(ObjectMissing):
            self._writer.abort_multipart_upload(Bucket=self.bucket, Key=self._key(upload.key), UploadId=upload.id)

    def put_file(
        self,
        key: str,
        path: Path,
        sha256: str,
        *,
        renew_after_s: float | None = None,
        give: bool = False,  # noqa: ARG002 - what is sent is a copy anyway
    ) -> bool:
        """Send the file, with checksums that the server verifies, then read it back whole and hash it."""
        size = path.stat().st_size
        found = self.stat(key)
        if found is not None:
            self._same_content(key, found, size, sha256)
            if renew_after_s is None or (self.now() - found.modified).total_seconds() < renew_after_s:
                return False
        with self._errors(key), open(path, "rb") as stream:
            if size <= _SINGLE_PUT_BYTES:
                self._put_object(key, stream, _base64(sha256), new=found is None)
            else:
                self._put_parts(key, stream, size, new=found is None)
        received = self._read_back(key)
        if received != sha256:
            raise StoreError(
                f"target {self.name} gave back other bytes than were sent",
                subject=key,
                expected=sha256,
                received=received,
            )
        return True

    def renew(self, key: str) -> None:
        """Let the server copy the object to a new version of itself: the old one may go, this one stays."""
        where = {"Bucket": self.bucket, "Key": self._key(key)}
        with self._errors(key):
            found = self._client.head_object(**where)
            if found["ContentLength"] <= self._copy_bytes:
                self._writer.copy_object(CopySource=where, MetadataDirective="REPLACE", **self._lock(), **where)
            else:
                self._copy_parts(key, found["ContentLength"], found["ETag"])

    def put_new(self, key: str, data: bytes) -> None:
        """Store a new object, or raise StoreError when there is one.

        The server decides (`If-None-Match: *`) where the client library can say that, else a look before.
        """
        if not self._new() and self.exists(key):
            raise self._taken(key)
        with self._errors(key):
            self._put_object(key, data, _base64(hashlib.sha256(data).hexdigest()))
        if self.get_bytes(key, len(data)) != data:
            raise StoreError(f"target {self.name} gave back other bytes than were sent", subject=key)

    @contextlib.contextmanager
    def read(self, key: str, version: str = "") -> Iterator[Iterator[bytes]]:
        """The object's content in chunks."""
        with self._errors(key):
            which = {"VersionId": version} if version else {}
            body = self._client.get_object(Bucket=self.bucket, Key=self._key(key), **which)["Body"]
            with contextlib.closing(body):
                yield iter(lambda: body.read(CHUNK), b"")

    def _put_object(self, key: str, body: Any, checksum: str, *, new: bool = True) -> None:
        self._writer.put_object(
            Bucket=self.bucket,
            Key=self._key(key),
            Body=body if isinstance(body, bytes) else self._up.body(body),
            ChecksumSHA256=checksum,
            **self._lock(),
            **(self._new() if new else {}),
        )

    def _put_parts(self, key: str, stream: Any, size: int, *, new: bool) -> None:
        """Some parts at once, each with its own checksum: one alone rarely fills a line, all would fill the memory."""
        length = max(PART_BYTES, -(-size // _MOST_PARTS))

        def send(data: bytes, **part: Any) -> dict[str, Any]:
            checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
            body = self._up.body(io.BytesIO(data))
            sent = self._writer.upload_part(Body=body, ChecksumSHA256=checksum, **part)
            return {"ETag": sent["ETag"], "ChecksumSHA256": checksum}

        pieces = self._interruptible(iter(lambda: stream.read(length), b""), key)
        self._in_parts(key, pieces, send, new=new, ChecksumAlgorithm="SHA256")

    def _copy_parts(self, key: str, size: int, etag: str) -> None:
        """The server copies some parts at once, of the very content that was looked at; none passes through here."""
        length = max(self._copy_bytes, -(-size // _MOST_PARTS))
        source = {"CopySource": {"Bucket": self.bucket, "Key": self._key(key)}, "CopySourceIfMatch": etag}

        def copy(first: int, **part: Any) -> dict[str, Any]:
            last = min(first + length, size) - 1
            try:
                done = self._writer.upload_part_copy(CopySourceRange=f"bytes={first}-{last}", **source, **part)
            except self._boto.errors as error:
                if _code(error) in _EXISTS:
                    raise StoreError("was changed while the server copied it", subject=key) from None
                raise
            return {"ETag": done["CopyPartResult"]["ETag"]}

        self._in_parts(key, self._interruptible(iter(range(0, size, length)), key), copy, new=False)

    def _in_parts(
        self, key: str, pieces: Iterator[Piece], send: Callable[..., dict[str, Any]], *, new: bool, **options: Any
    ) -> None:
        """One object from the parts that `send` makes of the pieces; after a failure nothing of it is left."""
        where = {"Bucket": self.bucket, "Key": self._key(key)}
        upload = self._writer.create_multipart_upload(**options, **self._lock(), **where)["UploadId"]
        stopped = threading.Event()

        def one(number: int, piece: Piece) -> dict[str, Any]:
            if stopped.is_set():
                return {}
            return {"PartNumber": number, **send(piece, UploadId=upload, PartNumber=number, **where)}

        try:
            with ThreadPoolExecutor(_PARALLEL) as pool:
                try:
                    parts = _sent(pool, one, pieces)
                except BaseException:
                    stopped.set()
                    raise
            self._writer.complete_multipart_upload(
                UploadId=upload,
                MultipartUpload={"Parts": sorted(parts, key=lambda part: int(part["PartNumber"]))},
                **(self._new("CompleteMultipartUpload") if new else {}),
                **where,
            )
        except BaseException:
            # Best effort: the credentials may not be allowed to, and the first error is the one that counts.
            with contextlib.suppress(*self._boto.errors):
                self._writer.abort_multipart_upload(UploadId=upload, **where)
            raise

    def _read_back(self, key: str) -> str:
        digest = hashlib.sha256()
        with self.read(key) as chunks:
            for chunk in self._down.chunks(self._interruptible(chunks, key)):
                digest.update(chunk)
        return digest.hexdigest()

    def _lock(self) -> dict[str, Any]:
        if not self._lock_days:
            return {}
        until = self._clock.now() + timedelta(days=self._lock_days)
        return {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": until}

    def _new(self, operation: str = "PutObject") -> dict[str, str]:
        members = self._client.meta.service_model.operation_model(operation).input_shape.members
        return {"IfNoneMatch": "*"} if "IfNoneMatch" in members else {}

    def _key(self, key: str) -> str:
        return self._prefix + checked_key(key)

    def _taken(self, key: str) -> StoreError:
        return StoreError(f"exists already on target {self.name}", subject=key, untouched="the object that is there")

    @contextlib.contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except self._boto.errors as error:
            answer = getattr(error, "response", {}) or {}
            code = _code(error)
            text = str(answer.get("Error", {}).get("Message", "") or error)
            facts = {"endpoint": self.endpoint, "bucket": self.bucket, "code": code}
            where = f"target {self.name} (bucket {self.bucket} at {self.endpoint})"
            subject = key or self.name
            if code in _MISSING:
                raise ObjectMissing(f"is missing on {where}: {code}", subject=subject, **facts) from None
            if code in _EXISTS:
                raise self._taken(key) from None
            kind = AccessDenied if code in _DENIED else StoreError
            raise kind(f"{where} failed: {code}: {text}", subject=subject, **facts) from None


class _Boto:
    """The AWS client library, imported when it is first needed."""

    def __init__(self) -> None:
        try:
            import botocore.exceptions
            import botocore.session
            from botocore.config import Config
            from urllib3.exceptions import HTTPError
        except ImportError:
            raise PreconditionError(
                "an S3 target needs the Python library boto3, which is not installed",
                subject="boto3",
                remedy="install the package python3-boto3",
            ) from None
        self._session = botocore.session
        self._config = Config
        self.errors = (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, HTTPError, ConnectionError)

    def client(
        self,
        endpoint: str,
        region: str,
        credentials: tuple[str, str],
        connect_timeout_s: float,
        read_timeout_s: float,
        retries: int,
    ) -> Any:
        # No profile, configuration file or CA bundle of whoever runs this may change what a backup does.
        session = self._session.Session(
            session_vars={
                "profile": (None, None, None, None),
                "config_file": (None, None, os.devnull, None),
                "credentials_file": (None, None, os.devnull, None),
                "ca_bundle": (None, None, None, None),
            }
        )
        options: dict[str, Any] = {
            "connect_timeout": connect_timeout_s,
            "read_timeout": read_timeout_s,
            "retries": {"total_max_attempts": retries + 1, "mode": "standard"},
            "s3": {"addressing_style": "path", "payload_signing_enabled": True},
            "signature_version": "s3v4",
            "max_pool_connections": _PARALLEL + 1,
        }
        quiet: dict[str, Any] = {
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        }
        try:
            config = self._config(**options, **quiet)
        except TypeError:  # before 1.36, which has no checksums of its own to switch off
            config = self._config(**options)
        verify: bool | str = False
        if not endpoint.startswith("http://"):
            verify = str(_SYSTEM_CA) if _SYSTEM_CA.exists() else True
        return session.create_client(
            "s3",
            endpoint_url=endpoint,
            region_name=region,
            aws_access_key_id=credentials[0],
            aws_secret_access_key=credentials[1],
            verify=verify,
            config=config,
        )


def _code(error: Exception) -> str:
    """What the server, or else the client library, calls an error."""
    answer = getattr(error, "response", {}) or {}
    return str(answer.get("Error", {}).get("Code", type(error).__name__))


def _credentials(path: Path) -> tuple[str, str]:
    content = read_json(path)
    if path.stat().st_mode & 0o007:
        raise PreconditionError(
            "can be read by every user of this host", subject=str(path), remedy="set its mode to 0600"
        )
    keys = content if isinstance(content, dict) else {}
    access, secret = keys.get("access_key"), keys.get("secret_key")
    if not (isinstance(access, str) and isinstance(secret, str) and access and secret):
        raise ConfigError("must be JSON with the texts access_key and secret_key", subject=str(path))
    return access, secret


def _sent(
    pool: ThreadPoolExecutor, send: Callable[[int, Piece], dict[str, Any]], pieces: Iterator[Piece]
) -> list[dict[str, Any]]:
    """Hand the pieces out, never more of them at once than the pool has threads."""
    running: set[Future[dict[str, Any]]] = set()
    parts = []
    for number, data in enumerate(pieces, start=1):
        if len(running) >= _PARALLEL:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            parts += [future.result() for future in done]
        running.add(pool.submit(send, number, data))
    return parts + [future.result() for future in running]


def _base64(sha256: str) -> str:
    return base64.b64encode(bytes.fromhex(sha256)).decode()
