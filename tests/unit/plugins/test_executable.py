from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]


def build() -> bytes:
    path = ROOT / "plugins" / "plugin_utils" / "executable.py"
    spec = importlib.util.spec_from_file_location("executable", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    content: bytes = module.build()
    return content


def test_the_same_sources_give_the_same_bytes() -> None:
    assert build() == build()


def test_it_runs_alone_and_tells_the_collections_version(tmp_path: Path) -> None:
    executable = tmp_path / "fluxmaint"
    executable.write_bytes(build())
    executable.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-I", str(executable), "version", "--json"], capture_output=True, check=True, cwd=tmp_path
    )
    galaxy = yaml.safe_load((ROOT / "galaxy.yml").read_text())
    assert json.loads(done.stdout)["version"] == galaxy["version"]


def test_it_holds_the_engine_and_nothing_of_ansible() -> None:
    content = build()
    assert b"fluxmaint/core/config.py" in content
    assert b"from ansible" not in content
