# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules, run for real by Ansible on this machine, and the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.cli.main import main
from fluxmaint.service import upkeep_text
from test_sqlite_modules import Modules
from upkeep_world import UpkeepWorld, make_upkeep_world


@pytest.fixture
def world(tmp_path: Path) -> UpkeepWorld:
    """A host without units, as far as systemd knows."""
    (tmp_path / "world").mkdir()
    made = make_upkeep_world(tmp_path / "world", running=False)
    path = made.directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "units": []}))
    return made


def test_module_plans_does_and_does_not_do_again(tmp_path: Path, world: UpkeepWorld) -> None:
    (tmp_path / "ansible").mkdir()
    modules = Modules(tmp_path / "ansible")
    options = {"config_file": str(world.directory / "config.json")}
    before = world.database.read_bytes()
    planned = modules("sqlite_maintenance", "--check", **options)
    assert planned["changed"] is True and planned["result"] == "planned"
    assert "would vacuum" in planned["text"] and "writers wait at most about" in planned["text"]
    predicted_before, predicted = upkeep_text.difference(planned)
    assert predicted_before != predicted
    assert world.database.read_bytes() == before
    done = modules("sqlite_maintenance", **options)
    assert (done["changed"], done["result"]) == (True, "ok")
    assert [action["kind"] for action in done["databases"][0]["done"]] == ["vacuum", "analyze"]
    before_it, after_it = upkeep_text.difference(done)
    assert before_it == predicted_before and after_it.endswith(" 0% free\n") and predicted.endswith(" 0% free\n")
    again = modules("sqlite_maintenance", **options)
    assert (again["changed"], again["result"]) == (False, "ok")
    assert len(set(upkeep_text.difference(again))) == 1
    sizes = modules("sqlite_size_info", **options)
    assert sizes["changed"] is False
    [found] = sizes["databases"]
    assert {item["name"] for item in found["objects"]} >= {"heartbeat", "filler"}
    assert found["growth_bytes_per_day"] is None and found["days_until_full"] is None


def fluxmaint(world: UpkeepWorld, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main([*words, "--config", str(world.directory / "config.json")])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_commands_plan_do_and_measure(world: UpkeepWorld, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str) -> tuple[int, Any]:
        return fluxmaint(world, capsys, *words)

    code, said = run("maintain", "--dry-run")
    assert code == 0 and "would vacuum" in said and "would analyze" in said
    code, said = run("maintain", "--resume")
    assert (code, said) == (0, "no upkeep is unfinished\n")
    code, said = run("maintain")
    assert code == 0 and "done: vacuum" in said and "before," in said
    code, said = run("maintain", "--json")
    assert code == 0 and json.loads(said)["changed"] is False
    code, said = run("size", "--record")
    assert code == 0 and "filler" in said and "|####" in said
    code, said = run("size", "--json", "--database", "trades")
    assert json.loads(said)["databases"][0]["used_bytes"] > 0
    code, said = run("size", "--database", "wrong")
    assert code == 2 and "there is no database named 'wrong'" in said


def test_damage_ends_with_status_5(world: UpkeepWorld, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray(world.database.read_bytes())
    page = data.find(b"filled") // 4096 * 4096
    data[page : page + 8] = b"\xff" * 8
    world.database.write_bytes(data)
    code, said = fluxmaint(world, capsys, "maintain")
    assert code == 5 and "trades.db" in said
    assert world.database.read_bytes() == bytes(data)
