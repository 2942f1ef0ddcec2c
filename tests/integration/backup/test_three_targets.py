"""The three kinds of targets in one backup: a directory, a mounted file system, and a bucket with object lock."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from fluxmaint.backup import layout
from fluxmaint.core.journal import Journal

from tests.faults.disks import bind, bound, mounted, needs_mount
from tests.support.seaweed import BUCKET, ObjectStore
from tests.support.world import World

if TYPE_CHECKING:
    from pathlib import Path

PREFIX = "three-targets"
NAMES = ("disk", "nas", "offsite")


def backup(world: World, targets: list[dict[str, Any]]) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Run the command; its exit code, the newest state of each generation's targets, and the journal's last entry."""
    config = world.config(targets=targets)
    program = "import sys, tests.conftest; from fluxmaint.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "backup", "--quiet", "--config", str(world.config_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, {"out": done.stdout, "err": done.stderr}, Journal(config.journal_file).read("backup")[-1]


def require_whole(world: World, identity: str, place: Path) -> None:
    """Each target alone gives the generation back."""
    for name in NAMES:
        fetched = world.fetch(place / name / identity, identity, target=name)
        assert fetched.findings["trades"].rows["trades"] == 200, name


@needs_mount
def test_a_directory_a_mount_and_a_locked_bucket(world: World, object_store: ObjectStore, tmp_path: Path) -> None:
    place = world.top / "nas"
    with mounted(place, "24M") as nas, bound(place, tmp_path / "kept") as kept:
        mount = world.target("nas", "nas", require_mount=True)
        targets = [world.target("disk", "disk"), mount, object_store.target(PREFIX)]

        code, said, first = backup(world, targets)
        assert code == 0, said
        assert (first["result"], first["targets"]) == ("ok", dict.fromkeys(NAMES, "stored"))
        require_whole(world, first["id"], tmp_path)
        client = object_store.client()
        commit = f"{PREFIX}/{layout.generation('fluxhero', 'production', first['id'])}{layout.COMMIT}"
        version = client.head_object(Bucket=BUCKET, Key=commit)["VersionId"]
        until = client.get_object_retention(Bucket=BUCKET, Key=commit, VersionId=version)["Retention"]
        assert until["Mode"] == "COMPLIANCE"
        assert until["RetainUntilDate"] > datetime.now(timezone.utc) + timedelta(hours=23)
        with pytest.raises(ClientError, match="AccessDenied"):
            client.delete_object(Bucket=BUCKET, Key=commit, VersionId=version)

        nas.unmount()
        code, said, second = backup(world, targets)
        assert code == 3, said
        assert second["result"] == "degraded"
        assert second["targets"] == {"disk": "stored", "nas": "failed", "offsite": "stored"}
        assert "must be on a mounted file system" in second["errors"]["nas"]
        assert "target nas: failed" in said["out"]
        assert list(place.iterdir()) == [], "nothing is written below the mount point"

        bind(kept, place)
        code, said, third = backup(world, targets)
        assert code == 0, said
        assert third["caught_up"] == {second["id"]: dict.fromkeys(NAMES, "stored")}
        for identity in (second["id"], third["id"]):
            require_whole(world, identity, tmp_path)
        assert list((world.top / "state/staging").iterdir()) == []

        world.config(targets=[*targets[:2], object_store.target(PREFIX, "reader")])
        for name in NAMES:
            proven = world.prove(target=name, write_back=False)
            assert (proven["generation"], proven["problems"]) == (third["id"], [])
