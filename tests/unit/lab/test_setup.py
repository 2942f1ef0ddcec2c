# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock, the stamps that let set-up skip what is done, and the lab's keys."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.lab import keys, names, steps
from tests.lab.requirements import pinned

LOCK = "one==1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:ab\n    # via two\ntwo==2 \\\n    --hash=sha256:bb\n"


def test_a_package_is_taken_from_the_lock_with_all_its_hashes() -> None:
    assert pinned("one", LOCK) == "one==1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:ab\n"


def test_a_package_that_is_not_locked_is_an_error() -> None:
    with pytest.raises(KeyError):
        pinned("three", LOCK)


def test_the_lock_is_complete_and_names_no_index() -> None:
    text = names.REQUIREMENTS.read_text(encoding="utf-8")
    packages = re.findall(r"^([a-z0-9._-]+)==", text, flags=re.MULTILINE)
    assert len(packages) > 50
    for package in packages:
        assert "--hash=sha256:" in pinned(package, text)
    assert not re.search(r"index-url|find-links|trusted-host|://", text)


def test_a_stamp_is_current_only_for_the_same_inputs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(names, "STAMPS", tmp_path / "stamps")
    assert not steps.is_current("venv", "abc")
    steps.record("venv", "abc")
    assert steps.is_current("venv", "abc")
    assert not steps.is_current("venv", "abd")


def test_a_digest_depends_on_content_and_on_where_inputs_end(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("ab", encoding="utf-8")
    assert steps.digest("ab", "c") == steps.digest(file, b"c")
    assert steps.digest("ab", "c") != steps.digest("a", "bc")


def test_a_failing_command_shows_the_end_of_its_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(names, "LOGS", tmp_path)
    with pytest.raises(steps.SetupError, match=r"exit code 3[\s\S]*what went wrong"):
        steps.run(["sh", "-c", "echo what went wrong; exit 3"], log="failing")


def test_s3_keys_differ_between_identities_and_between_labs() -> None:
    first, second = keys.new_s3_keys(), keys.new_s3_keys()
    made = [lab[identity] for lab in (first, second) for identity in names.S3_IDENTITIES]
    assert len({str(pair) for pair in made}) == len(made)
    assert first["bucket"] == names.BUCKET
