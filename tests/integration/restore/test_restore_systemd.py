# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real systemd, in a container of the lab's image: stopping, holding, and restoring detached from the caller."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

IMAGE = "fluxhero-lab:trixie"
CHECKOUT = Path(__file__).resolve().parents[3]


def docker(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def container() -> Iterator[str]:
    """A host with systemd that sees this checkout read-only."""
    if not shutil.which("docker") or docker("image", "inspect", IMAGE).returncode != 0:
        pytest.skip(f"needs Docker and the lab's image {IMAGE}, which `make setup` builds")
    name = f"fluxhero-lab-restore-{secrets.token_hex(4)}"
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    groups = ["--cgroupns=private"] if unified else ["--cgroupns=host", "--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw"]
    command = [
        *("run", "--detach", "--tty", "--name", name, "--label", "org.fluxhero.maintenance.lab=1"),
        *("--env", "container=docker", "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", *groups),
        *("--network", "none", "--tmpfs", "/run", "--tmpfs", "/run/lock"),
        *("--volume", f"{CHECKOUT}:/checkout:ro", IMAGE, "/sbin/init"),
    ]
    try:
        started = docker(*command)
        assert started.returncode == 0, started.stderr
        deadline = time.monotonic() + 60
        while docker("exec", name, "systemctl", "is-system-running").stdout.strip() not in ("running", "degraded"):
            assert time.monotonic() < deadline, docker("logs", name).stdout[-2000:]
            time.sleep(0.5)
        yield name
    finally:
        docker("rm", "--force", "--volumes", name)


def probe(container: str, script: str) -> Any:
    here = f"/checkout/{Path(__file__).parent.relative_to(CHECKOUT)}"
    done = docker("exec", container, "python3", "-B", f"{here}/with_engine.py", f"{here}/{script}")
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_held_units_cannot_be_started_by_anyone(container: str) -> None:
    """Neither Restart=always nor a timer revives a unit during a restore, although its file is in /etc."""
    facts = probe(container, "systemd_probe.py")
    both = ["probe-a.service", "probe-b.service"]
    assert facts["load_states"] == {**dict.fromkeys(both, "loaded"), "probe-unknown.service": "not-found"}
    assert facts["running"] == both and facts["started_again"] == both
    assert facts["after_stop"] == [] and facts["held"] == [] and facts["end"] == []
    assert "Assertion failed" in facts["start_while_held"]
    assert facts["left_over"] == [], "drop-ins stay behind"
    assert "probe-unknown.service is inactive" in facts["health"]


def test_restore_goes_on_when_its_caller_dies(container: str) -> None:
    facts = probe(container, "detached_probe.py")
    assert facts["state"] == "done"
    assert facts["origin"] == "generation" and facts["writes_on"] is True
    assert "another restore is running" in facts["second"]
    assert facts["answer"] == {"result": "restored", "digests_equal": True, "generation_id": "20261123T020000Z-7f3a2c"}
    assert facts["error"]["error"] == "InputError" and "has not been fetched" in facts["error"]["message"]
    assert facts["run_dir"] == ["backup.lock", "lease", "restore.lease"]
