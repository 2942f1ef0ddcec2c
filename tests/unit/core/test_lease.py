from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from fluxmaint.core.errors import LeaseError
from fluxmaint.core.lease import Lease, held_by

if TYPE_CHECKING:
    from pathlib import Path


def hold_in_another_process(path: Path) -> subprocess.Popen[bytes]:
    script = (
        "import fcntl, json, os, sys, time\n"
        "f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX)\n"
        "json.dump({'pid': os.getpid(), 'purpose': 'restore', 'since': '2026-11-23T02:00:00Z'}, f); f.flush()\n"
        "print('held', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_a_second_owner_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    with Lease(path, purpose="backup"):
        owner = held_by(path)
        assert owner is not None
        assert owner["pid"] == os.getpid()
        assert owner["purpose"] == "backup"
        with pytest.raises(LeaseError, match=f"process {os.getpid()} for backup"), Lease(path, purpose="vacuum"):
            pass
        assert held_by(path) is not None
    assert held_by(path) is None


def test_the_lease_of_another_process_ends_with_its_death(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    owner = hold_in_another_process(path)
    try:
        with pytest.raises(LeaseError, match=f"process {owner.pid} for restore"), Lease(path, purpose="backup"):
            pass
    finally:
        owner.kill()
        owner.wait()
    assert held_by(path) is None
    with Lease(path, purpose="backup"):
        assert held_by(path) is not None


def test_nobody_holds_a_lease_that_was_never_taken(tmp_path: Path) -> None:
    assert held_by(tmp_path / "none") is None
    assert not (tmp_path / "none").exists()


def test_a_symbolic_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("data")
    (tmp_path / "lease").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"), Lease(tmp_path / "lease", purpose="backup"):
        pass
    assert (tmp_path / "victim").read_text() == "data"
