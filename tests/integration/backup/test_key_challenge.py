"""Keys whose private halves are elsewhere are tested by their holders, with real age."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.backup import challenge
from fluxmaint.core.errors import InputError

from tests.support.clocks import At

NAMES = ("escrow", "verifier")


class Keys:
    """Two keys in a safe, and the directory of their challenges."""

    def __init__(self, top: Path) -> None:
        self.directory, self.safe = top / "keys", top / "safe"
        for path in (self.directory, self.safe):
            path.mkdir()
        self.public = {name: self.make(name) for name in NAMES}

    def make(self, name: str) -> str:
        file = self.safe / f"{name}.key"
        file.unlink(missing_ok=True)
        subprocess.run(["age-keygen", "-o", file], check=True, capture_output=True)
        return subprocess.run(["age-keygen", "-y", file], check=True, capture_output=True, text=True).stdout.strip()

    def read(self, name: str, key: str = "") -> str:
        """What a holder reads, with the command that people are told."""
        command = ["age", "-d", "-i", self.safe / f"{key or name}.key", self.directory / f"{name}.challenge.age"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def settle(self, **options: Any) -> dict[str, str]:
        """When each key was tested; what is repeated with the same answers must change nothing."""
        arguments = {"answers": {}, "valid_days": 400, **options}
        challenge.settle(self.directory, self.public, **arguments)
        again = challenge.settle(self.directory, self.public, **arguments)
        assert not again["changed"]
        return {name: holder["answered_at"] for name, holder in again["holders"].items()}

    @property
    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.directory.iterdir()}


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    made = Keys(tmp_path)
    assert made.settle() == {"escrow": "", "verifier": ""}
    return made


def test_the_holder_of_the_key_alone_can_answer(keys: Keys) -> None:
    for name, other in (NAMES, NAMES[::-1]):
        with pytest.raises(subprocess.CalledProcessError):
            keys.read(name, other)
    answer = keys.read("escrow")
    assert len(answer.strip()) == 32
    assert not any(answer.strip().encode() in content for content in keys.files.values())
    assert keys.settle(answers={"escrow": answer}, clock=At(days=-1))["escrow"] != ""
    assert keys.settle()["verifier"] == ""


@pytest.mark.parametrize("wrong", ["", "another's", "0" * 32, "of nobody"])
def test_a_wrong_answer_is_refused_and_nothing_is_noted(keys: Keys, wrong: str) -> None:
    before = keys.files
    answers = {"verifier": keys.read("verifier"), "escrow": keys.read("verifier") if wrong == "another's" else wrong}
    if wrong == "of nobody":
        answers = {"verifier": answers["verifier"], "nobody": answers["verifier"]}
    with pytest.raises(InputError, match="no challenge to this key" if wrong == "of nobody" else "is not that of"):
        keys.settle(answers=answers)
    assert keys.files == before


def test_another_key_of_that_name_is_asked_anew(keys: Keys) -> None:
    old = keys.read("escrow")
    assert keys.settle(answers={"escrow": old})["escrow"]
    keys.public["escrow"] = keys.make("escrow")
    with pytest.raises(InputError, match="no challenge to this key"):
        keys.settle(answers={"escrow": old})
    assert keys.settle()["escrow"] == ""
    with pytest.raises(InputError, match="is not that of"):
        keys.settle(answers={"escrow": old})
    assert keys.settle(answers={"escrow": keys.read("escrow")})["escrow"]


def test_an_answer_counts_for_so_many_days(keys: Keys) -> None:
    old = keys.read("escrow")
    assert keys.settle(answers={"escrow": old}, clock=At(days=-399))["escrow"]
    assert keys.settle()["escrow"]
    assert keys.settle(valid_days=398)["escrow"] == ""
    new = keys.read("escrow")
    assert new != old
    assert keys.settle(answers={"escrow": new}, valid_days=398)["escrow"]


def test_check_mode_says_so_and_changes_nothing(keys: Keys) -> None:
    before = keys.files
    answers = {"escrow": keys.read("escrow")}
    said = challenge.settle(keys.directory, keys.public, answers, valid_days=400, dry_run=True)
    assert said["changed"] and said["holders"]["escrow"]["answered_at"]
    assert keys.files == before
    nothing_yet = challenge.settle(keys.directory / "none", keys.public, {}, valid_days=400, dry_run=True)
    assert nothing_yet["changed"]


def test_a_challenge_that_was_lost_or_half_made_is_made_again(keys: Keys) -> None:
    (keys.directory / "escrow.challenge.age").unlink()
    (keys.directory / "verifier.challenge.json").unlink()
    keys.settle()
    answers = {name: keys.read(name) for name in NAMES}
    assert all(keys.settle(answers=answers).values())


def test_a_mistyped_key_is_named(keys: Keys) -> None:
    keys.public["escrow"] = keys.public["escrow"][:-1] + ("q" if keys.public["escrow"][-1] != "q" else "p")
    with pytest.raises(InputError, match="the public key of escrow is mistyped"):
        keys.settle()
    assert json.loads(keys.files["verifier.challenge.json"])["recipient"] == keys.public["verifier"]
