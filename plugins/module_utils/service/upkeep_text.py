# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `upkeep_job` plans and does, as people read it."""

from __future__ import annotations

from typing import Any

from ..core.human import size_text


def text(result: dict[str, Any]) -> str:
    """A plan, or what was done, as a person reads it."""
    lines = []
    for item in result["databases"]:
        lines.append(f"{item['name']}: {item['path']}")
        if "error" in item:
            lines.append(f"  cannot be looked at: {item['error']['message']}")
            continue
        done = item.get("done")
        lines += [f"  would {_cost(action)}" for action in item["actions"] if done is None]
        for action in done or []:
            stopped = f", units stopped for {action['held_s']:.1f} s" if action["way"] == "stopped" else ""
            lines.append(f"  done: {action['kind']} in {action['took_s']:.1f} s{stopped}; {action['why']}")
        lines += [f"  {left['state']}: {left['kind']}; {left['why']}" for left in item["left"]]
        if "after" in item:
            lines.append(f"  {size_text(item['facts']['bytes'])} before, {size_text(item['after']['bytes'])} after")
        if not (item["actions"] or item["left"]):
            lines.append("  nothing is due")
    return "\n".join(lines)


def _cost(action: dict[str, Any]) -> str:
    wait = "units stopped for" if action["way"] == "stopped" else "writers wait at most"
    return (
        f"{action['kind']}: {action['why']}; {wait} about {action['wait_s']:.1f} s, {action['duration_s']:.1f} s"
        f" in all, {size_text(action['space_bytes'])} needed, {size_text(action['frees_bytes'])} freed"
    )


def difference(result: dict[str, Any]) -> tuple[str, str]:
    """Size and free pages of each database before and after upkeep; of a plan, as predicted."""
    before, after = [], []
    for item in result["databases"]:
        facts = item.get("facts")
        if facts is None:
            continue
        before.append(f"{item['name']}: {facts['bytes']} bytes, {facts['free_ratio']:.0%} free\n")
        frees = sum(action["frees_bytes"] for action in item["actions"]) if "done" not in item else 0
        size_then = item["after"]["bytes"] if "after" in item else facts["bytes"] - frees
        free_then = item["after"]["free_ratio"] if "after" in item else 0.0 if frees else facts["free_ratio"]
        after.append(f"{item['name']}: {size_then} bytes, {free_then:.0%} free\n")
    return "".join(before), "".join(after)
