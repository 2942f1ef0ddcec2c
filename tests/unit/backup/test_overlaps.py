"""Places that get into each other's way are refused by real paths, and both are named."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.backup.overlaps import overlaps, require_apart
from fluxmaint.core.config import parse
from fluxmaint.core.errors import ConfigError

Change = Callable[[dict[str, Any], Path], Any]


def document(top: Path) -> dict[str, Any]:
    root = top / "opt/fluxhero"
    return {
        "format": 1,
        "service": "fluxhero",
        "host": "production",
        "root": str(root),
        "user": "fluxhero",
        "group": "fluxhero",
        "units": [],
        "databases": [{"name": "trades", "path": f"{root}/data/trades.db"}],
        "config_files": [f"{root}/.env"],
        "logs": {"directory": f"{root}/logs"},
        "cache": {"directory": f"{root}/data/cache", "patterns": ["*"]},
        "system": {"release_link": f"{root}/current", "exclude": ["spool"], "paths": ["/etc/systemd/system/a.service"]},
        "health": {},
        "backup": {
            "signer": "fluxhero@production",
            "staging_dir": f"{top}/state/staging",
            "targets": [{"name": "near", "type": "path", "path": f"{top}/near"}],
        },
        "verify": {
            "verifier": "staging",
            "target": {"name": "near", "type": "path", "path": f"{top}/near"},
            "work_dir": f"{top}/state/verify",
            "origins": [{"service": "fluxhero", "host": "other", "signer": "fluxhero@other"}],
        },
        "state_dir": f"{top}/state",
        "run_dir": f"{top}/run",
    }


def found(top: Path, change: Change) -> list[str]:
    changed = document(top)
    change(changed, top)
    return [text.replace(str(top), "") for text in overlaps(parse(changed))]


def target(path: str) -> Change:
    return lambda document, top: document["backup"]["targets"].append(
        {"name": "far", "type": "path", "path": f"{top}{path}"}
    )


def second(path: str) -> Change:
    return lambda document, top: document["databases"].append({"name": "second", "path": f"{top}{path}"})


def staging(path: str) -> Change:
    return lambda document, top: document["backup"].update(staging_dir=f"{top}{path}")


def test_what_is_apart_is_accepted_and_need_not_exist(tmp_path: Path) -> None:
    assert found(tmp_path, lambda document, top: None) == []
    # Databases and configuration files among logs or cache files are left out there, not refused.
    assert found(tmp_path, second("/opt/fluxhero/logs/second.db")) == []
    assert found(tmp_path, lambda d, top: d["config_files"].append(f"{top}/opt/fluxhero/data/cache/conf")) == []
    assert found(tmp_path, lambda d, top: d["cache"].update(directory=f"{top}/opt/fluxhero/logs/x")) == []
    assert found(tmp_path, lambda d, top: d["logs"].update(directory=f"{top}/opt/fluxhero/data/cache/x")) == []
    assert found(tmp_path, target("/state/target")) == []
    # A name that full generations leave out leads to it.
    assert found(tmp_path, target("/opt/fluxhero/current/spool/far")) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (second("/opt/fluxhero/data/trades.db"), ["database second /opt/fluxhero/data/trades.db", "database trades"]),
        (second("/opt/fluxhero/data/trades.db-wal"), ["database second", "belongs to database trades"]),
        (second("/opt/fluxhero/.env"), ["config_files /opt/fluxhero/.env is the same file as database second"]),
        (lambda d, top: d["config_files"].append(f"{top}/opt/fluxhero/.env"), ["config_files", "is the same file as"]),
        (lambda d, top: d["system"]["paths"].append(f"{top}/opt/fluxhero/.env"), ["system.paths", "config_files"]),
        (lambda d, top: d["system"]["paths"].append(d["system"]["paths"][0]), ["system.paths", "is the same as"]),
        (lambda d, top: d["cache"].update(directory=f"{top}/opt/fluxhero/logs"), ["cache.directory", "same as logs"]),
        (target("/near"), ["target far /near is the same as target near /near"]),
        (target("/near/below"), ["target far /near/below is inside target near /near"]),
        (target("/"), ["target near /near is inside target far"]),
        (target("/state/staging/far"), ["target far /state/staging/far", "inside backup.staging_dir /state/staging"]),
        (target("/opt/fluxhero/logs/far"), ["target far", "inside logs.directory", "contain the former ones"]),
        (target("/opt/fluxhero/data/cache"), ["target far", "inside cache.directory"]),
        (target("/opt/fluxhero/current/far"), ["target far", "inside system.release_link"]),
        (target("/opt"), ["target far /opt contains database trades"]),
        (staging("/opt/fluxhero/logs/staging"), ["backup.staging_dir", "inside logs.directory"]),
        (staging("/opt/fluxhero/data"), ["backup.staging_dir /opt/fluxhero/data contains database trades"]),
        (staging("/state"), ["state_dir /state is inside backup.staging_dir /state"]),
        (staging("/state/verify/x"), ["backup.staging_dir /state/verify/x is inside verify.work_dir"]),
        (lambda d, top: d.update(state_dir=f"{top}/opt/fluxhero/data"), ["state_dir", "contains database trades"]),
        (lambda d, top: d.update(run_dir=f"{top}/opt/fluxhero"), ["run_dir", "contains config_files"]),
        (lambda d, top: d.update(state_dir=f"{top}/near/state"), ["state_dir", "is inside target near"]),
        (lambda d, top: d.update(run_dir=f"{top}/opt/fluxhero/logs/run"), ["run_dir", "inside logs.directory"]),
    ],
)
def test_what_is_not_apart_is_refused_and_both_are_named(tmp_path: Path, change: Change, said: list[str]) -> None:
    sentences = found(tmp_path, change)
    assert any(all(part in sentence for part in said) for sentence in sentences), sentences
    changed = document(tmp_path)
    change(changed, tmp_path)
    with pytest.raises(ConfigError) as caught:
        require_apart(parse(changed))
    assert len(caught.value.facts["mistakes"]) == len(sentences)


def test_symbolic_links_are_seen_through(tmp_path: Path) -> None:
    root = tmp_path / "opt/fluxhero"
    (root / "data").mkdir(parents=True)
    (root / "data/trades.db").touch()
    (root / "alias.db").symlink_to("data/trades.db")
    (tmp_path / "near").mkdir()
    os.symlink(tmp_path / "near", tmp_path / "far")
    os.symlink(root / "data", tmp_path / "spool")
    [twice] = found(tmp_path, second("/opt/fluxhero/alias.db"))
    assert "database second /opt/fluxhero/alias.db (really /opt/fluxhero/data/trades.db)" in twice
    [same] = found(tmp_path, target("/far"))
    assert "target far /far (really /near)" in same
    assert any("contains database trades" in text for text in found(tmp_path, staging("/spool")))
