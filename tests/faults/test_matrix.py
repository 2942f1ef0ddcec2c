# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`docs/faults.md` names tests that exist, every test of a fault, and every fault that was asked for."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MATRIX = ROOT / "docs" / "faults.md"
INVARIANTS = {"data", "proven", "truth", "secret", "plain"}
ASKED_FOR = """
SIGKILL at every step|backup
SIGKILL at every step|upload
SIGKILL at every step|retention
SIGKILL at every step|proof
SIGKILL at every moment|restore
disk full in staging|backup
disk full in a target|upload
disk full in the data directory|restore
S3 returns 500|upload
S3 stalls|upload
S3 closes half-way|upload
S3 answers with a wrong checksum|upload
missing permission|upload
store away for an hour|backup
clock one day back|backup
clock one day forward|backup
stale lease of a dead process|backup
unmounted target|backup
second instance|backup
wrong owner|backup
wrong mode|backup
symbolic link as database path|backup
hard link as database path|backup
foreign hot journal|backup
stale `-wal`|backup
truncated source|backup
bit-flipped source|backup
zero-byte source|backup
non-SQLite source|backup
grows and shrinks while copied|backup
being VACUUMed|backup
"""


def rows() -> list[list[str]]:
    lines = [line for line in MATRIX.read_text().splitlines() if line.startswith("|") and "::" in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def names_of(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_each_row_names_invariants_and_a_test_that_exists() -> None:
    for fault, operation, happens, breaks, test in rows():
        assert fault and operation and happens
        assert set(breaks.split(", ")) <= INVARIANTS, breaks
        file, _separator, name = test.strip("`").partition("::")
        path = ROOT / file if "/" in file else ROOT / "tests" / "faults" / file
        assert name in names_of(path), test


@pytest.mark.parametrize("asked", ASKED_FOR.strip().splitlines())
def test_each_fault_that_was_asked_for_is_there(asked: str) -> None:
    fault, operation = asked.split("|")
    assert any(fault in row[0] and operation in row[1] for row in rows()), asked


def test_each_test_of_a_fault_is_in_the_matrix() -> None:
    named = set(re.findall(r"::(test_\w+)", MATRIX.read_text()))
    aside = {"test_moments_are_all_there_are"}  # of the lists that another test goes through
    for file in sorted((ROOT / "tests" / "faults").glob("test_*.py")):
        if file != Path(__file__):
            assert names_of(file) - aside <= named, file.name
