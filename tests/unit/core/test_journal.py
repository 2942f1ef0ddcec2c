from __future__ import annotations

import multiprocessing
import stat
from typing import TYPE_CHECKING

import pytest
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
