"""Names of generations, drift, and what a listing tells."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from fluxmaint.backup import catalog, checks, layout, staging
from fluxmaint.core.errors import InputError
from fluxmaint.store.path import PathStore

if TYPE_CHECKING:
    from pathlib import Path


def test_d10_ids_are_utc_and_never_repeat() -> None:
    summer, winter = timezone(timedelta(hours=2)), timezone(timedelta(hours=1))
    before = datetime(2026, 10, 25, 2, 30, tzinfo=summer)
    after = datetime(2026, 10, 25, 2, 30, tzinfo=winter)
    assert layout.new_id(before)[:16] == "20261025T003000Z"
    assert layout.new_id(after)[:16] == "20261025T013000Z"
    assert layout.new_id(before) != layout.new_id(before)
    assert layout.id_time(layout.new_id(after)) == after


@pytest.mark.parametrize(
    "text", ["", "latest", "20261123T020000Z", "20261123T020000Z-XYZ123", "../20261123T020000Z-7f3a2c"]
)
def test_what_is_no_id(text: str) -> None:
    assert not layout.is_id(text)
    with pytest.raises(InputError):
        layout.id_time(text)


def test_drift() -> None:
    before = {"trades": 100, "empty": 0, "gone": 5, "grown": 1}
    now = {"trades": 80, "empty": 0, "grown": 50}
    assert checks.drift(before, now, 0.2) == ["gone had 5 rows and has 0"]
    assert checks.drift(before, now, 0.19) == ["gone had 5 rows and has 0", "trades had 100 rows and has 80"]
    assert checks.drift(before, now, 1) == []


def test_a_listing_tells_state_kind_size_and_proofs(tmp_path: Path) -> None:
    (tmp_path / ".fluxmaint-target").touch()
    store = PathStore("local", tmp_path)
    first, second = "20261122T020000Z-000001", "20261123T020000Z-000002"
    base = "fluxhero/production/"
    for name in ("db-trades.sqlite.zst.age", "system.tar.zst.age", "COMMIT"):
        store.put_new(f"{base}generations/{first}/{name}", b"1234")
    store.put_new(f"{base}generations/{second}/db-trades.sqlite.zst.age", b"1")
    store.put_new(f"{base}generations/not-an-id/COMMIT", b"1")
    store.put_new(f"{base}proofs/{first}/20261122T040000Z-staging.json", b"{}")
    store.put_new(f"{base}proofs/{first}/20261122T040000Z-staging.json.sig", b"-")
    store.put_new(f"fluxhero/other/generations/{second}/COMMIT", b"1")
    newer, older = catalog.list_generations(store, "fluxhero", "production")
    assert (newer.id, newer.state, newer.kind, newer.proven_by) == (second, "orphan", "daily", [])
    assert (older.id, older.state, older.kind, older.bytes, older.objects) == (first, "committed", "full", 12, 3)
    assert (older.proven_by, older.proven_at) == (["staging"], "2026-11-22T04:00:00Z")
    assert older.age_s(datetime(2026, 11, 22, 2, 1, tzinfo=timezone.utc)) == 60
    found = catalog.candidates(store, "fluxhero", "production", now=datetime(2026, 11, 22, 2, 1, tzinfo=timezone.utc))
    assert found.ids == [first]


def test_unfinished_staging_is_removed_and_ready_is_kept(tmp_path: Path) -> None:
    ready = staging.Staged.begin(tmp_path, "20261122T020000Z-000001")
    ready.finish({"MANIFEST.json": b"{}"})
    staging.Staged.begin(tmp_path, "20261123T020000Z-000002")
    (tmp_path / "unrelated").mkdir()
    assert staging.clear_unfinished(tmp_path) == ["20261123T020000Z-000002"]
    assert [staged.id for staged in staging.ready(tmp_path)] == ["20261122T020000Z-000001"]
    assert (tmp_path / "unrelated").is_dir()
    assert staging.bound(tmp_path, most=1) == []
    assert staging.bound(tmp_path, most=0) == ["20261122T020000Z-000001"]
