"""Archives are not trusted: hostile ones write nothing outside, and nothing that is not listed."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.backup import archive
from fluxmaint.backup.crypto import DigestingWriter
from fluxmaint.backup.manifest import FileEntry
from fluxmaint.core.errors import InputError, IntegrityError, PreconditionError
from hypothesis import given
from hypothesis import strategies as st

KEY = "generations/x/config.tar.zst.age"


def entry(path: str, data: bytes = b"data", link: str = "") -> FileEntry:
    digest = "" if link else hashlib.sha256(data).hexdigest()
    return FileEntry(path, "root", "root", "0644", 0 if link else len(data), digest, "2026-11-23T02:00:00Z", link)


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b"data"
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = link
    info.size = len(data) if kind == tarfile.REGTYPE else 0
    return info, data


def hostile(tmp_path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    path = tmp_path / "hostile.tar"
    with tarfile.open(path, "w") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data) if info.size else None)
    return path


@pytest.mark.parametrize(
    "members",
    [
        [member("/etc/passwd")],
        [member("../outside")],
        [member("a/../../outside")],
        [member("./a")],
        [member("fifo", tarfile.FIFOTYPE)],
        [member("device", tarfile.CHRTYPE)],
        [member("disk", tarfile.BLKTYPE)],
        [member("hard", tarfile.LNKTYPE, "/etc/passwd")],
        [member("directory", tarfile.DIRTYPE)],
        [member("soft", tarfile.SYMTYPE, "/etc/passwd")],
        [member("soft", tarfile.SYMTYPE, "../outside")],
        [member("soft", tarfile.SYMTYPE, ".."), member("soft/file")],
        [member("unlisted")],
        [member("a"), member("a")],
        [member("a", data=b"other")],
        [member("a", data=b"longer data")],
        [member("link", tarfile.SYMTYPE, "elsewhere")],
        [member("a", tarfile.SYMTYPE, "b")],
    ],
    ids=lambda members: f"{members[0][0].name}-{members[0][0].linkname}".replace("/", "_"),
)
def test_d19_hostile_archives_are_refused(tmp_path: Path, members: list[Any]) -> None:
    # What is listed escapes as well: extraction does not lean on an honest manifest.
    plain = {info.name.removeprefix("./"): info for info, _data in members if info.name != "unlisted"}
    kept = {"a": "", "link": "a"}  # these two are listed as they should be
    listed = [
        entry(f"/{name}", link=kept.get(name, info.linkname if info.issym() else "")) for name, info in plain.items()
    ]
    directory = tmp_path / "out"
    directory.mkdir()
    with pytest.raises(IntegrityError) as caught:
        archive.extract(hostile(tmp_path, *members), directory, listed, subject=KEY)
    assert caught.value.subject == KEY
    assert "holds the member" in caught.value.message
    assert {path.name for path in tmp_path.iterdir()} == {"out", "hostile.tar"}
    for path in directory.rglob("*"):
        assert not path.is_symlink()


def test_an_archive_that_lacks_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(IntegrityError, match="lacks 1 files"):
        archive.extract(hostile(tmp_path, member("a")), tmp_path / "out", [entry("/a"), entry("/b")], subject=KEY)


def test_what_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "junk").write_bytes(b"x" * 2048)
    with pytest.raises(IntegrityError, match="not a readable archive"):
        archive.extract(tmp_path / "junk", tmp_path / "out", [], subject=KEY)


def test_files_and_links_come_back(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub/file").write_bytes(b"content")
    (source / "sub/file").chmod(0o751)
    (source / "absolute").symlink_to(source / "sub/file")
    (source / "sub/above").symlink_to("../" * 40 + "etc/hosts")  # the root directory is its own parent
    tar = tmp_path / "x.tar"
    with tar.open("wb") as stream, archive.ArchiveWriter(DigestingWriter(stream)) as writer:
        for path, status in archive.regular_files(source):
            if path.is_symlink():
                writer.add_link(path, status)
            else:
                writer.add(archive.copy_aside(path, tmp_path / "spool"))
    root = "../" * (len(source.parts) - 1) + "../"
    assert sorted(item.link for item in writer.entries) == ["", f"{root}etc/hosts", "sub/file"]
    (tmp_path / "out").mkdir()
    archive.extract(tar, tmp_path / "out", writer.entries, subject=KEY)
    below = tmp_path / "out" / str(source).lstrip("/")
    assert (below / "sub/file").read_bytes() == b"content"
    assert (below / "sub/file").stat().st_mode & 0o777 == 0o600
    assert (below / "absolute").resolve() == below / "sub/file"
    assert {item.path: item.mode for item in writer.entries}[str(source / "sub/file")] == "0751"


def test_symbolic_links_are_not_followed_when_reading(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo", "none"):
        with pytest.raises(InputError, match=name):
            archive.copy_aside(tmp_path / name, tmp_path / "spool")


def test_d07_a_file_that_never_rests_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "restless"
    path.write_bytes(b"x" * 10)
    copy = archive._copy

    def busy(source: Any, output: Any, limit: int | None) -> tuple[int, str]:
        result = copy(source, output, limit)
        with path.open("ab") as stream:
            stream.write(b"more")
        return result

    class Patient:
        """A clock that does not wait."""

        def sleep(self, seconds: float) -> None:
            """Do nothing."""

    monkeypatch.setattr(archive, "_copy", busy)
    with pytest.raises(archive.UnsettledError, match="restless"):
        archive.copy_aside(path, tmp_path / "spool", clock=Patient())  # type: ignore[arg-type]
    before = path.read_bytes()
    copied = archive.copy_aside(path, tmp_path / "spool", growing=True)
    assert (tmp_path / "spool").read_bytes() == before
    assert copied.entry.sha256 == hashlib.sha256(before).hexdigest()


@given(st.lists(st.sampled_from(["a", "b", ".."]), min_size=1, max_size=6), st.integers(1, 4))
def test_stays_inside_agrees_with_the_file_system_s_arithmetic(link: list[str], depth: int) -> None:
    name = "/".join(["d"] * (depth - 1) + ["link"])
    target = "/".join(link)
    top = "/top"
    steps, inside = os.path.dirname(f"{top}/{name}"), True
    for part in link:
        steps = os.path.normpath(f"{steps}/{part}")
        inside = inside and (steps == top or steps.startswith(top + "/"))
    assert archive.stays_inside(name, target) == inside


def test_links_to_absolute_paths_do_not_stay_inside() -> None:
    assert not archive.stays_inside("a/b", "/a")
    assert not archive.stays_inside("a/b", "")


def test_a_file_whose_reading_fails_is_told_from_a_disk_that_is_full(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        archive.copy_aside(Path("/proc/self/mem"), tmp_path / "copy")
    source = tmp_path / "source"
    source.write_bytes(b"x" * 4096)
    with pytest.raises(PreconditionError, match="cannot be copied to /dev/full: No space left"):
        archive.copy_aside(source, Path("/dev/full"))


@pytest.mark.parametrize(
    "members",
    [
        [member("a"), member("a/b")],
        [member("a/b"), member("a", tarfile.SYMTYPE, "c")],
        [member("a", tarfile.SYMTYPE, "c"), member("a/b")],
    ],
)
def test_a_file_that_is_a_directory_too_is_damage_of_the_object(tmp_path: Path, members: list[Any]) -> None:
    listed = [entry(f"/{info.name}", link=info.linkname) for info, _data in members]
    (tmp_path / "out").mkdir()
    with pytest.raises(IntegrityError) as caught:
        archive.extract(hostile(tmp_path, *members), tmp_path / "out", listed, subject=KEY)
    assert caught.value.subject == KEY
