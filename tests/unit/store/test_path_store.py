"""The directory target: immutable, private, never filled by mistake."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from fluxmaint.core.errors import InputError, StoreError
from fluxmaint.store.base import ObjectMissing
from fluxmaint.store.path import PathStore


@pytest.fixture
def store(tmp_path: Path) -> PathStore:
    directory = tmp_path / "target"
    directory.mkdir()
    (directory / ".fluxmaint-target").touch()
    return PathStore("local", directory)


def put(store: PathStore, tmp_path: Path, key: str, data: bytes) -> bool:
    file = tmp_path / "source"
    file.write_bytes(data)
    return store.put_file(key, file, hashlib.sha256(data).hexdigest())


def test_what_is_put_comes_back(store: PathStore, tmp_path: Path) -> None:
    assert put(store, tmp_path, "a/b/c", b"content")
    assert store.get_bytes("a/b/c") == b"content"
    assert store.digest("a/b/c") == hashlib.sha256(b"content").hexdigest()
    assert [(item.key, item.size) for item in store.list("a/")] == [("a/b/c", 7)]
    assert list(store.list("b/")) == []
    assert store.exists("a/b/c")
    assert (store.path / "a/b/c").stat().st_mode & 0o777 == 0o600
    assert (store.path / "a").stat().st_mode & 0o777 == 0o700


def test_the_same_again_is_no_write_and_other_content_is_refused(store: PathStore, tmp_path: Path) -> None:
    put(store, tmp_path, "key", b"content")
    assert put(store, tmp_path, "key", b"content") is False
    for other in (b"CONTENT", b"longer content"):
        with pytest.raises(StoreError, match="different content"):
            put(store, tmp_path, "key", other)
    with pytest.raises(StoreError, match="exists already"):
        store.put_new("key", b"content")
    assert store.get_bytes("key") == b"content"


def given(store: PathStore, tmp_path: Path, mode: int, *, give: bool) -> tuple[Path, Path]:
    file = tmp_path / "source"
    file.write_bytes(b"content")
    file.chmod(mode)
    os.utime(file, (1, 1))
    assert store.put_file("key", file, hashlib.sha256(b"content").hexdigest(), give=give)
    return file, store.path / "key"


def test_a_file_that_is_given_away_becomes_the_object_and_counts_as_new(store: PathStore, tmp_path: Path) -> None:
    file, stored = given(store, tmp_path, 0o600, give=True)
    assert stored.samefile(file)
    assert stored.stat().st_mtime > 1
    file.unlink()
    assert store.get_bytes("key") == b"content"


@pytest.mark.parametrize(("mode", "give"), [(0o600, False), (0o644, True)])
def test_a_file_that_is_kept_or_not_private_is_copied(store: PathStore, tmp_path: Path, mode: int, give: bool) -> None:
    file, stored = given(store, tmp_path, mode, give=give)
    assert not stored.samefile(file)
    assert stored.stat().st_mode & 0o777 == 0o600


def test_a_wrong_digest_leaves_nothing(store: PathStore, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"content")
    with pytest.raises(StoreError, match="other bytes"):
        store.put_file("key", tmp_path / "source", "0" * 64)
    assert [path.name for path in store.path.iterdir()] == [".fluxmaint-target"]


def test_what_a_killed_run_left_is_no_object_and_no_obstacle(store: PathStore, tmp_path: Path) -> None:
    (store.path / ".partial-key").write_bytes(b"half")
    assert list(store.list("")) == []
    put(store, tmp_path, "key", b"content")
    assert [item.key for item in store.list("")] == ["key"]


def test_limits_and_missing_objects(store: PathStore, tmp_path: Path) -> None:
    put(store, tmp_path, "key", b"x" * 100)
    with pytest.raises(StoreError, match="larger than"):
        store.get_bytes("key", 99)
    with pytest.raises(ObjectMissing) as caught:
        store.get_bytes("none")
    assert caught.value.subject == "none"


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../outside", "a/../b", "a//b", "a/./b", "a\0b", "a/", "a\\b"])
def test_keys_cannot_lead_out(store: PathStore, key: str) -> None:
    with pytest.raises(InputError):
        store.put_new(key, b"x")
    with pytest.raises(InputError):
        store.get_bytes(key)


def test_a_symbolic_link_is_not_an_object(store: PathStore, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (store.path / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(StoreError):
        store.get_bytes("link")
    with pytest.raises(StoreError):
        put(store, tmp_path, "link", b"x")
    assert (tmp_path / "secret").read_text() == "secret"


def test_a_marker_that_is_not_a_file_does_not_count(tmp_path: Path) -> None:
    (tmp_path / ".fluxmaint-target").symlink_to("/etc/hostname")
    with pytest.raises(StoreError, match="marker"):
        PathStore("local", tmp_path).check()
    with pytest.raises(StoreError, match="not a directory"):
        PathStore("local", tmp_path / "none").check()


def test_names_that_are_no_text_are_told_and_are_no_objects(store: PathStore, tmp_path: Path) -> None:
    put(store, tmp_path, "a/b", b"content")
    (store.path / "a" / os.fsdecode(b"\xff\xfe")).write_text("somebody's")
    (store.path / "a" / os.fsdecode(b".partial-\xff")).write_text("somebody's")
    (store.path / "a/\u00fc\u6f22").write_text("odd, but text")
    assert [item.key for item in store.list("a/")] == ["a/b", "a/\u00fc\u6f22"]
    assert list(store.unfinished("a/")) == []
    assert list(store.foreign("a/")) == ["a/.partial-\\xff", "a/\\xff\\xfe"]


@pytest.mark.parametrize("seconds", [2.6e11, 9e15, -9e15])
def test_a_file_from_outside_the_calendar_does_not_hide_the_others(
    store: PathStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    put(store, tmp_path, "a/b", b"content")
    true = Path.lstat

    def lstat(path: Path) -> os.stat_result:  # not every file system can hold such a time
        found = true(path)
        return os.stat_result((*found[:8], int(seconds), *found[9:]), {"st_mtime": seconds})

    monkeypatch.setattr(Path, "lstat", lstat)
    assert [item.modified.year for item in store.list("")] == [9999 if seconds > 0 else 1000]


@pytest.mark.parametrize("kind", ["pipe", "directory", "link"])
def test_what_is_no_file_is_no_object(store: PathStore, tmp_path: Path, kind: str) -> None:
    put(store, tmp_path, "other", b"content")
    place = store.path / "key"
    {"pipe": os.mkfifo, "directory": os.mkdir, "link": lambda path: path.symlink_to("other")}[kind](place)
    with pytest.raises(ObjectMissing):
        store.get_bytes("key")
