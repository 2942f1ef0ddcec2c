"""Generations of every format ever written, committed with their keys: each is still read, proven and restored.

A failure here means that what users have in their stores can no longer be restored, or not as it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.backup import crypto, proof
from fluxmaint.backup.fetch import fetch, open_generation
from fluxmaint.backup.manifest import FORMAT
from fluxmaint.core.errors import IntegrityError
from fluxmaint.core.fsio import json_bytes
from fluxmaint.core.version import VERSION
from fluxmaint.store.path import PathStore

from tests.fixtures.make import contents, sums
from tests.support.typed import steps

pytestmark = pytest.mark.skipif(
    not (shutil.which("age") and shutil.which("zstd")), reason="the commands age and zstd are needed"
)

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
# Digests of each fixture's SHA256SUMS. A line is added with a new format; no line ever changes.
PINNED = {"format-1": "8d755d1ebd0af814cfa3b9e4301eaa1bc711268f25b227ba1976ee99038b5c5c"}
GENERATIONS = [
    (name, identity)
    for name in PINNED
    for identity in sorted(json.loads((FIXTURES / name / "expected.json").read_text(encoding="utf-8")))
]


def expected(name: str, identity: str) -> dict[str, Any]:
    """What the service held when the generation was taken, read from the service itself."""
    document: dict[str, Any] = json.loads((FIXTURES / name / "expected.json").read_text(encoding="utf-8"))
    wanted: dict[str, Any] = document[identity]
    return wanted


@pytest.fixture
def keys(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The fixture's keys, private as git cannot keep them."""
    directory = tmp_path / "keys"
    shutil.copytree(FIXTURES / request.node.callspec.params["name"] / "keys", directory)
    for file in directory.iterdir():
        file.chmod(0o600)
    return directory


def store(name: str) -> PathStore:
    return PathStore("fixture", FIXTURES / name / "store")


def reading(keys: Path, identity: str = "operator") -> dict[str, Any]:
    return {
        "identity_file": keys / f"{identity}.key",
        "allowed_signers_file": keys / "allowed_signers",
        "signer": "fluxhero@production",
    }


def test_every_format_has_its_fixture() -> None:
    assert sorted(PINNED) == sorted(path.name for path in FIXTURES.glob("format-*"))
    assert f"format-{FORMAT}" in PINNED


@pytest.mark.parametrize("name", PINNED)
def test_no_byte_of_a_fixture_changes(name: str) -> None:
    listed = (FIXTURES / name / "SHA256SUMS").read_bytes()
    assert hashlib.sha256(listed).hexdigest() == PINNED[name], "old fixtures never change; make one of a new format"
    assert sums(FIXTURES / name) == listed.decode(), "old fixtures never change: git checkout tests/fixtures"


def test_a_fixture_is_never_made_again() -> None:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "tests.fixtures.make"]
    done = subprocess.run(
        command, cwd=FIXTURES.parents[1], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "never made again" in done.stderr


@pytest.mark.parametrize(("name", "identity"), GENERATIONS)
@pytest.mark.parametrize("reader", ["operator", "escrow"])
def test_the_engine_restores_what_the_service_held(
    name: str, identity: str, reader: str, keys: Path, tmp_path: Path
) -> None:
    wanted = expected(name, identity)
    fetched = fetch(store(name), "fluxhero", "production", identity, tmp_path / "out", **reading(keys, reader))
    assert fetched.manifest.kind == wanted["kind"]
    assert sorted(record.name for record in fetched.manifest.databases) == sorted(wanted["databases"])
    for database, said in wanted["databases"].items():
        path = fetched.database(database)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == said["sha256"]
        assert {"path": str(said["path"]), "sha256": said["sha256"], **contents(path)} == said
    others = {file.entry.path: file for file in fetched.files if not file.part.startswith("db-")}
    assert sorted(path for path in others if not path.endswith("/packages.txt")) == sorted(wanted["files"])
    for path, said in wanted["files"].items():
        file = others[path]
        assert file.part == said["part"]
        if "leads_to" in said:
            assert file.path.is_symlink()
            there = os.path.normpath(Path(path).parent / os.readlink(file.path))
            assert there == said["leads_to"]
        else:
            assert hashlib.sha256(file.path.read_bytes()).hexdigest() == said["sha256"]
            assert (file.entry.mode, file.entry.owner) == (said["mode"], said["owner"])


@pytest.mark.parametrize(("name", "identity"), GENERATIONS)
def test_its_proof_counts_and_it_can_be_proven_again(name: str, identity: str, keys: Path, tmp_path: Path) -> None:
    old = proof.verified(
        store(name), "fluxhero", "production", identity, allowed_signers_file=keys / "allowed_signers"
    )
    assert [item["verifier"] for item in old] == ["verifier"]
    new = proof.prove(
        store(name),
        "fluxhero",
        "production",
        identity,
        **reading(keys),
        work_dir=tmp_path / "work",
        verifier="today",
        write_back=False,
    )
    for field in ("generation", "kind", "manifest_sha256", "signed_by", "bytes", "files", "parts", "databases"):
        assert new[field] == old[0][field], field


@pytest.mark.parametrize("name", PINNED)
def test_the_newest_is_chosen(name: str, keys: Path) -> None:
    opened = open_generation(
        store(name),
        "fluxhero",
        "production",
        allowed_signers_file=keys / "allowed_signers",
        signer="fluxhero@production",
    )
    assert opened.manifest.id == max(identity for other, identity in GENERATIONS if other == name)


def by_hand(fixture: Path, identity: str, keys: Path, work: Path) -> Path:
    """Type what RESTORE.txt says up to the unpacked files; returns their directory."""
    text = (fixture / f"store/fluxhero/production/generations/{identity}/RESTORE.txt").read_text(encoding="utf-8")
    typed = steps(text)
    lines = [command for step in ("B", "From a directory", "C", "D") for command in typed[step]]
    paths = {
        "/path/to/work": work,
        "/path/to/target": fixture / "store",
        "/path/to/allowed_signers": keys / "allowed_signers",
        "/path/to/age.key": keys / "escrow.key",
    }
    for example, path in paths.items():
        lines = [line.replace(example, str(path)) for line in lines]
    script = "\n".join(f"{line}\n[ $? = 0 ] || exit 1" for line in lines)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "complete\n" in done.stdout and "genuine\n" in done.stdout and "Unpacked and checked" in done.stdout
    return work / f"generations/{identity}/restored"


@pytest.mark.parametrize(("name", "identity"), GENERATIONS)
def test_the_text_restores_what_the_service_held(name: str, identity: str, keys: Path, tmp_path: Path) -> None:
    wanted = expected(name, identity)
    restored = by_hand(FIXTURES / name, identity, keys, tmp_path / "work")
    for database, said in wanted["databases"].items():
        assert contents(restored / f"db-{database}.sqlite")["tables"] == said["tables"]
    for path, said in wanted["files"].items():
        file = restored / said["part"] / path.lstrip("/")
        if "sha256" in said:
            assert hashlib.sha256(file.read_bytes()).hexdigest() == said["sha256"]
        else:
            assert file.is_symlink()


@pytest.mark.parametrize("name", PINNED)
def test_a_key_of_somebody_else_is_refused(name: str, keys: Path, tmp_path: Path) -> None:
    subprocess.run(["age-keygen", "-o", keys / "stranger.key"], check=True, capture_output=True)
    with pytest.raises(IntegrityError, match=r"stranger\.key"):
        fetch(store(name), "fluxhero", "production", "latest", tmp_path / "out", **reading(keys, "stranger"))


def test_a_format_of_the_future_is_refused_by_its_number_and_still_restored_by_hand(tmp_path: Path) -> None:
    name, identity = GENERATIONS[-1]
    shutil.copytree(FIXTURES / name, tmp_path / name)
    keys = tmp_path / name / "keys"
    future = tmp_path / name / "store/fluxhero/production/generations" / identity
    document = json.loads((future / "MANIFEST.json").read_text(encoding="utf-8"))
    data = json_bytes({**document, "format": FORMAT + 1, "news": "what nobody knows yet"})
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys / "key"], check=True)
    (keys / "allowed_signers").write_text("fluxhero@production " + (keys / "key.pub").read_text())
    (future / "MANIFEST.json").write_bytes(data)
    (future / "MANIFEST.json.sig").write_bytes(crypto.sign(data, keys / "key", crypto.MANIFEST_NAMESPACE))
    (future / "COMMIT").write_text(hashlib.sha256(data).hexdigest() + "\n")
    copy = PathStore("copy", tmp_path / name / "store")
    with pytest.raises(IntegrityError) as refused:
        fetch(copy, "fluxhero", "production", identity, tmp_path / "out", **reading(keys))
    said = str(refused.value)
    assert f"format {FORMAT + 1}; fluxhero.maintenance {VERSION} reads format {FORMAT}" in said
    assert "update fluxhero.maintenance" in said and "RESTORE.txt" in said and f"{identity}/MANIFEST.json" in said
    restored = by_hand(tmp_path / name, identity, keys, tmp_path / "work")
    assert (restored / "db-trades.sqlite").is_file()


@pytest.mark.parametrize("document", ["generations/*/MANIFEST.json", "proofs/*/*.json"])
def test_the_specification_names_every_field(document: str) -> None:
    specification = (FIXTURES.parents[1] / "docs/backup-format.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_0-9]+)(?:\[\])?`", specification))

    def fields(value: Any) -> set[str]:
        if isinstance(value, list):
            return {name for item in value for name in fields(item)}
        if isinstance(value, dict):
            return {*value, *(name for item in value.values() for name in fields(item))}
        return set()

    found = set()
    for path in (FIXTURES / f"format-{FORMAT}/store/fluxhero/production").glob(document):
        found |= fields(json.loads(path.read_bytes()))
    tables = {"trades", "positions", "Märkte", "empty 'one'", "candles", "notes", "sqlite_sequence"}
    assert {"sha256", "service"} <= found
    assert sorted(found - named - tables - {"metrics", "archive"}) == []


def by_specification(path: Path, table: str, ordered: bool) -> str:
    """The digest of a table's content, computed from the specification alone."""

    def row(values: Any) -> bytes:
        return b"".join(map(value, values)) + b"\n"

    def value(item: Any) -> bytes:
        if item is None:
            return b"N"
        if isinstance(item, int):
            return b"I%d;" % item
        if isinstance(item, float):
            return b"R" + struct.pack(">d", item)
        data = item.encode() if isinstance(item, str) else item
        return (b"T" if isinstance(item, str) else b"B") + b"%d:" % len(data) + data

    quoted = '"' + table.replace('"', '""') + '"'
    with contextlib.closing(sqlite3.connect(path)) as con:
        cursor = con.execute(f"SELECT * FROM {quoted}" + " ORDER BY 1" * ordered)
        heading = row([column[0] for column in cursor.description])
        rows = [row(values) for values in cursor]
    if ordered:
        return hashlib.sha256(heading + b"".join(rows)).hexdigest()
    total = sum(int.from_bytes(hashlib.sha256(item).digest(), "big") for item in rows) % 2**256
    return hashlib.sha256(heading + b"*" + total.to_bytes(32, "big") + b"%d" % len(rows)).hexdigest()


@pytest.mark.parametrize("name", PINNED)
def test_the_content_digests_are_those_of_the_specification(name: str, keys: Path, tmp_path: Path) -> None:
    identity = max(identity for other, identity in GENERATIONS if other == name)
    restored = by_hand(FIXTURES / name, identity, keys, tmp_path / "work")
    manifest = json.loads((restored.parent / "MANIFEST.json").read_bytes())
    for record in manifest["databases"]:
        path = restored / f"db-{record['name']}.sqlite"
        with contextlib.closing(sqlite3.connect(path)) as con:
            rows = con.execute("SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema").fetchall()
        texts = [text.encode() for entry in sorted(rows) for text in entry]
        schema = hashlib.sha256(b"".join(b"%d:" % len(text) + text for text in texts)).hexdigest()
        assert record["schema_digest"] == schema
        for table, said in record["tables"].items():
            ordered = table in ("trades", "positions", "notes")  # those with an INTEGER PRIMARY KEY
            assert said["sha256"] == by_specification(path, table, ordered), table
