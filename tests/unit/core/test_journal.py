from __future__ import annotations

import gzip
import multiprocessing
import stat
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from fluxmaint.core import journal as journal_module
from fluxmaint.core.clock import Clock
from fluxmaint.core.errors import IntegrityError, StoreError
from fluxmaint.core.journal import Journal

if TYPE_CHECKING:
    from pathlib import Path


def append_many(path: Path, count: int) -> None:
    journal = Journal(path)
    for number in range(count):
        journal.append("test", "step", number=number)


def test_entries_come_back_in_order_and_the_chain_holds(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    append_many(journal.path, 5)
    assert [entry["number"] for entry in journal.read()] == [0, 1, 2, 3, 4]
    assert [entry["number"] for entry in journal.read(limit=2)] == [3, 4]
    assert journal.read("other") == []
    assert journal.verify() == 5
    assert stat.S_IMODE(journal.path.stat().st_mode) & 0o007 == 0


def test_long_entries_do_not_break_the_chain(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for size in (10, 5000, 100_000, 1):
        journal.append("test", "step", text="x" * size)
    assert journal.verify() == 4


@pytest.mark.parametrize("line", [0, 1, 2])
def test_a_changed_or_removed_line_is_noticed(tmp_path: Path, line: int) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    append_many(journal.path, 4)
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(b"".join([*lines[:line], lines[line].replace(b'"step"', b'"stop"'), *lines[line + 1 :]]))
    with pytest.raises(IntegrityError, match=f"line {line + 2} does not follow"):
        journal.verify()
    journal.path.write_bytes(b"".join([*lines[:line], *lines[line + 1 :]]))
    with pytest.raises(IntegrityError, match=f"line {line + 1} does not follow"):
        journal.verify()


def test_a_line_cut_off_by_a_crash_is_kept_apart(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    append_many(journal.path, 2)
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole[:-20])
    journal.append("test", "step", number=2)
    assert [entry["number"] for entry in journal.read()] == [0, 2]
    assert journal.verify() == 2


def test_an_operation_records_its_start_steps_and_end(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    with journal.operation("backup", kind="daily") as operation:
        operation.step("snapshot", database="trades")
        operation.evidence["bytes"] = 7
        operation.result = "degraded"
    start, step, end = journal.read("backup")
    assert (start["event"], start["kind"]) == ("start", "daily")
    assert (step["step"], step["database"]) == ("snapshot", "trades")
    assert (end["event"], end["result"], end["bytes"]) == ("end", "degraded", 7)
    assert start["operation_id"] == step["operation_id"] == end["operation_id"]


def test_an_operation_that_fails_records_the_error(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    with pytest.raises(StoreError), journal.operation("backup"):
        raise StoreError("is away", subject="offsite")
    end = journal.read()[-1]
    assert end["result"] == "failed"
    assert end["error"]["message"] == "is away"
    assert end["error"]["subject"] == "offsite"


def test_processes_that_append_at_once_keep_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=append_many, args=(path, 25)) for _unused in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert Journal(path).verify() == 100


def test_names_that_are_no_text_are_written_as_escapes(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    name = "logs/\udcff\udcfe.log"
    journal.append("test", "step", object=name)
    journal.append("test", "step")
    assert journal.read()[0]["object"] == name
    assert journal.verify() == 2


class Later(Clock):
    """A clock that is some days ahead."""

    def __init__(self, days: float) -> None:
        self._ahead = timedelta(days=days)

    def now(self) -> datetime:
        return super().now() + self._ahead


def aged(path: Path) -> Journal:
    """A journal with six old and three new entries, seen three months later."""
    append_many(path, 6)
    later = Journal(path, Later(100))
    for number in range(6, 9):
        later.append("test", "step", number=number)
    return later


def numbers(journal: Journal) -> list[int]:
    return [entry["number"] for entry in journal.read()]


def test_old_lines_go_to_an_archive_and_the_chain_goes_on(tmp_path: Path) -> None:
    journal = aged(tmp_path / "journal.jsonl")
    mode = journal.path.stat().st_mode
    assert journal.rotate() is None  # it is not large
    archive = journal.rotate(larger_than=100)
    assert archive == tmp_path / "journal-0001.jsonl.gz"
    assert (len(journal.path.read_bytes().splitlines()), journal.path.stat().st_mode) == (3, mode)
    assert journal.rotate(larger_than=100) is None  # what is left is not old
    journal.append("test", "step", number=9)
    assert (numbers(journal), journal.verify()) == (list(range(10)), 10)
    assert [entry["number"] for entry in journal.read("test", 8)] == list(range(2, 10))
    again = Journal(journal.path, Later(400))
    assert again.rotate(larger_than=100) == tmp_path / "journal-0002.jsonl.gz"
    again.append("test", "step", number=10)  # the last line stays, so that there is one to follow
    assert (numbers(again), again.verify()) == (list(range(11)), 11)


def test_a_changed_archive_is_noticed_and_a_lost_one_too(tmp_path: Path) -> None:
    journal = aged(tmp_path / "journal.jsonl")
    archive = journal.rotate(larger_than=100)
    assert archive is not None
    whole = archive.read_bytes()
    archive.write_bytes(gzip.compress(gzip.decompress(whole).replace(b'"number": 3', b'"number": 4')))
    with pytest.raises(IntegrityError, match=r"journal-0001.*line 5 does not follow"):
        journal.verify()
    archive.write_bytes(whole[:-20])
    with pytest.raises(IntegrityError, match="cannot be read"):
        journal.verify()
    archive.unlink()
    with pytest.raises(IntegrityError, match=r"journal\.jsonl: line 1 does not follow"):
        journal.verify()


@pytest.mark.parametrize("write", [1, 2])
def test_a_rotation_that_is_cut_off_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    journal = aged(tmp_path / "journal.jsonl")
    real, calls = journal_module.atomic_write, []

    def dies(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == write:
            raise KeyboardInterrupt
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(journal_module, "atomic_write", dies)
    with pytest.raises(KeyboardInterrupt):
        journal.rotate(larger_than=100)
    monkeypatch.undo()
    assert (numbers(journal), journal.verify()) == (list(range(9)), 9)
    journal.append("test", "step", number=9)
    assert journal.rotate(larger_than=100) == tmp_path / "journal-0001.jsonl.gz"
    assert (numbers(journal), journal.verify()) == (list(range(10)), 10)


def rotate_often(path: Path, count: int) -> None:
    for number in range(count):
        Journal(path, Later(100 + number)).rotate(larger_than=100, keep_days=0)


def test_entries_that_are_written_during_rotations_are_all_there(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).append("test", "start")
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=append_many, args=(path, 200)) for _worker in range(2)]
    workers.append(context.Process(target=rotate_often, args=(path, 40)))
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    journal = Journal(path)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert journal.archives() and journal.verify() == 401


def test_an_archive_is_never_written_over_when_older_ones_are_gone(tmp_path: Path) -> None:
    journal = aged(tmp_path / "journal.jsonl")
    first = journal.rotate(larger_than=100)
    assert first is not None
    journal.append("test", "step", number=9)
    later = Journal(journal.path, Later(400))
    second = later.rotate(larger_than=100)
    assert second is not None
    first.unlink()
    kept = second.read_bytes()
    later.append("test", "step", number=10)
    later.append("test", "step", number=11)
    assert Journal(journal.path, Later(900)).rotate(larger_than=1) == tmp_path / "journal-0003.jsonl.gz"
    assert second.read_bytes() == kept


def test_a_damaged_archive_hinders_only_who_verifies(tmp_path: Path) -> None:
    journal = aged(tmp_path / "journal.jsonl")
    archive = journal.rotate(larger_than=100)
    assert archive is not None
    damaged = archive.read_bytes()[:-20]
    archive.write_bytes(damaged)
    journal.append("test", "step", number=9)
    assert numbers(journal) == [6, 7, 8, 9]
    with pytest.raises(IntegrityError, match="an older part of the journal cannot be read"):
        journal.verify()
    assert Journal(journal.path, Later(400)).rotate(larger_than=1) == tmp_path / "journal-0002.jsonl.gz"
    assert archive.read_bytes() == damaged
