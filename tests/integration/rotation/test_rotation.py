# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rotation with the real logrotate, the role's own entries, and processes that write."""

from __future__ import annotations

import gzip
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.core.errors import ConfigError, LeaseError
from fluxmaint.core.journal import Journal
from fluxmaint.core.lease import Lease
from fluxmaint.logs import rotation, rotators, stanzas
from fluxmaint.logs.writers import Writers
from rotation_scene import Scene, Writing, needs_logrotate, wait_for

pytestmark = needs_logrotate
BROKEN = {
    "an option that does not exist": ("    daily", "    dailyy"),
    "a user that does not exist": ("    su root root", "    su nobody-at-all root"),
    "a size of no unit": ("maxsize 104857600", "maxsize 1Q"),
    "a number that is none": ("rotate 200", "rotate many"),
    "a script without an end": ("    copytruncate", "    postrotate"),
}


def results(result: dict[str, Any]) -> list[tuple[str, str]]:
    return [(item["log"], item["proof"]) for item in result["rotated"]]


def told_directly(scene: Scene, process: Writing) -> None:
    """Let logrotate signal a process, in place of the unit that this machine does not have."""
    conf = scene.top / "logrotate.d" / "service.conf"
    script = conf.read_text()
    assert "systemctl kill --kill-whom=main --signal=SIGUSR1 a.service" in script
    begin, end = script.index("        if systemctl"), script.index("    endscript")
    conf.write_text(script[:begin] + f"        kill -USR1 {process.process.pid}\n" + script[end:])


@pytest.mark.parametrize(
    ("writer", "kind", "proof"), [("own", "own", "appends"), ("append", "own", "appends")], ids=["own", "append"]
)
def test_a_writer_with_one_descriptor_goes_on_in_the_emptied_file(
    scene: Scene, writer: str, kind: str, proof: str
) -> None:
    log = scene.log(writer)
    process = scene.write(kind, log)
    identity = log.stat().st_ino
    result = scene.rotate()
    assert (results(result), result["problems"]) == ([("service", proof)], [])
    assert (log.stat().st_ino, log.stat().st_size) == (identity, 0)
    process.tick()
    wait_for(lambda: log.stat().st_size > 0)
    assert log.read_bytes() == b"line 00000001 of the writer\n"  # at the beginning: no hole before it
    assert scene.lines(log) == [0, 1]


def test_a_writer_that_watches_its_file_goes_on_in_the_new_one(scene: Scene) -> None:
    log = scene.log("watch")
    process = scene.write("watch", log)
    identity = log.stat().st_ino
    result = scene.rotate()
    assert results(result) == [("service", "waits: it has written nothing since")]
    assert result["problems"] == [] and scene.codes() == []
    assert log.stat().st_ino != identity and log.stat().st_mode & 0o777 == 0o640
    process.tick()
    wait_for(lambda: log.stat().st_size > 0)
    assert log.read_bytes() == b"line 00000001 of the writer\n"
    assert scene.lines(log) == [0, 1]


def test_a_writer_that_reopens_on_a_signal_loses_no_line_under_load(scene: Scene) -> None:
    log = scene.log("signal", signal="SIGUSR1")
    process = scene.write("signal", log, 2000)
    told_directly(scene, process)
    for _round in range(3):
        result = scene.rotate()
        assert (results(result), result["problems"]) == ([("service", "opened again")], [])
        time.sleep(1.01)  # archives are named by the second
    written = process.end()
    assert scene.lines(log) == list(range(written))


def test_d51_a_writer_that_does_not_open_the_new_file_is_found(scene: Scene) -> None:
    log = scene.log("signal", signal="SIGUSR1")
    told_directly(scene, scene.write("closing", log))
    result = scene.rotate()
    assert results(result) == [("service", "none")]
    assert "not opened the new file" in result["problems"][0]


def test_d51_a_writer_that_nobody_told_is_found_at_once_and_loses_nothing(scene: Scene) -> None:
    log = scene.log("watch")  # the contract says so, the service does not
    process = scene.write("own", log, 500)
    result = scene.rotate()
    assert results(result) == [("service", "none")]
    assert "still writes to the old file" in result["problems"][0]
    assert scene.codes() == ["old_name"]
    log.write_bytes(b"line 99999999 of the writer\n")  # as another process might: the log is due again
    time.sleep(1.01)
    result = scene.rotate()
    assert result["rotated"] == [] and "under its old name" in result["problems"][0]
    written = process.end()
    assert scene.lines(log) == [*range(written), 99999999]  # nothing was compressed away under it


def test_d51_the_guides_entry_is_refused_because_the_unit_has_no_reload(scene: Scene) -> None:
    guide = scene.top / "guide.conf"
    entry = """{log} {{
    daily
    rotate 30
    sharedscripts
    postrotate
        systemctl reload fluxhero-backend > /dev/null 2>&1 || true
    endscript
}}
"""
    guide.write_text(entry.format(log=scene.directory / "*.log"))
    (scene.directory / "fluxhero.log").touch()
    with pytest.raises(ConfigError, match=r"fluxhero-backend\.service has no reload"):
        rotation.validate([guide], system_config=scene.places.system_config, unit=scene.unit)
    scene.can_reload = "yes"
    assert rotation.validate([guide], system_config=scene.places.system_config, unit=scene.unit)


def test_d51_a_reload_that_does_not_exist_refuses_the_log(scene: Scene) -> None:
    scene.log("reload")
    assert scene.codes() == ["no_reload"]
    scene.can_reload = "yes"
    assert scene.codes() == []


def test_d52_another_entry_for_the_same_file_is_refused_and_its_file_named(scene: Scene) -> None:
    log = scene.log("own")
    scene.write("own", log)
    other = scene.top / "system.d" / "fluxhero"
    other.write_text(f"{scene.directory}/*.log {{\n    daily\n}}\n")
    [finding] = scene.look().refusals
    assert finding.code == "second_stanza" and str(other) in finding.message
    result = scene.rotate()
    assert result["rotated"] == [] and str(other) in result["problems"][0]
    with pytest.raises(ConfigError, match="duplicate log entry"):
        rotation.validate([scene.top / "logrotate.d" / "service.conf"], system_config=scene.places.system_config,
                          unit=scene.unit)  # fmt: skip
    other.unlink()
    assert results(scene.rotate()) == [("service", "appends")]


def test_d52_an_entry_for_files_that_do_not_exist_yet_is_seen(scene: Scene) -> None:
    scene.log("own")
    (scene.top / "system.d" / "other").write_text(f"{scene.directory}/service.log {{\n    missingok\n}}\n")
    assert scene.codes() == ["second_stanza"]


def test_d52_an_entry_that_leads_to_the_same_file_by_another_way_is_seen(scene: Scene) -> None:
    log = scene.log("own")
    log.touch()
    (scene.top / "way").symlink_to(scene.directory)
    (scene.top / "system.d" / "other").write_text(f"{scene.top}/way/*.log {{\n    missingok\n}}\n")
    assert scene.codes() == ["second_stanza"]


def test_processes_that_cannot_be_seen_refuse_the_log(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.log("own").touch()
    monkeypatch.setattr(rotation, "writers", lambda _files: Writers((), 2))
    assert scene.codes() == ["unseen"]


def test_d52_a_handler_that_rotates_is_found_by_what_it_leaves(scene: Scene) -> None:
    log, other = scene.log("own"), scene.log("own", "other")
    scene.write("rotating", log, 2000)
    scene.write("own", other)
    wait_for((log.parent / "service.log.1").exists)
    result = scene.rotate()
    assert [item["log"] for item in result["rotated"]] == ["other"]  # the others are rotated
    assert any("service.log.1 was left by another rotator (RotatingFileHandler" in text for text in result["problems"])
    assert rotators.archives(log) == []


@pytest.mark.parametrize(
    "name", ["service.log.2026-11-22", "service.log.2026-11-22_10-00", "service.2026-11-22_10-00-00_123456.log"]
)
def test_d52_dated_files_of_other_rotators_are_known(scene: Scene, name: str) -> None:
    log = scene.log("own")
    log.touch()
    (scene.directory / name).touch()
    assert scene.codes() == ["rotated_by_service"]
    os.utime(scene.directory / name, (time.time() - 40 * 86400,) * 2)  # a leftover of long ago
    assert scene.codes() == []


def test_d52_what_the_systems_logrotate_has_made_once_is_no_other_rotator(scene: Scene) -> None:
    log = scene.log("own")
    log.touch()
    (scene.directory / "service.log.1").touch()
    stamp = time.strftime("%Y-%-m-%-d-%-H:%-M:%-S")
    scene.places.system_state.write_text(f'logrotate state -- version 2\n"{log}" {stamp}\n')
    assert scene.codes() == []


def test_d52_the_services_code_is_searched(scene: Scene) -> None:
    scene.log("own").touch()
    code = scene.top / "code" / "service.py"
    code.write_text("from logging.handlers import RotatingFileHandler\n")  # imported, not used
    assert scene.codes() == []
    code.write_text("import logging.handlers\nlogging.handlers.RotatingFileHandler('a.log')\n")
    [finding] = scene.look().refusals
    assert finding.code == "rotated_by_service" and f"{code}:2" in finding.message
    scene.log("self", "audit")  # the contract says which file it is
    assert scene.codes() == []


def test_d56_a_group_writable_directory_needs_su(scene: Scene) -> None:
    log = scene.log("own")
    scene.write("own", log)
    os.chown(scene.directory, -1, 65534)
    scene.directory.chmod(0o770)
    conf = scene.top / "logrotate.d" / "service.conf"
    without = scene.top / "without.conf"
    without.write_text("\n".join(line for line in conf.read_text().splitlines() if " su " not in f" {line.strip()} "))
    if os.geteuid() == 0:
        with pytest.raises(ConfigError, match="insecure permissions"):
            rotation.validate([without], system_config=scene.places.system_config, unit=scene.unit)
    rotation.validate([conf], system_config=scene.places.system_config, unit=scene.unit)
    assert results(scene.rotate()) == [("service", "appends")]


def test_a_writer_that_does_not_append_is_refused(scene: Scene) -> None:
    log = scene.log("own")
    scene.write("truncating", log)
    result = scene.rotate()
    assert result["rotated"] == [] and "O_APPEND" in result["problems"][0]
    assert log.stat().st_size > 0


@pytest.mark.parametrize("mistake", BROKEN)
def test_a_broken_entry_is_refused_by_logrotate_itself(scene: Scene, mistake: str) -> None:
    scene.log("own")
    conf = scene.top / "logrotate.d" / "service.conf"
    right, wrong = BROKEN[mistake]
    text = conf.read_text()
    if mistake == "a user that does not exist":
        right = next(line for line in text.splitlines() if line.strip().startswith("su "))
    assert right in text
    conf.write_text(text.replace(right, wrong, 1))
    for system_config in (scene.places.system_config, scene.top / "none"):
        with pytest.raises(ConfigError):
            rotation.validate([conf], system_config=system_config, unit=scene.unit)


def test_an_empty_entry_is_refused(scene: Scene) -> None:
    empty = scene.top / "empty.conf"
    empty.write_text("# nothing\n")
    with pytest.raises(ConfigError, match="holds no entry"):
        rotation.validate([empty], system_config=scene.places.system_config, unit=scene.unit)


def test_only_what_is_due_is_rotated_and_a_second_run_changes_nothing(scene: Scene) -> None:
    scene.variables["logrotate_max_bytes"] = 4000
    log = scene.log("own")
    log.write_bytes(b"line 00000000 of the writer\n")
    assert scene.rotate(force=False)["due"] == []
    log.write_bytes(b"".join(b"line %08d of the writer\n" % number for number in range(200)))
    assert scene.rotate(force=False, dry_run=True)["due"] == [str(log)]
    assert log.stat().st_size > 4000
    result = scene.rotate(force=False)
    assert results(result) == [("service", "nobody writes")] and log.stat().st_size == 0
    entries = Journal(scene.top / "state" / "journal.jsonl").read("rotation")
    assert [entry["event"] for entry in entries] == ["start", "end"]
    again = scene.rotate(force=False)
    assert (again["due"], again["rotated"], again["problems"]) == ([], [], [])
    assert len(Journal(scene.top / "state" / "journal.jsonl").read("rotation")) == 2  # nothing done, nothing noted


def test_a_log_is_rotated_many_times_a_day_and_its_archives_are_compressed_one_later(scene: Scene) -> None:
    log = scene.log("own")
    for number in range(3):
        log.write_bytes(b"line %08d of the writer\n" % number)
        assert results(scene.rotate()) == [("service", "nobody writes")]
        time.sleep(1.01)
    assert [path.suffix for path in rotators.archives(log)].count(".gz") == 2
    assert scene.lines(log) == [0, 1, 2]


def test_archives_older_than_the_days_that_are_kept_go(scene: Scene) -> None:
    log = scene.log("own")
    old = scene.directory / "service.log-20260101-1767225600.gz"
    old.write_bytes(gzip.compress(b"line 00000000 of the writer\n"))
    os.utime(old, (time.time() - 31 * 86400,) * 2)
    log.write_bytes(b"line 00000001 of the writer\n")
    scene.rotate()
    assert not old.exists() and scene.lines(log) == [1]


def test_two_rotations_at_once_are_refused(scene: Scene) -> None:
    scene.log("own")
    with Lease(scene.top / "run" / "rotation.lock", purpose="rotation"), pytest.raises(LeaseError):
        scene.rotate()


def test_a_log_that_others_replace_is_told(scene: Scene) -> None:
    log = scene.log("own")
    log.write_bytes(b"line 00000000 of the writer\n")
    scene.rotate()
    log.rename(scene.directory / "elsewhere")
    log.write_bytes(b"line 00000001 of the writer\n")
    assert [finding.code for finding in scene.look().findings] == ["replaced"]


def test_copying_loses_few_lines_and_reopening_none(scene: Scene) -> None:
    """What the README says about copytruncate: whole lines only, none twice, and not many."""
    log = scene.log("own")
    process = scene.write("own", log, 2000)
    for _round in range(3):
        time.sleep(1.01)
        assert results(scene.rotate()) == [("service", "appends")]
    written = process.end()
    found = scene.lines(log)
    assert len(found) == len(set(found)) and sorted(found) == found
    assert written - len(found) < written / 10


def test_a_logrotate_that_is_killed_while_it_copies_loses_and_doubles_nothing(scene: Scene) -> None:
    log = scene.log("own")
    log.write_bytes(b"".join(b"line %08d of the writer\n" % number for number in range(200_000)))
    conf, state = scene.top / "logrotate.d" / "service.conf", scene.places.state_file
    state.write_text(f'logrotate state -- version 2\n"{log}" 2026-1-1-0:0:0\n')
    killed = subprocess.Popen(["logrotate", "--force", "--state", state, conf])
    while not rotators.archives(log):
        assert killed.poll() is None
    killed.kill()
    killed.wait()
    assert log.stat().st_size > 0
    time.sleep(1.01)
    assert results(scene.rotate()) == [("service", "nobody writes")]
    assert scene.lines(log) == list(range(200_000))


def test_an_archive_that_says_the_same_as_the_log_stays(scene: Scene) -> None:
    log = scene.log("own")
    for _round in range(2):
        log.write_bytes(b"line 00000000 of the writer\n")
        scene.rotate()
        time.sleep(1.01)
    assert scene.lines(log) == [0, 0]


def test_a_logrotate_that_is_killed_while_it_compresses_leaves_nothing_behind(scene: Scene) -> None:
    log = scene.log("own")
    archive = scene.directory / "service.log-20261123-1795437439"
    archive.write_bytes(b"line 00000000 of the writer\n")
    (scene.directory / f"{archive.name}.gz").write_bytes(gzip.compress(archive.read_bytes())[:20])
    log.write_bytes(b"line 00000001 of the writer\n")
    result = scene.rotate()
    assert (results(result), result["problems"]) == ([("service", "nobody writes")], [])
    assert scene.lines(log) == [0, 1]
    assert len(list(scene.directory.iterdir())) == 3  # the log and two archives


@pytest.fixture
def small_disk(scene: Scene) -> Any:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", scene.directory], check=False)
    if done.returncode != 0:
        pytest.skip("this machine mounts no tmpfs")
    yield scene.directory
    subprocess.run(["umount", "--lazy", scene.directory], check=True)


@pytest.mark.parametrize("writer", ["own", "watch"])
def test_a_full_disk_costs_no_line_and_the_next_run_completes(scene: Scene, small_disk: Path, writer: str) -> None:
    log = scene.log(writer)
    numbers = iter(range(10**8))

    def fill(count: int) -> None:
        with open(log, "ab") as stream:
            stream.write(b"".join(b"line %08d of the writer\n" % next(numbers) for _line in range(count)))

    fill(10000)  # 280 kB
    assert results(scene.rotate()) == [("service", "nobody writes")]
    fill(20000)
    ballast = small_disk / "ballast"
    subprocess.run(
        ["dd", "if=/dev/zero", f"of={ballast}", "bs=4k"], capture_output=True, check=False
    )  # until it is full
    assert os.statvfs(small_disk).f_bavail == 0
    time.sleep(1.01)
    result = scene.rotate()
    assert any("No space left" in problem or "failed to compress" in problem for problem in result["problems"])
    assert scene.lines(log) == list(range(30000))
    ballast.unlink()
    time.sleep(1.01)
    fill(10)
    assert scene.rotate()["problems"] == []
    assert scene.lines(log) == list(range(30010))
    assert stanzas.rotated_at(scene.places.state_file)
