"""Servers that integration tests share."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.lab.bucket import policy
from tests.support.seaweed import BUCKET, ObjectStore

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A real S3 server with one versioned, object-locked bucket; tests keep apart by their prefix."""
    server = ObjectStore(tmp_path_factory.mktemp("seaweed"))
    try:
        server.start()
        client = server.client()
        client.create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True)
        rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
        client.put_object_lock_configuration(
            Bucket=BUCKET, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
        )
        client.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(policy(BUCKET)))
        yield server
    finally:
        server.stop()
