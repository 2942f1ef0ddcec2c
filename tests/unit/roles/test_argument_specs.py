# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each role's options, defaults and the example inventory say the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[3]
ROLES = sorted(path.parent.parent.name for path in PROJECT.glob("roles/*/meta/argument_specs.yml"))
EXAMPLE = PROJECT / "inventories" / "example"


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None


def defaults(role: str) -> dict[str, Any]:
    return dict(load(PROJECT / "roles" / role / "defaults" / "main.yml") or {})


def options(role: str) -> dict[str, dict[str, Any]]:
    """The options of all entry points of a role."""
    specs = load(PROJECT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]
    return {name: option for entry in specs.values() for name, option in (entry.get("options") or {}).items()}


def test_every_role_describes_its_options() -> None:
    assert sorted(path.name for path in (PROJECT / "roles").iterdir() if path.is_dir()) == ROLES
    assert len(ROLES) >= 6


def one_line(value: Any) -> Any:
    """A value in the form in which folded YAML texts are equal."""
    return " ".join(value.split()) if isinstance(value, str) else value


@pytest.mark.parametrize("role", ROLES)
def test_options_are_the_defaults(role: str) -> None:
    described = {name: option.get("default") for name, option in options(role).items() if not option.get("required")}
    found = {name: one_line(value) for name, value in defaults(role).items()}
    assert {name: one_line(value) for name, value in described.items()} == found


@pytest.mark.parametrize("role", ROLES)
def test_options_begin_with_the_role_and_are_explained(role: str) -> None:
    for name, option in options(role).items():
        assert name.startswith(f"{role}_"), name
        assert option.get("description") and option.get("type"), name


@pytest.mark.parametrize("role", ROLES)
def test_entry_points_exist(role: str) -> None:
    specs = load(PROJECT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]
    for entry in specs:
        assert (PROJECT / "roles" / role / "tasks" / f"{entry}.yml").exists(), entry


def test_example_shows_every_variable_of_the_contract() -> None:
    text = (EXAMPLE / "group_vars" / "all" / "service.yml").read_text(encoding="utf-8")
    shown = re.findall(r"^(?:# )?(service_\w+):", text, re.MULTILINE)
    assert sorted(shown) == sorted(options("service"))


def test_example_shows_the_defaults_of_the_contract() -> None:
    text = (EXAMPLE / "group_vars" / "all" / "service.yml").read_text(encoding="utf-8")
    shown = yaml.safe_load(re.sub(r"^# (?=service_\w+:|  )", "", text, flags=re.MULTILINE))
    for name, value in defaults("service").items():
        if "__service_profiles" not in str(value) and not str(value).startswith("{{ ["):
            assert shown[name] == value, name


def test_example_names_no_unknown_variable_and_holds_no_secret() -> None:
    known = {name for role in ROLES for name in options(role)}
    vault = set(load(EXAMPLE / "group_vars" / "all" / "vault.yml.example"))
    used: set[str] = set()
    for path in EXAMPLE.glob("group_vars/**/*.yml"):
        assert set(load(path)) <= known, path
        used |= set(re.findall(r"vault_\w+", path.read_text(encoding="utf-8")))
    assert used == vault
    assert not any(load(EXAMPLE / "group_vars" / "all" / "vault.yml.example").values())
