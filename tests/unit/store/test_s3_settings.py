"""What the S3 target refuses before it asks the service anything."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from fluxmaint.core.config import TargetS3
from fluxmaint.core.errors import ConfigError, InputError, PreconditionError, StoreError
from fluxmaint.store.open import open_store

if TYPE_CHECKING:
    from pathlib import Path


def target(path: Path, **changes: Any) -> TargetS3:
    values: dict[str, Any] = {
        "name": "offsite",
        "endpoint": "http://127.0.0.1:9",
        "region": "us-east-1",
        "bucket": "backups",
        "prefix": "",
        "credentials_file": path,
        "lock_days": 0,
    }
    return TargetS3(**{**values, **changes})


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    path = tmp_path / "offsite.json"
    path.write_text('{"access_key": "key", "secret_key": "very-secret"}')
    path.chmod(0o600)
    return path


def test_boto3_missing_names_the_package(credentials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    with pytest.raises(PreconditionError, match="python3-boto3"):
        open_store(target(credentials))


def test_credentials_that_everybody_can_read(credentials: Path) -> None:
    credentials.chmod(0o644)
    with pytest.raises(PreconditionError, match="every user"):
        open_store(target(credentials))


@pytest.mark.parametrize("text", ["{}", "[]", '{"access_key": "a"}', '{"access_key": "a", "secret_key": 1}'])
def test_credentials_that_are_incomplete(credentials: Path, text: str) -> None:
    credentials.write_text(text)
    with pytest.raises(ConfigError, match="access_key and secret_key"):
        open_store(target(credentials))


def test_credentials_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json"):
        open_store(target(tmp_path / "none.json"))


def test_errors_name_endpoint_and_bucket_but_no_secret(credentials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "does-not-exist")
    monkeypatch.setenv("AWS_CA_BUNDLE", "/does/not/exist")
    with pytest.raises(StoreError) as caught:
        open_store(target(credentials)).check()
    text = str(caught.value.as_dict())
    assert "http://127.0.0.1:9" in text
    assert "backups" in text
    assert "very-secret" not in text
