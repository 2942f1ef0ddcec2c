"""A damaged, incomplete, foreign or misplaced generation is refused, by the name of the object, before any use."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from fluxmaint.backup import catalog, crypto, generation, layout, proof
from fluxmaint.core.clock import parse_utc
from fluxmaint.core.errors import EngineError, InputError, IntegrityError, PreconditionError
from fluxmaint.store.base import AccessDenied

from tests.support.seaweed import BUCKET, ObjectStore
from tests.support.world import World

if TYPE_CHECKING:
    from pathlib import Path


class Offsite:
    """One committed generation in the object store, and ways to damage it."""

    def __init__(self, world: World, server: ObjectStore, prefix: str) -> None:
        self.world = world
        self.server = server
        self.prefix = prefix
        self.id = world.create(targets=[server.target(prefix)])["id"]
        self.base = f"fluxhero/production/generations/{self.id}/"

    def get(self, name: str) -> bytes:
        key = f"{self.prefix}/{self.base}{name}"
        return self.server.client().get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def put(self, name: str, data: bytes) -> None:
        """Put another content in the place of an object, as only who has the server's disks can: for good."""
        self.server.client().put_object(Bucket=BUCKET, Key=f"{self.prefix}/{self.base}{name}", Body=data)
        self.server.destroy(f"{self.prefix}/{self.base}{name}", keep_newest=True)

    def delete(self, name: str) -> None:
        self.server.destroy(f"{self.prefix}/{self.base}{name}")

    def manifest(self, change: Any, key: str = "signing") -> None:
        """Put a changed manifest, signed and committed as a thief of the upload key could."""
        document = json.loads(self.get("MANIFEST.json"))
        change(document)
        data = json.dumps(document).encode()
        self.put("MANIFEST.json", data)
        signature = crypto.sign(data, self.world.keys / f"{key}_ed25519", crypto.MANIFEST_NAMESPACE)
        self.put("MANIFEST.json.sig", signature)
        self.put("COMMIT", hashlib.sha256(data).hexdigest().encode() + b"\n")

    def refused(self, dest: Path, subject: str, **options: Any) -> EngineError:
        with pytest.raises(EngineError) as caught:
            self.world.fetch(dest, self.id, target="offsite", **options)
        assert caught.value.subject == subject, str(caught.value)
        assert subject in str(caught.value)
        kept = [path.name for path in dest.rglob("*") if path.is_file()] if dest.exists() else []
        assert not any(name.endswith((".partial", ".tar")) for name in kept), kept
        return caught.value


@pytest.fixture
def offsite(world: World, object_store: ObjectStore, request: pytest.FixtureRequest) -> Offsite:
    name = hashlib.sha256(request.node.name.encode()).hexdigest()[:10]
    return Offsite(world, object_store, f"refuse-{name}")


@pytest.mark.parametrize("part", ["db-trades.sqlite.zst.age", "config.tar.zst.age", "logs.tar.zst.age"])
def test_one_flipped_byte(offsite: Offsite, tmp_path: Path, part: str) -> None:
    data = bytearray(offsite.get(part))
    data[len(data) // 2] ^= 1
    offsite.put(part, bytes(data))
    error = offsite.refused(tmp_path / "out", offsite.base + part)
    assert isinstance(error, IntegrityError)
    assert "not what the manifest describes" in error.message
    left = [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()]
    if part.startswith("db-"):
        assert "trades.sqlite" not in left


def test_a_truncated_object(offsite: Offsite, tmp_path: Path) -> None:
    offsite.put("db-trades.sqlite.zst.age", offsite.get("db-trades.sqlite.zst.age")[:-1])
    offsite.refused(tmp_path / "out", offsite.base + "db-trades.sqlite.zst.age")


def test_a_missing_object(offsite: Offsite, tmp_path: Path) -> None:
    offsite.delete("logs.tar.zst.age")
    error = offsite.refused(tmp_path / "out", offsite.base + "logs.tar.zst.age")
    assert "missing" in error.message
    assert not (tmp_path / "out/databases").exists(), "what is missing is found before anything is fetched"


def test_without_commit_there_is_no_backup(offsite: Offsite, tmp_path: Path) -> None:
    offsite.delete("COMMIT")
    error = offsite.refused(tmp_path / "out", offsite.base + "COMMIT")
    assert "never completed, it is no backup" in error.message
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="no committed generation"):
        offsite.world.fetch(tmp_path / "out", "latest", target="offsite")
    listed = generation.list_generations(offsite.world.open("offsite"), "fluxhero", "production")
    assert [(item.id, item.state) for item in listed] == [(offsite.id, catalog.ORPHAN)]


def test_a_manifest_that_was_not_committed(offsite: Offsite, tmp_path: Path) -> None:
    offsite.put("MANIFEST.json", offsite.get("MANIFEST.json").replace(b'"daily"', b'"full"'))
    offsite.refused(tmp_path / "out", offsite.base + "MANIFEST.json")


def test_a_signature_over_something_else(offsite: Offsite, tmp_path: Path) -> None:
    data = offsite.get("MANIFEST.json").replace(b'"daily"', b'"full"')
    offsite.put("MANIFEST.json", data)
    offsite.put("COMMIT", hashlib.sha256(data).hexdigest().encode())
    error = offsite.refused(tmp_path / "out", offsite.base + "MANIFEST.json.sig")
    assert "does not fit" in error.message


def test_a_foreign_signature(offsite: Offsite, tmp_path: Path) -> None:
    offsite.manifest(lambda document: None, key="foreign")
    error = offsite.refused(tmp_path / "out", offsite.base + "MANIFEST.json.sig")
    assert "foreign key" in error.message
    offsite.manifest(lambda document: None, key="verifier")  # allowed to sign, but not as this host
    offsite.refused(tmp_path / "out", offsite.base + "MANIFEST.json.sig")


def test_a_signer_that_nobody_allows(offsite: Offsite, tmp_path: Path) -> None:
    offsite.refused(tmp_path / "out", offsite.base + "MANIFEST.json.sig", signer="fluxhero@elsewhere")


def test_an_old_generation_in_the_place_of_a_new_one(offsite: Offsite, tmp_path: Path) -> None:
    old = {name: offsite.get(name) for name in ("MANIFEST.json", "MANIFEST.json.sig", "COMMIT")}
    offsite.id = "20991231T235959Z-abcdef"
    offsite.base = f"fluxhero/production/generations/{offsite.id}/"
    for name, data in old.items():
        offsite.put(name, data)
    error = offsite.refused(tmp_path / "out", offsite.base + "MANIFEST.json")
    assert "in the place of" in error.message


def test_the_wrong_identity(offsite: Offsite, tmp_path: Path) -> None:
    stranger = offsite.world.keys / "stranger.key"
    error = offsite.refused(tmp_path / "out", offsite.base + "db-trades.sqlite.zst.age", identity_file=stranger)
    assert str(stranger) in str(error)
    secret = stranger.read_text().splitlines()[-1]
    assert secret not in str(error)
    assert not list((tmp_path / "out").rglob("*.sqlite"))


def test_an_identity_that_is_missing(offsite: Offsite, tmp_path: Path) -> None:
    with pytest.raises(PreconditionError, match=r"nobody\.key"):
        offsite.world.fetch(tmp_path / "out", target="offsite", identity_file=offsite.world.keys / "nobody.key")


def test_changed_instructions(offsite: Offsite, tmp_path: Path) -> None:
    offsite.put("RESTORE.txt", offsite.get("RESTORE.txt").replace(b"set -euo", b"rm -rf /; set -euo"))
    offsite.refused(tmp_path / "out", offsite.base + "RESTORE.txt")


def test_rows_that_differ_from_the_manifest(offsite: Offsite, tmp_path: Path) -> None:
    def lie(document: dict[str, Any]) -> None:
        document["databases"][0]["tables"]["trades"]["rows"] += 1

    offsite.manifest(lie)
    error = offsite.refused(tmp_path / "out", offsite.base + "db-trades.sqlite.zst.age")
    assert "rows of trades" in error.message


def test_an_invariant_is_asked_again(offsite: Offsite, tmp_path: Path) -> None:
    def stricter(document: dict[str, Any]) -> None:
        document["databases"][0]["invariants"][0]["expect"] = 1

    offsite.manifest(stricter)
    offsite.refused(tmp_path / "out", offsite.base + "db-trades.sqlite.zst.age")


def test_content_digests_are_compared(offsite: Offsite, tmp_path: Path) -> None:
    def lie(document: dict[str, Any]) -> None:
        document["databases"][0]["tables"]["trades"]["sha256"] = "0" * 64

    offsite.manifest(lie)
    with pytest.raises(IntegrityError, match="content of table trades"):
        offsite.world.prove(offsite.id, target="offsite", work_dir=tmp_path / "work")
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["prove.lock"]


def test_nothing_is_fetched_over_existing_files(world: World, tmp_path: Path) -> None:
    world.create()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/precious").write_text("keep")
    with pytest.raises(PreconditionError, match="not empty"):
        world.fetch(tmp_path / "out")
    assert (tmp_path / "out/precious").read_text() == "keep"


def test_only_the_parts_asked_for(world: World, tmp_path: Path) -> None:
    world.create()
    fetched = world.fetch(tmp_path / "out", parts=["config"])
    assert [file.part for file in fetched.files] == ["config"]
    assert not (tmp_path / "out/databases").exists()
    with pytest.raises(InputError, match="db-trades, config, logs, cache"):
        world.fetch(tmp_path / "other", parts=["system"])


def test_latest_and_before(world: World, tmp_path: Path) -> None:
    first = world.create()["id"]
    store = world.open()
    copied = world.store / "fluxhero/production/generations"
    for identity in ("20200101T000000Z-000001", "20210101T000000Z-000002"):
        shutil.copytree(copied / first, copied / identity)
    (copied / "20990101T000000Z-000003").mkdir()
    shutil.copy(copied / first / "MANIFEST.json", copied / "20990101T000000Z-000003")
    assert catalog.candidates(store, "fluxhero", "production").ids[0] == first
    before = parse_utc("2020-06-01T00:00:00Z")
    assert catalog.candidates(store, "fluxhero", "production", before=before).ids == ["20200101T000000Z-000001"]
    with pytest.raises(InputError, match="before 2019"):
        world.fetch(tmp_path / "out", "latest", before=parse_utc("2019-01-01T00:00:00Z"))


def test_a_proof_is_signed_and_counts_only_so(world: World, tmp_path: Path, object_store: ObjectStore) -> None:
    identity = world.create(targets=[object_store.target("proof", identity="uploader")])["id"]
    store = world.open("offsite")
    options: dict[str, Any] = {**world.reading(), "work_dir": tmp_path / "work", "verifier": "staging"}
    before = generation.list_generations(store, "fluxhero", "production")[0]
    assert before.proven_by == []
    result = proof.prove(
        store, "fluxhero", "production", **options, signing_key_file=world.keys / "verifier_ed25519"
    )
    assert (result["result"], result["generation"], result["written_back"]) == ("proven", identity, True)
    assert result["databases"]["trades"]["tables"]["trades"]["rows"] == 200
    after = generation.list_generations(store, "fluxhero", "production")[0]
    assert after.proven_by == ["staging"]
    signers = {"allowed_signers_file": world.keys / "allowed_signers"}
    assert len(proof.verified(store, "fluxhero", "production", identity, **signers)) == 1
    forged = layout.proof("fluxhero", "production", identity, parse_utc("2030-01-01T00:00:00Z"), "staging")
    data = json.dumps({**result, "verifier": "staging"}).encode()
    store.put_new(forged + ".sig", crypto.sign(data, world.keys / "foreign_ed25519", crypto.PROOF_NAMESPACE))
    store.put_new(forged, data)
    assert len(proof.verified(store, "fluxhero", "production", identity, **signers)) == 1
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["prove.lock"], "decrypted data is removed"


def test_a_reader_that_may_not_write_keeps_its_proof(world: World, tmp_path: Path, object_store: ObjectStore) -> None:
    world.create(targets=[object_store.target("reader")])
    world.config(targets=[object_store.target("reader", identity="reader")])
    store = world.open("offsite")
    with pytest.raises(AccessDenied):
        store.put_new("fluxhero/production/x", b"x")
    result = world.prove(target="offsite", evidence_dir=tmp_path / "evidence")
    assert (result["result"], result["written_back"]) == ("proven", False)
    assert "AccessDenied" in result["write_back_error"]
    kept = json.loads((tmp_path / "evidence").joinpath(result["evidence_file"]).read_text())
    assert kept["generation"] == result["generation"]
