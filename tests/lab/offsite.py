# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The off-site store as the controller sees it, and the ways to sabotage a generation in it."""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from . import names
from .steps import SetupError, output_of, run

if TYPE_CHECKING:
    from collections.abc import Iterator

SABOTAGES = ("flip", "uncommit", "signature", "identity")
FILER_PORT = 8888
SIGNATURE_NAMESPACE = "fluxmaint-manifest"
TUNNEL_TIMEOUT_S = 15


@contextmanager
def tunnel(host: str, port: int) -> Iterator[int]:
    """Forward a free local port to a port on the loopback interface of a lab host; yields the local port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        local = probe.getsockname()[1]
    forward = f"127.0.0.1:{local}:127.0.0.1:{port}"
    process = subprocess.Popen(
        ["ssh", "-F", str(names.SSH_CONFIG), "-o", "ExitOnForwardFailure=yes", "-N", "-L", forward, host],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + TUNNEL_TIMEOUT_S
        while not _listens(local):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SetupError(f"no tunnel to port {port} of {host}")
            time.sleep(0.05)
        yield local
    finally:
        # Not SIGTERM: ssh only looks at its flag when a connection stirs, and may sleep on for ever.
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Offsite:
    """One generation in the lab's bucket, with the rights of the identity named."""

    def __init__(self, local_port: int, host: str, generation: str, identity: str) -> None:
        keys = json.loads(names.S3_KEYS.read_text(encoding="utf-8"))
        self._bucket = keys["bucket"]
        self._client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{local_port}",
            region_name="us-east-1",
            aws_access_key_id=keys[identity]["access_key"],
            aws_secret_access_key=keys[identity]["secret_key"],
            config=Config(s3={"addressing_style": "path"}),
            verify=False,
        )
        self.prefix = f"fluxhero/{host}/generations/{generation}"

    def read(self, name: str) -> bytes:
        """The content of one object of the generation."""
        body = self._client.get_object(Bucket=self._bucket, Key=f"{self.prefix}/{name}")["Body"]
        return bytes(body.read())

    def write(self, name: str, data: bytes) -> None:
        """Put another content in the place of an object, so that the one before is gone."""
        self._client.put_object(Bucket=self._bucket, Key=f"{self.prefix}/{name}", Body=data)
        self._destroy(name, keep_newest=True)

    def remove(self, name: str) -> None:
        """Take an object away."""
        self._destroy(name, keep_newest=False)

    def _destroy(self, name: str, *, keep_newest: bool) -> None:
        """Remove versions below the object lock: on the store's own host, which no key of the bucket leads to."""
        key = f"{self.prefix}/{name}"
        versions = self._client.list_object_versions(Bucket=self._bucket, Prefix=key).get("Versions", ())
        with tunnel("store", FILER_PORT) as port:
            for version in versions:
                if version["Key"] == key and not (keep_newest and version["IsLatest"]):
                    place = f"/buckets/{self._bucket}/{key}.versions/v_{version['VersionId']}"
                    request = urllib.request.Request(f"http://127.0.0.1:{port}{place}", method="DELETE")
                    urllib.request.urlopen(request, timeout=10).close()

    def manifest(self) -> dict[str, Any]:
        """The generation's manifest."""
        parsed: dict[str, Any] = json.loads(self.read("MANIFEST.json"))
        return parsed

    def sabotage(self, kind: str) -> str:
        """Damage the generation in one of the ways of `SABOTAGES`, and tell what was done."""
        if kind == "flip":
            name = "db-trades.sqlite.zst.age"
            data = bytearray(self.read(name))
            data[len(data) // 2] ^= 1
            self.write(name, bytes(data))
            return f"one bit in the middle of {name} ({len(data)} bytes) is flipped"
        if kind == "uncommit":
            self.remove("COMMIT")
            return "COMMIT is removed"
        if kind == "signature":
            self.write("MANIFEST.json.sig", _foreign_signature(self.read("MANIFEST.json")))
            return "MANIFEST.json is signed by a foreign key"
        return "the identity is not one of the recipients"


def _foreign_signature(data: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        key, document = Path(folder, "key"), Path(folder, "document")
        document.write_bytes(data)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], log="sabotage")
        run(["ssh-keygen", "-Y", "sign", "-f", key, "-n", SIGNATURE_NAMESPACE, document], log="sabotage")
        return Path(f"{document}.sig").read_bytes()


def foreign_identity(folder: Path) -> Path:
    """Make an age identity to which nothing was encrypted; returns its file."""
    path = folder / "foreign.key"
    path.unlink(missing_ok=True)
    if output_of(["age-keygen", "-o", str(path)]) is None:
        raise SetupError("age-keygen failed")
    return path
