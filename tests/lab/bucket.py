# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's off-site store as seen from the controller, and its bucket.

`python -m tests.lab.bucket` creates the bucket: versions, object lock (COMPLIANCE, one day), and a
policy that keeps the uploader from deleting anything and lets the prover write proofs.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from . import names
from .steps import SetupError, output_of, say

READY_TIMEOUT_S = 90
# How SeaweedFS spells the identity `uploader` in policies.
UPLOADER = "arn:aws:iam::000000000000:user/uploader"
PROVER = "arn:aws:iam::000000000000:user/prover"
PRUNER = "arn:aws:iam::000000000000:user/pruner"
DENIED_TO_UPLOADER = (
    "s3:DeleteObject",
    "s3:DeleteObjectVersion",
    "s3:DeleteBucket",
    "s3:PutBucketPolicy",
    "s3:DeleteBucketPolicy",
    "s3:PutBucketVersioning",
    "s3:PutBucketObjectLockConfiguration",
    "s3:PutLifecycleConfiguration",
    "s3:BypassGovernanceRetention",
)


DENIED_TO_PRUNER = (
    "s3:DeleteBucket",
    "s3:PutBucketPolicy",
    "s3:DeleteBucketPolicy",
    "s3:PutBucketVersioning",
    "s3:PutBucketObjectLockConfiguration",
    "s3:PutLifecycleConfiguration",
)


def local_endpoint() -> str:
    """URL under which the controller reaches the store; inside the lab it is `http://store:8333`."""
    found = output_of(["docker", "port", f"{names.PREFIX}-store", "8333/tcp"])
    if not found:
        raise SetupError("The lab's store does not run: .lab/venv/bin/python -m tests.lab.hosts create store")
    return f"http://{found.split()[0]}"


def client(identity: str) -> Any:
    """An S3 client on the controller for the identity `admin`, `uploader` or `reader`."""
    keys = json.loads(names.S3_KEYS.read_text(encoding="utf-8"))
    return boto3.session.Session().client(
        "s3",
        endpoint_url=local_endpoint(),
        region_name=keys["region"],
        aws_access_key_id=keys[identity]["access_key"],
        aws_secret_access_key=keys[identity]["secret_key"],
        config=Config(s3={"addressing_style": "path"}, connect_timeout=5, read_timeout=30),
    )


def wait_until_ready(s3: Any) -> list[str]:
    """Wait for the store to answer; return the names of its buckets."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while True:
        try:
            return [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
        except (BotoCoreError, ClientError) as exc:
            if time.monotonic() > deadline:
                raise SetupError(f"The lab's store does not answer within {READY_TIMEOUT_S} s: {exc}") from exc
            time.sleep(0.5)


def policy(bucket: str) -> dict[str, object]:
    """The bucket's policy: the uploader removes nothing, the prover adds proofs alone, the pruner adds nothing."""
    resource = f"arn:aws:s3:::{bucket}"
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "UploaderRemovesNothing",
                "Effect": "Deny",
                "Principal": {"AWS": [UPLOADER]},
                "Action": list(DENIED_TO_UPLOADER),
                "Resource": [resource, f"{resource}/*"],
            },
            {
                "Sid": "PrunerAddsNothing",
                "Effect": "Deny",
                "Principal": {"AWS": [PRUNER]},
                "Action": list(DENIED_TO_PRUNER),
                "Resource": [resource],
            },
            {
                "Sid": "PrunerAddsNoObject",
                "Effect": "Deny",
                "Principal": {"AWS": [PRUNER]},
                "Action": ["s3:PutObject", "s3:BypassGovernanceRetention"],
                "Resource": [f"{resource}/*"],
            },
            {
                "Sid": "ProverAddsProofs",
                "Effect": "Allow",
                "Principal": {"AWS": [PROVER]},
                "Action": ["s3:PutObject"],
                "Resource": [f"{resource}/*/proofs/*"],
            },
        ],
    }


def ensure_bucket(s3: Any, bucket: str) -> bool:
    """Create the bucket where it is missing and set its lock and policy; return whether it was created."""
    created = bucket not in wait_until_ready(s3)
    if created:
        s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    retention = {"Mode": "COMPLIANCE", "Days": 1}
    s3.put_object_lock_configuration(
        Bucket=bucket,
        ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": retention}},
    )
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy(bucket)))
    return created


def main() -> int:
    """Create the bucket and say whether it was there."""
    try:
        created = ensure_bucket(client("admin"), names.BUCKET)
    except SetupError as exc:
        say(str(exc))
        return 1
    say(f"bucket {names.BUCKET} {'created' if created else 'present'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
