# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What decides about a rotation without a host: the contract of a log, logrotate's words, names and code of others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.core.config import LogFile, parse_log_files
from fluxmaint.core.errors import ConfigError
from fluxmaint.core.run import Completed
from fluxmaint.logs import rotators, stanzas
from fluxmaint.logs.writers import writers

GOOD: dict[str, Any] = {"name": "files", "path": "/opt/a/logs/*.log", "writer": "own", "unit": "a.service"}
SAID = """warning: logrotate in debug mode does nothing except printing debug messages!

reading config file /etc/logrotate.conf
including /etc/logrotate.d
reading config file apt
reading config file rsyslog
error: rsyslog:3 unknown option 'dailyy' -- ignoring line
Handling 3 logs

rotating pattern: "/var/log/my app.log" /var/log/b.log  after 1 days (4 rotations)
empty log files are rotated, old logs are removed
considering log /var/log/b.log
  Now: 2026-11-23 12:36
  Last rotated at 2026-11-21 12:00
  log needs rotating
considering log /var/log/my app.log
  log does not need rotating (log has already been rotated)

rotating pattern: /var/log/syslog
/var/log/mail.log
 weekly (4 rotations)

rotating pattern: /var/log/c.log 1048576 bytes (no old logs will be kept)
empty log files are not rotated, old logs are removed
No logs found. Rotation not needed.
"""


def said(text: str, status: int = 0) -> stanzas.Reading:
    def runner(argv: list[str], **_options: Any) -> Completed:
        return Completed(tuple(argv), status, b"", text.encode(), 0.0)

    return stanzas.read([Path("/etc/logrotate.conf")], runner=runner)


def test_a_log_of_the_contract_is_parsed() -> None:
    assert parse_log_files([GOOD, {"name": "output", "writer": "journal"}]) == [
        LogFile("files", "/opt/a/logs/*.log", "own", "a.service"),
        LogFile("output", "", "journal"),
    ]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"writer": "copytruncate"}, "writer"),
        ({"path": "logs/a.log"}, "absolute"),
        ({"path": ""}, "absolute"),
        ({"path": "/opt/*/a.log"}, "last part"),
        ({"path": "/opt/a b.log"}, "spaces"),
        ({"path": "/opt/a.log {\n}\n/etc/shadow"}, "spaces"),
        ({"path": "/opt/../etc/a.log"}, "absolute"),
        ({"name": "../x"}, "letters"),
        ({"writer": "signal"}, "signal"),
        ({"writer": "signal", "signal": "9; reboot"}, "SIGUSR1"),
        ({"signal": "SIGUSR1"}, "empty for others"),
        ({"writer": "reload", "unit": ""}, "unit is missing"),
        ({"unit": "a; reboot.service"}, "not the name of a service"),
        ({"writer": "journal"}, "path must be empty"),
        ({"user": "root\nfirstaction"}, "account"),
        ({"rotated": True}, "not a known key"),
    ],
)
def test_a_log_that_cannot_be_is_refused(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        parse_log_files([{**GOOD, **changes}])


def test_two_logs_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="more than once"):
        parse_log_files([GOOD, GOOD])


def test_logrotates_words_are_understood() -> None:
    reading = said(SAID)
    assert reading.errors == ("rsyslog:3 unknown option 'dailyy' -- ignoring line",)
    names = ("logrotate.conf", "logrotate.d/apt", "logrotate.d/rsyslog")
    assert reading.files == tuple(Path("/etc", name) for name in names)
    assert [stanza.patterns for stanza in reading.stanzas] == [
        ("/var/log/my app.log", "/var/log/b.log"),
        ("/var/log/syslog", "/var/log/mail.log"),
        ("/var/log/c.log",),
    ]
    assert reading.stanzas[0].logs == ("/var/log/b.log", "/var/log/my app.log")
    assert reading.due == ("/var/log/b.log",)


def test_the_words_of_debian_13_are_understood() -> None:
    reading = said(
        "rotating pattern: /opt/a/*.log after 1 days empty log files are rotated, no old logs will be kept\n"
        "switching euid from 0 to 994 and egid from 0 to 995 (pid 1712)\n"
        "considering log /opt/a/a.log\n  Now: 2026-11-23 13:19\n  log needs rotating\n"
    )
    assert reading.stanzas == (stanzas.Stanza(Path("/etc/logrotate.conf"), ("/opt/a/*.log",), ("/opt/a/a.log",)),)
    assert reading.due == ("/opt/a/a.log",)


def test_a_failure_without_a_word_is_an_error() -> None:
    assert said("nothing of use\n", 1).errors == ("logrotate ended with status 1",)


def test_reloads_are_found_in_scripts() -> None:
    text = """postrotate
        # systemctl reload commented
        systemctl reload fluxhero-backend > /dev/null 2>&1 || true
        /bin/systemctl --quiet try-reload-or-restart other
        systemctl --no-block reload nginx.service
        systemctl kill --signal=HUP third
    endscript"""
    assert stanzas.reloaded_units(text) == ["fluxhero-backend.service", "nginx.service"]


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("h = logging.handlers.TimedRotatingFileHandler('a.log')", ["TimedRotatingFileHandler"]),
        ("logger.add('a.log', rotation='500 MB')", ["loguru's rotation"]),
        ("logger.add('a.log', rotation=None)", []),
        ("CONFIG = {'class': 'logging.handlers.RotatingFileHandler'}", ["RotatingFileHandler"]),
        ("# RotatingFileHandler('a.log')\n'''No RotatingFileHandler'''", []),
        ("class Mine(handlers.RotatingFileHandler): pass", ["RotatingFileHandler"]),
        ("print 'a newer or older Python'\nh = RotatingFileHandler(", ["RotatingFileHandler"]),
    ],
)
def test_code_that_rotates_is_found(tmp_path: Path, code: str, found: list[str]) -> None:
    (tmp_path / "service.py").write_text(code)
    assert [source.what for source in rotators.sources(tmp_path)] == found


def test_settings_that_rotate_are_found_and_tests_are_not_searched(tmp_path: Path) -> None:
    for name in ("logging.yaml", "tests/logging.yaml", "venv/logging.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("handlers:\n  file:\n    class: logging.handlers.RotatingFileHandler\n")
    assert [str(source) for source in rotators.sources(tmp_path, ["venv"])] == [
        f"{tmp_path}/logging.yaml:3 (RotatingFileHandler)"
    ]


def test_own_archives_are_no_foreign_ones(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    for name in ("a.log", "a.log-20261123-1795437439.gz", "a.log-20261123-1795437440", "a.log.save", "ab.log.1"):
        (tmp_path / name).touch()
    assert [path.name for path in rotators.archives(log)] == [
        "a.log-20261123-1795437439.gz",
        "a.log-20261123-1795437440",
    ]
    assert rotators.siblings(log) == []


def test_writers_are_told_with_their_flags_and_readers_are_not(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    program = "import sys, time; f = open(sys.argv[1], sys.argv[2]); print(flush=True); time.sleep(60)"
    processes = []
    try:
        for mode in ("a", "w", "r"):
            process = subprocess.Popen([sys.executable, "-c", program, log, mode], stdout=subprocess.PIPE)
            processes.append(process)
            assert process.stdout is not None and process.stdout.readline()
        found = writers([log]).of(log)
        assert [(writer.pid, writer.append) for writer in sorted(found, key=lambda writer: writer.pid)] == sorted(
            [(processes[0].pid, True), (processes[1].pid, False)]
        )
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_a_process_that_may_not_be_looked_at_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a.log").touch()
    hidden = tmp_path / "proc" / "1" / "fd"
    hidden.mkdir(parents=True)
    hidden.chmod(0)
    expected = 0 if os.geteuid() == 0 else 1  # root sees everything
    assert writers([tmp_path / "a.log"], tmp_path / "proc").unseen == expected
    hidden.chmod(0o700)
