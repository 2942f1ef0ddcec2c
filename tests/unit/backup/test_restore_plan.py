# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decisions of a restore that need no files, and what surrounds it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.backup import holders, restore_plan, restore_stage
from fluxmaint.backup.restore_plan import Contents, DatabaseFacts, File, Item, Old, Plan, Request
from fluxmaint.core import config as configuration
from fluxmaint.core.errors import InputError, PreconditionError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"include": []}, "nothing"),
        ({"include": ["database"]}, "not database"),
        ({"include": ["logs"], "databases": ["trades"]}, "does not hold databases"),
        ({"generation": "20261123T020000Z-7f3a2c", "before": "2026-11-23T02:00:00Z"}, "not both"),
        ({"restore_points": 0}, "at least 1"),
        ({"surprise": 1}, "has no surprise"),
    ],
)
def test_senseless_requests(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Request.from_dict(changes)


def test_a_plan_survives_json() -> None:
    file = File("databases", "trades", "/opt/x.db", "0" * 64, 1, "u", "g", 0o600, "2026-11-23T02:00:00Z", "/s/0")
    facts = DatabaseFacts("trades", {"t": 1}, "d", {"t": "e"}, [["i", "SELECT 1", 1]])
    contents = Contents("id", "full", "h", "2026-11-23T02:00:00Z", "r", "/opt/r", [file], {"trades": facts})
    old = Old("/opt/x.db", "/k/0-x.db", 7, 1, 2)
    item = Item("databases", "trades", "/a", "/b", "/s", "/k", "0", 1, 0, 0, "u", "g", 0o600, "replace", old=[old])
    plan = Plan("id", "2026-11-23T02:00:00Z", Request(include=["logs"]), contents=contents, items=[item])
    assert Plan.from_dict(json.loads(json.dumps(plan.as_dict()))).as_dict() == plan.as_dict()
    with pytest.raises(InputError, match="format 2"):
        Plan.from_dict({**plan.as_dict(), "format": 2})


@pytest.mark.parametrize(
    ("part", "path", "allowed"),
    [
        ("config", "/opt/x/.env", True),
        ("config", "/opt/x/.env.local", False),
        ("config", "/etc/passwd", False),
        ("logs", "/opt/x/logs/old/a.log", True),
        ("logs", "/opt/x/logs/../data/trades.db", False),
        ("logs", "opt/x/logs/a.log", False),
        ("cache", "/opt/x/data/cache/a.parquet", True),
        ("cache", "/opt/x/data/trades.db", False),
        ("system", "/opt/x/releases/r1/app.py", True),
        ("system", "/opt/x/releases/r2/app.py", False),
        ("system", "/etc/systemd/system/x.service", True),
        ("system", "/etc/cron.d/evil", False),
        ("system", "/opt/x/data/trades.db", False),
    ],
)
def test_d19_only_places_of_the_contract_are_written(part: str, path: str, allowed: bool) -> None:
    config = configuration.parse(
        {
            "format": 1,
            "service": "x",
            "host": "h",
            "root": "/opt/x",
            "user": "u",
            "group": "g",
            "units": [],
            "databases": [{"name": "trades", "path": "/opt/x/data/trades.db"}],
            "config_files": ["/opt/x/.env"],
            "logs": {"directory": "/opt/x/logs"},
            "cache": {"directory": "/opt/x/data/cache", "patterns": ["*"]},
            "system": {"release_link": "/opt/x/current", "paths": ["/etc/systemd/system/x.service"]},
            "health": {},
        }
    )
    wanted = File(part, "", path, "0" * 64, 1, "u", "g", 0o600)
    always = {
        "config": File("config", "", "/opt/x/.env", "0" * 64, 1, "u", "g", 0o600),
        "system": File("system", "", "/opt/x/releases/r1/REVISION", "0" * 64, 1, "u", "g", 0o600),
    }
    files = [wanted, *([always[part]] if part in always else [])]
    contents = Contents("id", "full", "h", "2026-11-23T02:00:00Z", "", "/opt/x/releases/r1", files, {})
    chosen, left = restore_plan.select(config, contents, Request(include=[part]))
    assert (wanted in chosen, bool(left)) == (allowed, not allowed)
    for release in ("/opt/x", "/opt/x/data", "/opt/x/logs", "/etc", "", "/opt/x/../y"):
        assert not restore_plan.release_allowed(config, release), release


def test_env_diff_tells_keys_only() -> None:
    old = b"# c\nA=1\nexport B='secret'\nC=3\n\nnot a setting\n"
    new = b"A=2\nB='secret'\nD=4\n"
    assert restore_plan.env_diff(old, new) == {"added": ["D"], "removed": ["C"], "changed": ["A"]}


def test_prunable_keeps_the_newest() -> None:
    assert restore_plan.prunable(["3", "1", "2"], 2) == ["3"]
    assert restore_plan.prunable(["1"], 3) == []
    assert restore_plan.prunable(["1", "2"], 0) == []


def test_holder_is_found_by_inode(tmp_path: Path) -> None:
    file, other = tmp_path / "a.db", tmp_path / "b"
    file.touch()
    os.link(file, other)
    script = "import sys; f = open(sys.argv[1]); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(other), "--password=hunter2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()
        found, _unused = holders.open_by([file, tmp_path / "missing"])
        assert [(holder.pid, holder.path) for holder in found] == [(process.pid, str(file))]
        assert "hunter2" not in found[0].command
        with pytest.raises(PreconditionError, match=f"process {process.pid} "):
            holders.require_closed([file])
        process.stdin.close()
    holders.require_closed([file])


def test_hidden_processes_are_no_proof(tmp_path: Path) -> None:
    """Where processes of others cannot be looked into, a file that they may open is not proven closed."""
    proc = tmp_path / "proc"
    (proc / "1").mkdir(parents=True)
    file = tmp_path / "a.db"
    file.touch(mode=0o600)

    class Hidden(type(proc)):  # type: ignore[misc]
        def iterdir(self) -> Any:
            if self.name == "fd":
                raise PermissionError
            return (Hidden(path) for path in Path(self).iterdir())

    assert holders.open_by([file], Hidden(proc)) == ([], 1)


def test_bind_mount_is_another_mount(tmp_path: Path) -> None:
    assert restore_stage.same_mount(tmp_path / "not" / "there", tmp_path)
    assert not restore_stage.same_mount(tmp_path, Path("/proc"))
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    source, bound = tmp_path / "source", tmp_path / "bound"
    source.mkdir()
    bound.mkdir()
    mounted = subprocess.run(["mount", "--bind", source, bound], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount here: {mounted.stderr.decode().strip()}")
    try:
        assert os.stat(source).st_dev == os.stat(bound).st_dev
        assert not restore_stage.same_mount(source, bound)
        (source / "x").touch()
        with pytest.raises(OSError, match="cross-device"):
            os.rename(source / "x", source.parent / "bound" / "y")
    finally:
        subprocess.run(["umount", bound], check=True)
