# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two processes never test one host at the same time."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from xdist import newhooks

from tests.lab import names


@pytest.fixture(scope="module")
def conftest() -> Any:
    spec = importlib.util.spec_from_file_location("molecule_conftest", names.ROOT / "molecule" / "conftest.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("test", "scope"),
    [
        ("tests/test_app.py::test_one[ssh://trixie]", "trixie"),
        ("tests/test_app.py::test_one[ssh://bookworm]", "bookworm"),
        ("tests/test_backup.py::test_many[ssh://trixie-daily]", "trixie"),
        ("tests/test_app_rollback.py::test_of_one_host", "bookworm"),
        ("molecule/backup_verify/tests/test_backup_verify.py::test_one[ssh://trixie]", "both"),
        ("molecule/backup_verify/tests/test_backup_verify.py::test_one[ssh://bookworm]", "both"),
    ],
)
def test_a_test_belongs_to_its_host(conftest: Any, test: str, scope: str) -> None:
    scheduler = object.__new__(conftest.ByHost)
    assert scheduler._split_scope(test) == scope


def test_pytest_xdist_asks_for_it(conftest: Any) -> None:
    assert callable(newhooks.pytest_xdist_make_scheduler)
    assert callable(conftest.pytest_xdist_make_scheduler)


TESTS = """
import pytest

HOSTS = pytest.mark.parametrize("host", ["ssh://trixie", "ssh://bookworm"], ids=str)

@HOSTS
def test_each(host): pass

@HOSTS
@pytest.mark.only_on("trixie")
def test_once(host): pass

@pytest.mark.only_on("trixie")
@pytest.mark.parametrize("word", ["a", "b"])
@HOSTS
def test_words(host, word): pass
"""


def test_what_one_host_shows_runs_there_only(tmp_path: Path) -> None:
    shutil.copy(names.ROOT / "molecule" / "conftest.py", tmp_path)
    (tmp_path / "test_some.py").write_text(TESTS, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", f"--rootdir={tmp_path}", str(tmp_path)]
    found = subprocess.run(
        [*command, "-c", str(names.ROOT / "pyproject.toml")], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout
    collected = sorted(line.rpartition("::")[2] for line in found.splitlines() if "::" in line)
    assert collected == [
        "test_each[ssh://bookworm]",
        "test_each[ssh://trixie]",
        "test_once[ssh://trixie]",
        "test_words[ssh://trixie-a]",
        "test_words[ssh://trixie-b]",
    ]
