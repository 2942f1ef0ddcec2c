# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Public age keys, made by the real age-keygen."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from fluxmaint.backup import crypto, recipients
from fluxmaint.core.errors import PreconditionError


@pytest.fixture(scope="module")
def keys() -> list[str]:
    made = [subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout for _unused in range(20)]
    return [text.split("public key: ")[1].splitlines()[0] for text in made]


def test_what_age_makes_is_well_formed(keys: list[str]) -> None:
    assert [recipients.mistake(key) for key in keys] == [""] * 20


def test_one_wrong_letter_anywhere_is_noticed(keys: list[str]) -> None:
    key = keys[0]
    for place in range(4, len(key)):
        wrong = "q" if key[place] != "q" else "p"
        assert "checksum" in recipients.mistake(key[:place] + wrong + key[place + 1 :]), place


def test_two_letters_in_the_wrong_order_are_noticed(keys: list[str]) -> None:
    for key in keys:
        place = next(i for i in range(4, len(key)) if key[i] != key[i + 1])
        assert recipients.mistake(key[:place] + key[place + 1] + key[place] + key[place + 2 :])


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("", "does not begin with age1"),
        ("ssh-ed25519 AAAA", "does not begin with age1"),
        ("age1" + "q" * 57, "has 61 characters"),
        ("age1" + "b" * 58, "holds 'b'"),
        ("age1" + "Q" * 58, "holds 'Q'"),
        ("AGE-SECRET-KEY-1QQ", "is a private key"),
        ("age1" + "q" * 58, "checksum"),
    ],
)
def test_other_texts_are_named_for_what_they_are(key: str, said: str) -> None:
    assert said in recipients.mistake(key)


def test_a_list_with_a_mistyped_key_is_refused_by_name_before_anything_is_done(keys: list[str], tmp_path: Path) -> None:
    mistyped = keys[1][:-1] + ("q" if keys[1][-1] != "q" else "p")
    file = tmp_path / "recipients.txt"
    file.write_text(f"# two keys\n{keys[0]}\n{mistyped}\n")
    with pytest.raises(PreconditionError, match="mistyped: its checksum") as caught:
        crypto.read_recipients(file)
    assert f"recipient 2 ({mistyped[:12]}...)" in str(caught.value)
    file.write_text(f"{keys[0]}\n{keys[1]}\n")
    assert crypto.read_recipients(file) == keys[:2]
