from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.core.config import TargetPath, TargetS3, load, parse
from fluxmaint.core.errors import ConfigError, InputError

VALID: dict[str, Any] = {
    "format": 1,
    "service": "fluxhero",
    "host": "production",
    "root": "/opt/fluxhero",
    "user": "fluxhero",
    "group": "fluxhero",
    "units": ["fluxhero-backend.service"],
    "halt_file": "/opt/fluxhero/data/HALT",
    "databases": [
        {
            "name": "trades",
            "path": "/opt/fluxhero/data/trades.db",
            "tables": {"trades": ["id", "timestamp"]},
            "queries": {"newest": "SELECT max(timestamp) FROM trades"},
            "invariants": [{"name": "ids", "sql": "SELECT count(*) FROM trades WHERE id IS NULL", "expect": 0}],
        }
    ],
    "config_files": ["/opt/fluxhero/.env"],
    "logs": {"directory": "/opt/fluxhero/logs"},
    "cache": {"directory": "/opt/fluxhero/data/cache", "patterns": ["*.parquet"]},
    "system": {"release_link": "/opt/fluxhero/current", "exclude": ["venv"], "paths": []},
    "health": {"liveness": {"url": "http://127.0.0.1:8000/api/status", "json": {"status": "ACTIVE"}}},
}
BACKUP: dict[str, Any] = {
    "signer": "fluxhero@production",
    "targets": [
        {"name": "local", "type": "path", "path": "/var/backups/fluxhero"},
        {
            "name": "offsite",
            "type": "s3",
            "endpoint": "http://store:8333",
            "bucket": "backups",
            "prefix": "/a/",
            "credentials_file": "/etc/fluxmaint/keys/offsite.json",
        },
    ],
}


def mistakes(**changes: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse({**copy.deepcopy(VALID), **changes})
    return list(caught.value.facts["mistakes"])


def test_a_valid_configuration_gets_its_defaults() -> None:
    config = parse({**VALID, "backup": BACKUP})
    assert config.database("trades").busy_timeout_s == 5.0
    assert config.logs is not None
    assert config.logs.days == 7
    assert config.health.liveness is not None
    assert config.health.liveness.status == 200
    assert config.health.websocket is None
    assert config.lease_file == Path("/run/fluxmaint/lease")
    backup = config.require_backup()
    assert backup.content_digests == "full"
    assert isinstance(backup.target("local"), TargetPath)
    offsite = backup.target("offsite")
    assert isinstance(offsite, TargetS3)
    assert offsite.prefix == "a"
    assert offsite.region == "us-east-1"


def test_all_mistakes_are_reported_at_once_with_their_keys() -> None:
    found = mistakes(root="opt", user=7, databases=[{"name": "a/b", "path": "../x"}], colour="red")
    assert any(text.startswith("root must be an absolute path") for text in found)
    assert any(text.startswith("user must be a non-empty text") for text in found)
    assert any(text.startswith("databases[0].path must be an absolute path") for text in found)
    assert any("'a/b'" in text for text in found)
    assert "colour is not a known key" in found


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"format": 2}, "format must be 1"),
        ({"databases": []}, "databases must name at least one database"),
        ({"databases": VALID["databases"] * 2}, "databases has the name 'trades' more than once"),
        ({"backup": {**BACKUP, "targets": []}}, "backup.targets must name at least one target"),
        ({"backup": {**BACKUP, "targets": BACKUP["targets"][:1] * 2}}, "more than once"),
        ({"backup": {**BACKUP, "compression_level": True}}, "backup.compression_level must be a whole number"),
        ({"backup": {**BACKUP, "drift_limit": 2}}, "backup.drift_limit must be a number from 0 to 1"),
        ({"backup": {**BACKUP, "targets": [{"name": "x", "type": "ftp"}]}}, "targets[0].type must be one of path, s3"),
        *(
            ({"backup": {**BACKUP, "targets": [{**BACKUP["targets"][0], "marker": marker}]}}, "marker must be the name")
            for marker in ("../x", "a/b", "/a", "..", ".", " ")
        ),
        ({"health": {"liveness": {"status": 200}}}, "health.liveness.url is missing"),
        ({"root": "/opt/../etc"}, "root must be an absolute path"),
        ({"logs": []}, "logs must be an object"),
        ({"logs": {"directory": "/l", "restart": "("}}, "logs.restart must be a regular expression"),
        ({"logs": {"directory": "/l", "patterns": ["../*"]}}, "logs.patterns: '../*' must lead to a file below"),
    ],
)
def test_a_mistake_is_named(changes: dict[str, Any], expected: str) -> None:
    assert any(expected in text for text in mistakes(**changes)), mistakes(**changes)


def test_a_missing_key_is_named() -> None:
    document = {key: value for key, value in VALID.items() if key != "service"}
    with pytest.raises(ConfigError, match="service is missing"):
        parse(document)


def test_unknown_names_list_the_known_ones() -> None:
    config = parse({**VALID, "backup": BACKUP})
    with pytest.raises(ConfigError, match="configured: trades"):
        config.database("other")
    with pytest.raises(ConfigError, match="configured: local, offsite"):
        config.require_backup().target("other")
    with pytest.raises(ConfigError, match="no section backup"):
        parse(VALID).require_backup()


def test_drop_ins_are_merged_and_a_candidate_takes_the_place_of_its_namesake(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(VALID))
    (tmp_path / "config.d").mkdir()
    (tmp_path / "config.d" / "backup.json").write_text(json.dumps({"backup": BACKUP}))
    assert load(path).backup is not None
    candidate = tmp_path / "candidate"
    candidate.write_text(json.dumps({"backup": {**BACKUP, "signer": ""}}))
    with pytest.raises(ConfigError, match=r"backup\.signer"):
        load(path, {"backup.json": candidate})
    candidate.write_text(json.dumps({"backup": {**BACKUP, "signer": "other"}}))
    assert load(path, {"backup.json": candidate}).require_backup().signer == "other"
    (tmp_path / "config.d" / "again.json").write_text(json.dumps({"backup": BACKUP}))
    with pytest.raises(ConfigError, match=r"the key backup is in .* already"):
        load(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json"):
        load(tmp_path / "config.json")


@pytest.mark.parametrize("value", [10**400, float("inf"), 1e12])
def test_a_time_that_no_timer_can_hold_is_a_mistake(value: float) -> None:
    assert any("health.wait_s must be a number" in mistake for mistake in mistakes(health={"wait_s": value}))


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_texts_that_can_name_nothing_are_mistakes_with_their_place(text: str) -> None:
    assert any(mistake.startswith("units[0] holds") for mistake in mistakes(units=[text]))
    assert any(mistake.startswith("logs.directory holds") for mistake in mistakes(logs={"directory": f"/{text}"}))


def test_a_document_of_endless_depth_is_not_valid(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text("[" * 100_000)
    with pytest.raises(InputError, match="is not valid JSON"):
        load(file)
