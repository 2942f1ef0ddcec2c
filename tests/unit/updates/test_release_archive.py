# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Source trees: what changes their digest, what does not, and what comes out of the archive."""

from __future__ import annotations

import os
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from fluxmaint.core.errors import InputError
from fluxmaint.updates.release_archive import describe, pack


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "code" / "data").mkdir(parents=True)
    (root / "data").mkdir()
    (root / "code" / "main.py").write_text("print(1)\n")
    (root / "code" / "data" / "table.csv").write_text("1,2\n")
    (root / "data" / "trades.db").write_text("live")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "latest").symlink_to("code/main.py")
    return root


def test_two_checkouts_of_the_same_source_are_the_same(tree: Path, tmp_path: Path) -> None:
    before = describe(tree)
    (tree / "code" / "main.py").chmod(0o600)
    os.utime(tree / "code" / "main.py", (0, 0))
    assert describe(tree) == before
    pack(tree, tmp_path / "first.tar.gz")
    os.utime(tree / "run.sh", (99, 99))
    pack(tree, tmp_path / "second.tar.gz")
    assert (tmp_path / "first.tar.gz").read_bytes() == (tmp_path / "second.tar.gz").read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "code" / "main.py").write_text("print(2)\n"),
        lambda root: (root / "code" / "main.py").rename(root / "code" / "other.py"),
        lambda root: (root / "run.sh").chmod(0o644),
        lambda root: (root / "empty").mkdir(),
        lambda root: ((root / "latest").unlink(), (root / "latest").symlink_to("run.sh")),
        lambda root: ((root / "latest").unlink(), (root / "latest").write_text("code/main.py")),
    ],
    ids=["content", "name", "executable bit", "directory", "link target", "link made a file"],
)
def test_every_difference_is_another_release(tree: Path, change: Callable[[Path], object]) -> None:
    before = describe(tree).digest
    change(tree)
    assert describe(tree).digest != before


def test_excluded_files_are_in_neither_digest_nor_archive(tree: Path, tmp_path: Path) -> None:
    exclude = ["/data", "*.sh"]
    before = describe(tree, exclude)
    (tree / "data" / "trades.db").write_text("changed")
    (tree / "code" / "more.sh").write_text("")
    assert describe(tree, exclude) == before
    pack(tree, tmp_path / "out.tar.gz", exclude)
    with tarfile.open(tmp_path / "out.tar.gz") as archive:
        # A pattern with a slash is a path from the root: the inner directory of that name stays.
        assert archive.getnames() == ["code", "code/data", "code/data/table.csv", "code/main.py", "latest"]


def test_archive_gives_the_tree_back(tree: Path, tmp_path: Path) -> None:
    os.link(tree / "run.sh", tree / "same.sh")
    archive_file = tmp_path / "out.tar.gz"
    pack(tree, archive_file)
    assert archive_file.stat().st_mode & 0o777 == 0o600
    (tmp_path / "out").mkdir()
    with tarfile.open(archive_file) as archive:
        assert {(member.uid, member.gid) for member in archive} == {(0, 0)}
        archive.extractall(tmp_path / "out")
    assert describe(tmp_path / "out") == describe(tree)


@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside", "code/../../outside"])
def test_link_out_of_the_tree_is_refused(tree: Path, target: str) -> None:
    (tree / "leak").symlink_to(target)
    with pytest.raises(InputError, match="leads out of the tree") as caught:
        describe(tree)
    assert caught.value.subject == str(tree / "leak")


def test_socket_is_refused(tree: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tree / "s"))
        with pytest.raises(InputError, match="neither a file"):
            describe(tree)


def test_nothing_is_no_release(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file to release"):
        describe(tree, ["*"])
    with pytest.raises(InputError, match="not a directory"):
        describe(tmp_path / "missing")


def test_failure_leaves_no_archive(tree: Path, tmp_path: Path) -> None:
    (tree / "z-leak").symlink_to("/etc/passwd")
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError):
        pack(tree, tmp_path / "out" / "source.tar.gz")
    assert list((tmp_path / "out").iterdir()) == []
