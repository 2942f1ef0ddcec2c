# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After a rotation each kind of writer goes on in the new file, while the service trades."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from testinfra.host import Host

from tests.support.plays import play, words

CONVERGE = "molecule/logrotate/converge.yml"
UNIT = "fluxmaint-rotation.service"
SERVICE_LOG = "/opt/fluxhero/logs/fluxhero.log"
WRITERS = "/var/log/writers"
PROOFS = {"files": "appends", "append": "appends", "signal": "opened again", "watch": "opened again"}


def converge(host: Host, *arguments: str, **variables: Any) -> tuple[int, str]:
    played = play(CONVERGE, "--limit", host.check_output("hostname"), *arguments, **variables)
    return played.returncode, words(played)


def refusal(host: Host, **variables: Any) -> str:
    """What a play says that has to fail."""
    code, said = converge(host, **variables)
    assert code != 0
    return said


def status(host: Host, query: str = "") -> dict[str, Any]:
    program = (
        f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000/api/status?{query}').read().decode())"
    )
    return dict(json.loads(host.check_output(f'python3 -c "{program}"')))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def size(host: Host, path: str) -> int:
    return int(host.check_output(f"stat --format=%s {path}"))


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"line (\d{8}) of the writer", text)]


def newest_in_journal(host: Host) -> int:
    return numbers(host.check_output("journalctl --unit=writer-journal --lines=1 --output=cat"))[-1]


def test_timer_looks_every_hour(host: Host) -> None:
    timer = host.service("fluxmaint-rotation.timer")
    assert timer.is_enabled and timer.is_running
    shown = host.check_output("systemctl show fluxmaint-rotation.timer --property=TimersCalendar")
    assert "*-*-* *:00:00" in shown and "next_elapse=n/a" not in shown


def test_d51_a_line_written_after_the_rotation_is_in_the_new_file_for_each_writer(host: Host) -> None:
    before, written = status(host), newest_in_journal(host)
    for _round in range(2):
        host.run_expect([0], f"systemctl start {UNIT}")
        time.sleep(1.1)
    host.run_expect([0], "journalctl --rotate")
    entries = json.loads(host.check_output("fluxmaint journal --operation rotation --limit 4 --json"))["entries"]
    ended = [entry for entry in entries if entry["event"] == "end"]
    assert [(entry["result"], entry["problems"]) for entry in ended] == [("ok", []), ("ok", [])]
    # The second time the service's own log may not have grown enough.
    rotated = {item["log"]: item for entry in ended for item in entry["rotated"]}
    assert {name: item["proof"] for name, item in rotated.items()} == PROOFS
    archived = {item["archive"]: size(host, item["archive"]) for item in rotated.values()}

    marker = f"marker-{time.monotonic_ns()}"
    status(host, marker)
    wait_for(lambda: host.run(f"grep --quiet {marker} {SERVICE_LOG}").rc == 0)
    for name in ("append", "signal", "watch"):
        wait_for(lambda path=f"{WRITERS}/{name}.log": size(host, path) > 0)  # type: ignore[misc]
    wait_for(lambda: newest_in_journal(host) > written + 50)

    assert {path: size(host, path) for path in archived} == archived  # nothing more went to the old files
    for path in (SERVICE_LOG, *(f"{WRITERS}/{name}.log" for name in ("append", "signal", "watch"))):
        assert host.file(path).content.count(b"\0") == 0  # no hole
        assert host.file(path).mode == 0o640 if "append" not in path else host.file(path).user == "root"
    after = status(host)
    assert (before["failed_trades"], after["failed_trades"]) == (0, 0)
    assert after["trades"] > before["trades"]


@pytest.mark.parametrize("name", ["signal", "watch"])
def test_a_log_that_is_opened_again_loses_no_line(host: Host, name: str) -> None:
    text = host.check_output(f"ls {WRITERS}/{name}.log-* | sort | xargs zcat --force; cat {WRITERS}/{name}.log")
    found = numbers(text)
    assert len(found) > 100
    assert all(number in (before + 1, 0) for before, number in zip(found, found[1:]))  # 0: the writer was started anew
    assert host.run(f"ls {WRITERS}/{name}.log-*.gz").rc == 0  # the one before the newest is compressed


def test_d51_a_reload_that_does_not_exist_is_refused(host: Host) -> None:
    logs = [{"name": "files", "path": SERVICE_LOG, "writer": "reload", "unit": "fluxhero-backend.service"}]
    assert "fluxhero-backend.service has no reload (CanReload=no)" in refusal(host, service_logs=logs)
    assert "copytruncate" in host.file("/etc/fluxmaint/logrotate.d/files.conf").content_string


def test_d52_a_second_entry_is_refused_until_it_is_given_up(host: Host) -> None:
    other = "/etc/logrotate.d/fluxhero"
    entry = "/opt/fluxhero/logs/*.log {\\n    daily\\n    su fluxhero fluxhero\\n}\\n"
    host.run_expect([0], f"printf '{entry}' > {other}")
    try:
        code, said = converge(host, "--check")
        assert code != 0 and other in said and "two rotators lose lines" in said
        host.run_expect([1], f"systemctl start {UNIT}")  # and what runs by itself leaves that log alone
        code, said = converge(host, logrotate_obsolete_files=[other])
        assert code == 0, said
        assert not host.file(other).exists
    finally:
        host.run(f"rm --force {other}; systemctl reset-failed {UNIT}")
    host.run_expect([0], f"systemctl start {UNIT}")


def test_d56_logs_in_a_group_writable_directory_are_rotated_as_their_owner(host: Host) -> None:
    assert host.file(WRITERS).mode == 0o770
    assert "su fluxhero fluxhero" in host.file("/etc/fluxmaint/logrotate.d/watch.conf").content_string
    assert "su root root" in host.file("/etc/fluxmaint/logrotate.d/append.conf").content_string
    archives = host.check_output(f"stat --format='%U %a' {WRITERS}/watch.log-*").splitlines()
    assert archives and set(archives) == {"fluxhero 640"}


def test_a_broken_configuration_leaves_the_old_one_in_place(host: Host) -> None:
    assert "failed to validate" in refusal(host, logrotate_mode="0640 nobody-at-all")
    assert "create 0640 fluxhero fluxhero" in host.file("/etc/fluxmaint/logrotate.d/watch.conf").content_string


def test_journal_is_limited_by_size_and_age(host: Host) -> None:
    shown = host.check_output("systemd-analyze cat-config systemd/journald.conf")
    assert "SystemMaxUse=1G" in shown and "MaxRetentionSec=30day" in shown
