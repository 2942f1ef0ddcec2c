"""The manifest: what it holds comes back, and what does not fit is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fluxmaint.backup.manifest import Manifest
from fluxmaint.core.errors import InputError, IntegrityError

DIGEST = "ab" * 32


def file(path: str, **changes: Any) -> dict[str, Any]:
    entry = {
        "path": path,
        "owner": "fluxhero",
        "group": "fluxhero",
        "mode": "0640",
        "bytes": 5,
        "sha256": DIGEST,
        "modified": "2026-11-23T02:00:00Z",
        "link": "",
    }
    return {**entry, **changes}


def document() -> dict[str, Any]:
    part = {"bytes": 10, "sha256": DIGEST, "stored": {"bytes": 9, "sha256": DIGEST}, "compression": "zstd"}
    part.update({"encryption": "age", "recipients": ["SHA256:1"]})
    return {
        "format": 1,
        "id": "20261123T020000Z-7f3a2c",
        "kind": "daily",
        "service": "fluxhero",
        "host": "production",
        "contract_sha256": DIGEST,
        "release": None,
        "started_at": "2026-11-23T02:00:00Z",
        "finished_at": "2026-11-23T02:00:05Z",
        "tools": {"age": "1.1.1"},
        "recipients": ["SHA256:1"],
        "signer": "fluxhero@production",
        "parts": [
            {"name": "db-trades", "object": "db-trades.sqlite.zst.age", **part, "files": [file("/opt/trades.db")]},
            {"name": "logs", "object": "logs.tar.zst.age", **part, "files": [file("/a/log"), file("/a/b/log")]},
        ],
        "databases": [
            {
                "name": "trades",
                "path": "/opt/trades.db",
                "journal_mode": "delete",
                "page_size": 4096,
                "page_count": 8,
                "application_id": 0,
                "user_version": -1,
                "sqlite_version": "3.40.1",
                "schema_digest": DIGEST,
                "tables": {"trades": {"rows": 3, "sha256": ""}},
                "required": {"trades": ["id"]},
                "newest": "2026-11-23T01:59:59Z",
                "invariants": [{"name": "n", "sql": "SELECT 0", "expect": 0, "value": 0}],
                "snapshot": {"method": "pre-copy", "passes": 2, "duration_s": 1, "writer_stall_s": 0.1},
            }
        ],
        "cache": [
            {"file": file("/c/x"), "object": f"cache/{DIGEST}.zst.age", "stored": [{"bytes": 4, "sha256": DIGEST}]}
        ],
        "instructions": {"object": "RESTORE.txt", "bytes": 3, "sha256": DIGEST},
        "problems": [],
    }


def parse(changed: dict[str, Any]) -> Manifest:
    return Manifest.from_bytes(json.dumps(changed).encode(), subject="key/MANIFEST.json")


def test_it_comes_back_as_it_was() -> None:
    manifest = parse(document())
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    assert json.loads(manifest.to_bytes()) == document()
    assert manifest.part("logs").files[1].member == "a/b/log"
    assert manifest.part("logs").files[0].mode_bits == 0o640
    assert manifest.part_names() == ["db-trades", "logs", "cache"]
    with pytest.raises(InputError, match="db-trades, logs, cache"):
        manifest.part("system")


def change(path: str, value: Any) -> dict[str, Any]:
    changed = document()
    place: Any = changed
    *keys, last = [int(key) if key.isdigit() else key for key in path.split("/")]
    for key in keys:
        place = place[key]
    if value is KeyError:
        del place[last]
    else:
        place[last] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("format", 2, "format 2"),
        ("id", KeyError, "id"),
        ("surprise", 1, "surprise"),
        ("kind", "weekly", "kind"),
        ("started_at", "yesterday", "yesterday"),
        ("parts", [], "databases"),
        ("parts/0/object", "../db", "parts.db-trades.object"),
        ("parts/0/sha256", "xyz", "parts.db-trades.sha256"),
        ("parts/0/stored/bytes", "9", "parts[0].stored.bytes"),
        ("parts/0/stored/bytes", -1, "parts[0].stored.bytes"),
        ("parts/0/stored/bytes", True, "parts[0].stored.bytes"),
        ("parts/0/compression", "gzip", "compression"),
        ("parts/0/encryption", "none", "encryption"),
        ("parts/0/files", [], "parts.db-trades.files"),
        ("parts/1/files/0/path", "relative", "plain absolute path"),
        ("parts/1/files/0/path", "/a/../../etc/passwd", "plain absolute path"),
        ("parts/1/files/1/path", "/a/log", "twice"),
        ("parts/1/files/0/mode", "rw-r--r--", "mode"),
        ("databases/0/newest", [], "databases[0].newest"),
        ("databases/0/tables/trades/rows", None, "databases[0].tables.trades.rows"),
        ("databases/0/name", "other", "databases"),
        ("cache/0/object", "cache/other.zst.age", "cache.object"),
        ("cache/0/stored", [], "/c/x"),
        ("release", {"link": "/x"}, "release.directory"),
    ],
)
def test_what_does_not_fit_is_named(path: str, value: Any, named: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        parse(change(path, value))
    assert named in caught.value.message
    assert caught.value.subject == "key/MANIFEST.json"


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{", b"\xff\xfe"])
def test_what_is_no_manifest(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        Manifest.from_bytes(data)


@pytest.mark.parametrize("name", ["../../outside", "/etc", "a/b", "..", "a\0b", ""])
def test_a_name_that_leads_out_of_the_directory_of_a_fetch_is_refused(name: str) -> None:
    hostile = document()
    hostile["databases"][0]["name"] = name
    hostile["parts"][0]["name"] = f"db-{name}"
    with pytest.raises(IntegrityError, match="name"):
        parse(hostile)
    hostile = document()
    hostile["parts"][1]["name"] = name
    with pytest.raises(IntegrityError, match="name"):
        parse(hostile)


@pytest.mark.parametrize("name", ["databases", "cache"])
def test_an_archive_does_not_take_the_place_of_the_databases_or_the_cache(name: str) -> None:
    hostile = document()
    hostile["parts"][1]["name"] = name
    with pytest.raises(IntegrityError, match=r"parts\.name"):
        parse(hostile)


@pytest.mark.parametrize(("field", "value"), [("owner", "\ud800"), ("group", "a\0"), ("modified", "yesterday")])
def test_what_no_file_can_have_is_refused(field: str, value: str) -> None:
    hostile = document()
    hostile["parts"][1]["files"][0][field] = value
    with pytest.raises(IntegrityError):
        parse(hostile)
