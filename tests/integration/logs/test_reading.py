# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading logs through everything that happens to files: growth, rotation, compression, loss, rubbish, kills."""

from __future__ import annotations

import bz2
import errno
import gzip
import json
import lzma
import os
import random
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from fluxmaint.core.errors import IntegrityError, LeaseError
from fluxmaint.core.lease import Lease
from fluxmaint.logs import reading
from fluxmaint.logs.database import LogDatabase
from fluxmaint.logs.report import files as report
from fluxmaint.logs.report import findings

from tests.support import log_lines
from tests.support.log_document import mistakes
from tests.support.log_host import LogHost, wanted


@pytest.fixture
def host(tmp_path: Path) -> LogHost:
    return LogHost(tmp_path)


def plain(count: int, seed: int = 1) -> list[bytes]:
    """Lines of which each is an event, with the time in each."""
    pick = random.Random(seed)
    return [
        b"2026-01-05 %02d:%02d:%02d,%03d - backend.trading - %s - Trade %d of AAPL"
        % (14 + n // 3600, n // 60 % 60, n % 60, n % 1000, pick.choice((b"INFO", b"ERROR")), pick.randint(1, 10**6))
        for n in range(count)
    ]


def test_a_second_run_changes_no_total(host: LogHost) -> None:
    lines = log_lines.lines(1, 800)
    host.write(lines)
    assert host.read()["changed"] is True
    first = host.totals()
    assert first == wanted(lines)
    before = host.database.read_bytes()
    again = host.read()
    assert (again["changed"], again["bytes"], again["events"]) == (False, 0, 0)
    assert host.totals() == first
    assert host.database.read_bytes() == before


@pytest.mark.parametrize("seed", range(12))
def test_a_log_that_grows_by_any_bytes_gives_the_same_totals(
    host: LogHost, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_CHUNK", 997)
    monkeypatch.setattr(reading, "_STEP_BYTES", 5000)
    lines = log_lines.lines(seed, 300)
    content = b"\n".join(lines) + b"\n"
    pick = random.Random(seed)
    cuts = sorted(pick.randrange(len(content)) for _unused in range(6))
    for begin, end in zip([0, *cuts], [*cuts, len(content)]):
        with host.log.open("ab") as stream:
            stream.write(content[begin:end])
        host.touch(host.log)
        host.read(later_s=0)  # just written: the last event may not be whole
    host.read()
    assert host.totals() == wanted(lines)
    assert sum(count for (count,) in host.rows("SELECT count FROM facts WHERE name = 'bytes'")) == len(content)


def test_a_directory_that_cannot_be_listed_is_no_directory_without_logs(host: LogHost) -> None:
    host.directory.rename(host.root / "elsewhere")
    result = host.read()
    assert result["result"] == "degraded"
    assert result["sources"][0]["name"] == str(host.directory)
    assert result["sources"][0]["errors"] == ["cannot be listed: No such file or directory"]


def test_a_pattern_that_no_file_fits_is_no_data_and_not_absent(tmp_path: Path) -> None:
    host = LogHost(tmp_path, patterns=["*.log", "workers/*.log", "**/risk.log", "risk.log", "audit.log"])
    for name in ("fluxhero.log", "deep/er/risk.log"):
        (host.directory / name).parent.mkdir(parents=True, exist_ok=True)
        host.write(plain(3), host.directory / name)
    (host.directory / "audit.log").symlink_to("fluxhero.log")
    host.read()
    host.document["logs"]["journal_units"] = ["fluxhero-new.service"]  # not read since it is named
    document = host.summary()
    lacking = ["workers/*.log", "risk.log", "audit.log", "fluxhero-new.service"]
    assert [(source["name"], source["events"]) for source in document["sources"]] == [
        ("deep/er/risk.log", 3),
        ("fluxhero.log", 3),
        *((name, 0) for name in lacking),
    ]
    assert mistakes(document) == []
    assert not findings.complete(document)
    verdict = findings.judge(document)
    assert verdict.kind == findings.BLIND
    html, text = report.FORMATS["html"](document).decode(), report.FORMATS["txt"](document).decode()
    for name in lacking:
        assert f"{name} has no event at all: that is no data, not good health." in [
            finding.text for finding in verdict.findings
        ]
        assert re.search(rf"^{re.escape(name)} +NO DATA ", text, re.MULTILINE)
        assert re.search(rf">{re.escape(name)}<.{{0,300}}no data", html, re.DOTALL)
    assert json.loads(report.FORMATS["json"](document))["sources"] == document["sources"]


def test_a_log_that_was_read_once_is_no_missing_one(tmp_path: Path) -> None:
    """Its pattern is known by its name, even after the file is gone."""
    host = LogHost(tmp_path, patterns=["fluxhero.log", "*/*.log"])
    (host.directory / "workers").mkdir()
    host.write(plain(3))
    host.write(plain(2), host.directory / "workers" / "a.log")
    host.read()
    shutil.rmtree(host.directory / "workers")
    host.log.unlink()
    assert [(source["name"], source["events"]) for source in host.summary()["sources"]] == [
        ("fluxhero.log", 3),
        ("workers/a.log", 2),
    ]


def compressed(name: str) -> Callable[[Path], Path]:
    def compress(path: Path) -> Path:
        done = path.with_name(path.name + name)
        if name == ".zst":
            subprocess.run(["zstd", "-q", str(path), "-o", str(done)], check=True)
        else:
            done.write_bytes({".gz": gzip, ".xz": lzma, ".bz2": bz2}[name].compress(path.read_bytes()))
        shutil.copystat(path, done)
        path.unlink()
        return done

    return compress


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst", ".bz2"])
@pytest.mark.parametrize("name", ["fluxhero.log.1", "fluxhero.log-20260105", "fluxhero.2026-01-05_00-00-00.log"])
def test_rotation_and_compression_count_nothing_twice(host: LogHost, name: str, suffix: str) -> None:
    lines = plain(600)
    host.write(lines[:200])
    host.read()
    host.write(lines[200:300])
    old = host.log.rename(host.directory / name)
    host.at += timedelta(minutes=5)
    host.write(lines[300:500])
    assert host.read()["events"] == 300
    old = compressed(suffix)(old)
    assert host.read()["events"] == 0
    host.write(lines[500:])
    assert host.read()["events"] == 100
    old.unlink()
    assert host.read()["sources"][0]["gaps"] == []
    assert host.totals() == wanted(lines)


def test_a_rotated_file_is_read_to_its_end_after_it_was_compressed(host: LogHost) -> None:
    lines = plain(600)
    host.write(lines[:200])
    host.read()
    host.write(lines[200:300])
    compressed(".gz")(host.log.rename(host.directory / "fluxhero.log.1"))
    host.at += timedelta(minutes=5)
    host.write(lines[300:])
    assert host.read()["events"] == 400
    assert host.totals() == wanted(lines)


@pytest.mark.parametrize("read_before_emptying", [True, False])
@pytest.mark.parametrize("first", [20, 300])
def test_copytruncate_goes_on_in_the_copy(host: LogHost, read_before_emptying: bool, first: int) -> None:
    lines = plain(600)
    host.write(lines[:first])
    host.read()
    host.write(lines[first:320])
    copy = host.directory / "fluxhero.log.1"
    shutil.copyfile(host.log, copy)
    host.touch(copy)
    if read_before_emptying:
        host.write(lines[320:330])  # never in the copy
        host.read()
    host.log.write_bytes(b"")
    host.at += timedelta(minutes=5)
    host.write(lines[330:])
    host.read()
    host.read()
    seen = lines if read_before_emptying else lines[:320] + lines[330:]
    assert host.totals() == wanted(seen)


def test_d53_a_report_over_a_week_reads_what_was_rotated_daily(host: LogHost) -> None:
    for day in range(5, 12):
        line = b"2026-01-%02d 12:00:00,000 - backend.trading - ERROR - Trade execution failed: database is locked" % day
        host.write([line], host.directory / f"fluxhero.log-202601{day:02d}" if day < 11 else host.log)
        if day < 10:
            compressed(".gz")(host.directory / f"fluxhero.log-202601{day:02d}")
        host.at += timedelta(days=1)
    host.read()
    assert host.summary()["totals"]["failed_trades"] == 7


def test_what_was_removed_unread_is_a_gap_with_its_times_and_told_once(host: LogHost) -> None:
    lines = plain(400)
    host.write(lines[:100])
    host.read()
    host.write(lines[100:200])
    host.log.unlink()
    host.write(lines[200:])
    result = host.read()
    assert "after 7" in result["sources"][0]["gaps"][0]
    (gap,) = host.summary()["sources"][0]["gaps"]
    assert (gap["after"], gap["before"]) == ("2026-01-05T14:01:39Z", "2026-01-05T14:03:20Z")
    assert gap["file"] == str(host.log)
    assert host.read()["changed"] is False
    assert any("gap" in note for note in host.summary()["notes"])


def test_the_same_beginning_without_times_is_another_log(host: LogHost) -> None:
    banner = [b"INFO:     Started server process [1]", b"INFO:     Application startup complete."]
    host.write(banner)
    host.read()
    host.log.rename(host.directory / "fluxhero.log.1")
    host.at += timedelta(minutes=5)
    host.write([*banner, *plain(3)])
    host.read()
    assert host.summary(since=host.at - timedelta(days=2), until=host.at + timedelta(days=2))["totals"]["restarts"] == 2


def test_an_empty_log_and_one_without_a_whole_line_are_no_gap(host: LogHost) -> None:
    host.write([])
    host.write([b"2026-01-05 14:00:00,000 - a - ERROR - be"], host.directory / "other.log", end=b"")
    for _run in range(2):
        result = host.read()
        assert [source["gaps"] for source in result["sources"]] == [[], []]
    host.write([b"gun"], host.directory / "other.log")
    host.write(plain(2))
    assert host.read()["events"] == 3
    assert [source["gaps"] for source in host.summary()["sources"]] == [[], []]


def test_damaged_compressed_data_is_read_as_far_as_it_goes_and_told_once(host: LogHost) -> None:
    packed = gzip.compress(b"\n".join(plain(5000)))
    old = host.directory / "fluxhero.log.1.gz"
    old.write_bytes(packed[: len(packed) // 2])
    host.touch(old)
    host.write(plain(1))
    result = host.read()
    assert "cut off or damaged" in result["sources"][0]["gaps"][0]
    assert 1000 < result["events"] < 5000
    assert host.read()["changed"] is False


def test_rubbish_and_endless_lines_are_counted_and_shown(host: LogHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_CHUNK", 64 * 1024)
    pick = random.Random(7)
    rubbish = [pick.randbytes(100).replace(b"\n", b"") for _unused in range(50)]
    endless = b"x" * 3_000_000
    host.write([*plain(5), *rubbish, b"password=hunter2 " + endless, *plain(5, seed=2)])
    host.write([b"y" * 3_000_000], end=b"")  # and one without an end
    host.read()
    host.write([b"yyy", *plain(5, seed=3)])
    host.read()
    document = host.summary()
    assert document["totals"]["unparsed"] == 52
    assert document["totals"]["events"] == 67
    assert len(document["sources"][0]["unparsed_samples"]) == 3
    shown = "".join(document["sources"][0]["unparsed_samples"])
    assert "hunter2" not in shown
    assert not any(ord(character) < 32 for character in shown if character != "\t")


def test_hostile_names_and_what_is_no_file(host: LogHost) -> None:
    name = "a\n\x1b[31m<script>\udcff.log"
    host.write(plain(3), Path(os.fsdecode(bytes(host.directory) + b"/" + os.fsencode(name))))
    os.mkfifo(host.directory / "pipe.log")
    (host.directory / "link.log").symlink_to("/etc/passwd")
    (host.directory / "directory.log").mkdir()
    result = host.read()
    assert result["result"] == "ok"
    assert [source["events"] for source in result["sources"]] == [3]
    assert "\x1b" not in host.summary()["sources"][0]["name"]


def test_one_file_that_cannot_be_read_does_not_stop_the_others(host: LogHost) -> None:
    host.write(plain(3))
    host.write(b"", host.directory / "other.log.1.gz")
    (host.directory / "other.log.1.gz").unlink()
    (host.directory / "other.log.1.zst").write_bytes(b"no zstd")
    host.write(plain(2), host.directory / "other.log")
    result = host.read()
    assert {source["name"]: source["events"] for source in result["sources"]} == {"fluxhero.log": 3, "other.log": 2}


def test_what_was_counted_of_a_log_before_its_disk_failed_is_no_other_logs(
    host: LogHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_CHUNK", 1000)
    host.write(plain(200), host.directory / "a.log")
    host.write(plain(100, seed=2), host.directory / "b.log")
    good, calls = reading._Reading._data, iter(range(10**6))

    def failing(self: reading._Reading) -> bytes:
        if self._piece.path.name == "a.log" and next(calls) == 5:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self._piece.path))
        return good(self)

    monkeypatch.setattr(reading._Reading, "_data", failing)
    assert host.read()["result"] == "degraded"
    assert host.totals() == wanted(plain(100, seed=2))
    assert host.read()["result"] == "ok"
    assert host.rows("SELECT sum(count) FROM facts WHERE name = 'events'") == [(300,)]


def test_kinds_of_messages_beyond_the_limit_are_told_as_other(tmp_path: Path) -> None:
    host = LogHost(tmp_path, most_messages=10)
    words = [f"word{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(50)]
    host.write([f"2026-01-05 14:00:{n:02d},000 - a - ERROR - {word}".encode() for n, word in enumerate(words)])
    host.read()
    messages = host.summary()["messages"]
    assert len(messages) == 11
    assert sum(message["count"] for message in messages) == 50
    assert messages[-1]["fingerprint"] == "other" and messages[-1]["count"] == 40


def test_totals_stay_when_hours_become_days_and_go_when_they_are_too_old(tmp_path: Path) -> None:
    host = LogHost(tmp_path, hourly_days=1, keep_days=20)
    lines = plain(7200)
    host.write(lines)
    host.at += timedelta(hours=1)
    host.read()
    hourly = host.rows("SELECT count(*) FROM facts WHERE name = 'events'")
    assert hourly == [(2,)]
    host.at += timedelta(days=5)
    host.read()
    assert host.rows("SELECT count(*), sum(count) FROM facts WHERE name = 'events'") == [(1, 7200)]
    assert host.rows("SELECT sum(count) FROM counts") == [(7200,)]
    host.at += timedelta(days=20)
    host.read()
    assert host.rows("SELECT count(*) FROM facts") == host.rows("SELECT count(*) FROM messages") == [(0,)]


def test_two_readers_are_one_too_many(host: LogHost) -> None:
    with Lease(host.root / "state" / "logs.lock", purpose="logs read"), pytest.raises(LeaseError):
        host.read()


def test_damaged_totals_are_named(host: LogHost) -> None:
    host.database.write_bytes(b"SQLite format 3\0" + b"rubbish" * 1000)
    with pytest.raises(IntegrityError, match="move it away"):
        host.read()


def test_totals_are_private(host: LogHost) -> None:
    host.write(plain(1))
    os.umask(os.umask(0))
    host.read()
    assert host.database.stat().st_mode & 0o777 == 0o640


def _killed_at(host: LogHost, number: int) -> bool:
    """Read in a process that dies by SIGKILL around its transaction of that number; False when it ended before."""
    child = os.fork()
    if child == 0:
        steps = iter(range(10**6))
        execute = LogDatabase.transaction

        def transaction(self: LogDatabase):  # type: ignore[no-untyped-def]
            if next(steps) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            context = execute(self)

            class Around:
                def __enter__(self) -> None:
                    context.__enter__()

                def __exit__(self, *error) -> None:  # type: ignore[no-untyped-def]
                    if next(steps) == number:
                        os.kill(os.getpid(), signal.SIGKILL)
                    context.__exit__(*error)
                    if next(steps) == number:
                        os.kill(os.getpid(), signal.SIGKILL)

            return Around()

        LogDatabase.transaction = transaction  # type: ignore[method-assign]
        host.read()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_a_kill_at_any_step_counts_nothing_twice_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_CHUNK", 4000)
    monkeypatch.setattr(reading, "_STEP_BYTES", 12_000)
    lines = log_lines.lines(3, 400)
    kills = 0
    for number in range(1000):
        host = LogHost(tmp_path / str(number))
        host.write(lines[:250], host.directory / "fluxhero.log.1")
        host.at += timedelta(minutes=2)
        host.write(lines[250:])
        if not _killed_at(host, number):
            break
        kills += 1
        host.read()
        whole = LogHost(tmp_path / "whole")
        if not whole.database.exists():
            for name in ("fluxhero.log.1", "fluxhero.log"):
                shutil.copy2(host.directory / name, whole.directory / name)
            whole.at = host.at
            whole.read()
        assert host.totals() == whole.totals(), f"killed at step {number}"
    assert kills > 12
