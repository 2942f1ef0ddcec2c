# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A verifier proves the generations of another host, unattended: which, how often, and what it says of bad ones."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fluxmaint.backup import layout, overview, proof, verify
from fluxmaint.core.clock import Clock, utc_text
from fluxmaint.core.config import load
from fluxmaint.core.errors import (
    ConfigError,
    InputError,
    IntegrityError,
    LeaseError,
    PreconditionError,
    StoreError,
)
from fluxmaint.core.journal import Journal
from fluxmaint.core.lease import Lease
from fluxmaint.store.base import AccessDenied
from fluxmaint.store.open import open_store

from tests.support.clocks import At
from tests.support.seaweed import BUCKET

if TYPE_CHECKING:
    from tests.support.seaweed import ObjectStore
    from tests.support.world import World

SIGNERS = "allowed_signers"


class Verifier:
    """Another host: a configuration, an identity and a signing key of its own."""

    def __init__(self, world: World, top: Path, **changes: Any) -> None:
        self.world = world
        self.top = top
        (top / "state").mkdir(parents=True)
        keys = world.keys
        self.section: dict[str, Any] = {
            "verifier": "staging",
            "target": {"name": "local", "type": "path", "path": str(world.store)},
            "identity_file": str(keys / "escrow.key"),
            "signing_key_file": str(keys / "verifier_ed25519"),
            "allowed_signers_file": str(keys / SIGNERS),
            "work_dir": str(top / "state/verify"),
            "origins": [{"service": "fluxhero", "host": "production", "signer": "fluxhero@production"}],
            **changes,
        }

    @property
    def config_file(self) -> Path:
        return self.top / "config.json"

    def config(self) -> Any:
        document = {key: value for key, value in self.world.document.items() if key != "backup"}
        places = {"state_dir": str(self.top / "state"), "run_dir": str(self.top / "run")}
        self.config_file.write_text(json.dumps({**document, "host": "staging", **places, "verify": self.section}))
        return load(self.config_file)

    def run(self, clock: Clock | None = None, **options: Any) -> dict[str, Any]:
        config = self.config()
        return verify.run(config, clock=clock, journal=Journal(config.journal_file, clock), **options)

    def status(self) -> dict[str, Any]:
        found = verify.status(self.config())
        assert found is not None
        return found


@pytest.fixture
def verifier(world: World, tmp_path: Path) -> Verifier:
    return Verifier(world, tmp_path / "verifier")


def place(world: World, generation: str) -> Path:
    return world.store / "fluxhero/production/generations" / generation


def damage(world: World, generation: str) -> None:
    file = place(world, generation) / "db-trades.sqlite.zst.age"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.chmod(0o600)
    file.write_bytes(data)


def proven(world: World) -> list[str]:
    config = load(world.config_file)
    found = overview.overview(config, verify_proofs=True)["generations"]
    return sorted(item["id"] for item in found if item["proven_by"])


def results(report: dict[str, Any]) -> list[tuple[str, str]]:
    return [(item["generation"], item["result"]) for item in report["outcomes"]]


def history(world: World, days: int) -> list[str]:
    """One generation a day, the last one today."""
    return [world.create(clock=At(days=-day))["id"] for day in reversed(range(days))]


def test_the_newest_and_one_older_are_proven_and_count_on_the_host(world: World, verifier: Verifier) -> None:
    ids = history(world, 3)
    report = verifier.run(seed=1)
    assert (report["result"], report["exit_code"]) == ("ok", 0), verify.text(report)
    [newest, older] = report["outcomes"]
    assert (newest["generation"], newest["reason"], newest["result"]) == (ids[-1], "newest", "proven")
    assert older["reason"] == "older" and older["generation"] in ids[:-1]
    assert proven(world) == sorted([newest["generation"], older["generation"]])
    [facts] = report["origins"]
    assert (facts["newest"], facts["newest_proven"], facts["never_proven"]) == (ids[-1], ids[-1], 1)
    assert Path(newest["evidence_file"]).exists() and Path(newest["evidence_file"] + ".sig").exists()
    assert [path.name for path in (verifier.top / "state/verify").iterdir()] == ["prove.lock"]
    ended = Journal(verifier.top / "state/journal.jsonl").read("verify")[-1]
    assert (ended["event"], ended["result"], ended["exit_code"]) == ("end", "ok", 0)
    again = verifier.run(older=5, seed=2, clock=At(minutes=1))
    assert again["exit_code"] == 0
    assert proven(world) == sorted(ids), "what was left comes next"
    assert verifier.status()["result"] == "ok"


def test_a_seed_repeats_the_choice(world: World, verifier: Verifier, tmp_path: Path) -> None:
    history(world, 5)
    verifier.section["signing_key_file"] = str(tmp_path / "none")
    verifier.section["proof_credentials_file"] = None
    keep = proof._keep
    proof._keep = lambda *_args: {"written_back": False, "write_back_error": "", "key": "", "evidence_file": ""}
    try:
        chosen = {seed: results(verifier.run(seed=seed, older=2)) for seed in (1, 2, 3, 4)}
        assert chosen[3] == results(verifier.run(seed=3, older=2))
        assert len({tuple(item) for item in chosen.values()}) > 1
    finally:
        proof._keep = keep


def test_a_damaged_generation_is_told_and_never_counts(world: World, verifier: Verifier) -> None:
    ids = history(world, 3)
    damage(world, ids[-1])
    report = verifier.run(older=0)
    assert results(report) == [(ids[-1], "failed"), (ids[-2], "proven")], "the next newest makes up for it"
    assert (report["result"], report["exit_code"]) == ("failed", 5)
    assert report["outcomes"][0]["error"]["subject"].endswith(f"{ids[-1]}/db-trades.sqlite.zst.age")
    assert proven(world) == [ids[-2]]
    assert "DOES NOT HOLD" in verify.text(report)
    journal = Journal(verifier.top / "state/journal.jsonl")
    ended = journal.read("verify")[-1]
    assert (ended["result"], ended["failed"]) == ("failed", [f"fluxhero/production/{ids[-1]}"])
    assert [entry["result"] for entry in journal.read("prove") if entry["event"] == "end"] == ["failed", "ok"]
    # It stays in the status, though a newer one holds now.
    newer = world.create(clock=At(hours=1))["id"]
    report = verifier.run(older=0, clock=At(hours=2))
    assert results(report) == [(newer, "proven")]
    assert report["exit_code"] == 3
    [standing] = verifier.status()["failed"]
    assert (standing["generation"], standing["error"]["error"]) == (ids[-1], "IntegrityError")
    # Until it is gone.
    shutil.rmtree(place(world, ids[-1]))
    assert verifier.run(older=0, clock=At(hours=2))["exit_code"] == 0
    assert verifier.status()["failed"] == []


def test_a_repaired_generation_leaves_the_status(world: World, verifier: Verifier) -> None:
    [identity] = history(world, 1)
    damage(world, identity)
    assert verifier.run()["exit_code"] == 5
    damage(world, identity)
    assert verifier.run()["exit_code"] == 0
    assert verifier.status()["failed"] == []


def test_a_forged_generation_does_not_hide_the_true_newest(world: World, verifier: Verifier) -> None:
    [true] = history(world, 1)
    for forged in (utc_text(At(hours=12).now()), "2099-01-01T00:00:00Z"):
        name = forged.replace("-", "").replace(":", "") + "-abcdef"
        shutil.copytree(place(world, true), place(world, name))
    report = verifier.run(older=0)
    assert [result for _id, result in results(report)] == ["failed", "proven"]
    assert report["outcomes"][1]["generation"] == true
    assert any("claims to come from the future" in problem for problem in report["problems"])
    assert report["exit_code"] == 5


def test_a_generation_that_cannot_be_read_does_not_hide_the_next(
    world: World, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, newest = history(world, 2)
    really = verify.open_generation

    def away(store: Any, service: str, host: str, generation: str, **options: Any) -> Any:
        if generation == newest:
            raise StoreError("the store ends the connection", subject=generation)
        return really(store, service, host, generation, **options)

    monkeypatch.setattr(verify, "open_generation", away)
    report = verifier.run(older=0)
    assert results(report) == [(newest, "unreachable"), (older, "proven")]
    assert report["exit_code"] == 6
    # With the store away as a whole, one attempt is enough.
    monkeypatch.setattr(verify._Origin, "_answers", lambda _self: False)
    assert results(verifier.run(older=0, clock=At(minutes=1))) == [(newest, "unreachable")]


def test_what_fails_because_the_process_ends_says_nothing(world: World, verifier: Verifier) -> None:
    """SQLite turns the exception of a signal into an error of its own."""
    [identity] = history(world, 1)
    damage(world, identity)
    with pytest.raises(IntegrityError):
        verifier.run(stopped=lambda: True)
    assert verifier.status()["result"] == "never"


def test_one_host_that_fails_does_not_stop_the_others(world: World, verifier: Verifier) -> None:
    [identity] = history(world, 1)
    verifier.section["origins"] = [
        {"service": "fluxhero", "host": "lost", "signer": "fluxhero@lost"},
        *verifier.section["origins"],
        {"service": "other", "host": "production", "signer": "other@production"},
    ]
    report = verifier.run()
    assert results(report) == [(identity, "proven")]
    assert report["exit_code"] == 3
    assert [problem for problem in report["problems"] if "no committed generation" in problem] == report["problems"]
    assert len(report["problems"]) == 2
    assert verifier.run(hosts=["production"])["outcomes"]
    with pytest.raises(InputError, match="does not verify standby"):
        verifier.run(hosts=["standby"])


def test_nothing_to_prove_is_a_failure(world: World, verifier: Verifier) -> None:
    assert verifier.run()["exit_code"] == 1
    assert verifier.status()["result"] == "failed"


def test_a_store_that_is_away_is_told(world: World, verifier: Verifier) -> None:
    history(world, 1)
    (world.store / ".fluxmaint-target").unlink()
    report = verifier.run()
    assert (report["exit_code"], report["origins"][0]["reachable"]) == (6, False)


def test_old_generations_for_other_keys_are_passed_over(world: World, verifier: Verifier) -> None:
    recipients = world.keys / "recipients.txt"
    before = recipients.read_text()
    stranger = next(
        line.rpartition(" ")[2]
        for line in (world.keys / "stranger.key").read_text().splitlines()
        if line.startswith("# public key")
    )
    recipients.write_text(before.splitlines()[1] + "\n" + stranger + "\n")
    history(world, 1)
    old = world.create(clock=At(days=-3))["id"]
    report = verifier.run()
    assert [result for _id, result in results(report)] == ["unreadable"]
    assert report["exit_code"] == 1
    assert "add its public key to the recipients" in report["outcomes"][0]["error"]["remedy"]
    recipients.write_text(before)
    newest = world.create(clock=At(hours=1))["id"]
    for hours in (2, 3):
        report = verifier.run(clock=At(hours=hours))
        assert results(report) == [(newest, "proven")]
        assert (report["exit_code"], report["origins"][0]["unreadable"]) == (0, 2)
    asked = verifier.run(generation=old)
    assert (results(asked), asked["exit_code"]) == ([(old, "unreadable")], 1)


def test_the_time_that_is_up_is_told(world: World, verifier: Verifier) -> None:
    history(world, 3)

    class Hasty(Clock):
        """A clock on which a proof takes an hour."""

        passed = 0.0

        def monotonic(self) -> float:
            return super().monotonic() + self.passed

    clock = Hasty()
    verifier.section.update(budget_s=3000, older=2)

    prove = proof.prove

    def slow(*args: Any, **options: Any) -> dict[str, Any]:
        result = prove(*args, **options)
        clock.passed += 3600
        return result

    proof.prove = slow
    try:
        report = verifier.run(clock=clock)
    finally:
        proof.prove = prove
    assert [result for _id, result in results(report)] == ["proven"]
    assert report["exit_code"] == 3
    assert any("2 older generations wait" in problem for problem in report["problems"])


def test_a_host_does_not_prove_itself(world: World, verifier: Verifier) -> None:
    [identity] = history(world, 1)
    verifier.section.update(verifier="production", signing_key_file=str(world.keys / "signing_ed25519"))
    with pytest.raises(ConfigError, match="cannot prove its own"):
        verifier.run()
    options = {**world.reading(), "work_dir": world.top / "work"}
    result = proof.prove(
        world.open(),
        "fluxhero",
        "production",
        identity,
        **options,
        verifier="production",
        signing_key_file=world.keys / "signing_ed25519",
    )
    assert (result["result"], result["written_back"]) == ("proven", False)
    assert "do not count" in result["write_back_error"]
    # Nor does it count when the host writes it down all the same.
    key = result["key"]
    data = json.dumps({name: value for name, value in result.items() if name != "key"}).encode()
    from fluxmaint.backup import crypto

    store = world.open()
    store.put_new(key + ".sig", crypto.sign(data, world.keys / "signing_ed25519", crypto.PROOF_NAMESPACE))
    store.put_new(key, data)
    assert proven(world) == []


def test_a_key_for_proofs_signs_nothing_else(world: World, verifier: Verifier) -> None:
    """As the role writes it into the allowed signers."""
    history(world, 1)
    signers = world.keys / SIGNERS
    public = (world.keys / "verifier_ed25519.pub").read_text().strip()
    lines = [line for line in signers.read_text().splitlines() if public not in line]
    signers.write_text("\n".join([*lines, f'fluxhero@staging namespaces="fluxmaint-proof" {public}']) + "\n")
    assert verifier.run()["exit_code"] == 0
    assert len(proven(world)) == 1
    signers.write_text("\n".join([*lines, f'fluxhero@staging namespaces="fluxmaint-manifest" {public}']) + "\n")
    assert proven(world) == []


def test_an_identity_that_others_can_read_is_refused(world: World, verifier: Verifier) -> None:
    (world.keys / "escrow.key").chmod(0o644)
    with pytest.raises(PreconditionError, match="read by others"):
        verifier.run()
    (world.keys / "escrow.key").unlink()
    with pytest.raises(PreconditionError, match="no identity"):
        verifier.run()


def test_two_verifications_at_a_time_are_refused(world: World, verifier: Verifier) -> None:
    history(world, 1)
    with Lease(verifier.top / "run/verify.lock", purpose="verify"), pytest.raises(LeaseError):
        verifier.run()


def test_proofs_are_written_with_a_key_for_proofs_alone(
    world: World, verifier: Verifier, object_store: ObjectStore
) -> None:
    identity = world.create(targets=[object_store.target("verify")])["id"]
    verifier.section["target"] = object_store.target("verify", identity="reader")
    report = verifier.run()
    assert report["exit_code"] == 3, "read access alone does not write proofs"
    assert "AccessDenied" in report["outcomes"][0]["write_back_error"]
    assert report["origins"][0]["newest_proven"] == ""
    prover = object_store.credentials_file("prover")
    verifier.section["proof_credentials_file"] = str(prover)
    report = verifier.run()
    assert report["exit_code"] == 0, verify.text(report)
    assert proven(world) == [identity]
    store = open_store(load(verifier.config_file).require_verify().target, write_credentials_file=prover)
    with pytest.raises(AccessDenied):
        store.put_new(f"fluxhero/production/generations/{identity}/x", b"x")
    client = object_store.client("prover")
    for forbidden in (
        lambda: client.get_object(Bucket=BUCKET, Key=f"verify/fluxhero/production/generations/{identity}/COMMIT"),
        lambda: client.delete_object(Bucket=BUCKET, Key=f"verify/{report['outcomes'][0]['key']}"),
        lambda: client.list_objects_v2(Bucket=BUCKET),
    ):
        with pytest.raises(Exception, match=r"Access ?Denied"):
            forbidden()


RUN = """
import sys
sys.path.insert(0, sys.argv[1])
import tests.conftest
from fluxmaint.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


def start(*arguments: str) -> subprocess.Popen[str]:
    project = str(Path(__file__).resolve().parents[3])
    return subprocess.Popen(
        [sys.executable, "-c", RUN, project, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_verification_leaves_no_plain_data(world: World, verifier: Verifier, number: signal.Signals) -> None:
    world.rows(60000)
    history(world, 1)
    verifier.config()
    work = verifier.top / "state/verify"
    process = start("verify", "--config", str(verifier.config_file))
    deadline = time.monotonic() + 30
    while not list(work.glob("prove-*/databases/*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, number)
    process.communicate(timeout=30)
    if number == signal.SIGTERM:
        assert process.returncode == 128 + number
    else:
        assert list(work.glob("prove-*")), "killed with plain data at hand"
        swept = start("verify", "--sweep", "--config", str(verifier.config_file))
        assert swept.communicate(timeout=30)[0].startswith("removed")
    assert list(work.glob("prove-*")) == []
    assert verifier.status()["result"] == "never", "an end that was asked for says nothing about a generation"
    assert proven(world) == []


def test_copies_of_proofs_do_not_pile_up(world: World, verifier: Verifier) -> None:
    world.create()
    evidence = verifier.top / "state/evidence"
    verifier.run(older=0)
    first = {path.name for path in evidence.iterdir()}
    assert len(first) == 2, "the proof and its signature"
    for name in ("notes.txt", "proof-of-address.pdf", "proof-20200101T000000Z-aaaaaa-of-my-own.json"):
        (evidence / name).write_text("somebody's")
    others = {path.name for path in evidence.iterdir()} - first
    verifier.run(older=0, clock=At(days=400, hours=-1))
    assert first < {path.name for path in evidence.iterdir()}
    verifier.section["evidence_days"] = 30
    verifier.run(older=0, clock=At(days=429))
    left = {path.name for path in evidence.iterdir()}
    assert not first & left
    assert len(left - others) == 4 and others < left


def test_a_proof_that_was_killed_this_very_second_is_not_in_the_way(world: World) -> None:
    class Still(Clock):
        def now(self) -> datetime:
            return moment

    made = world.create()["id"]
    moment = datetime.now(timezone.utc)
    key = layout.proof("fluxhero", "production", made, moment, "staging")
    world.open().put_new(key + ".sig", b"of a proof that never came")
    result = world.prove(clock=Still())
    assert (result["written_back"], result["write_back_error"]) == (True, "")
    signers = world.keys / "allowed_signers"
    assert proof.verified(world.open(), "fluxhero", "production", made, allowed_signers_file=signers)
