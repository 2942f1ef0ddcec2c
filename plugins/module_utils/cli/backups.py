# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands about backups: take, list and prove generations, tell their state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..backup import generation, overview, proof, prune
from ..service import backup_status
from ..store.open import open_store
from .command import DEGRADED, Answer, Commands, Context


def register(commands: Commands) -> None:
    """Add the commands of this module."""
    backup = commands.add("backup", _backup, "take a generation and store it on every target")
    backup.add_argument("--kind", choices=("daily", "full"), default="daily")
    backup.add_argument(
        "--accept-drift", action="store_true", help="a person has looked at the tables that lost rows: take them"
    )

    backup.add_argument("--dry-run", action="store_true", help="say what would be done, do nothing")

    listing = commands.add("generations", _generations, "list the generations on the targets")
    listing.add_argument("--target", default="", metavar="NAME", help="only this target")
    listing.add_argument("--host", default="", help="of another host than this one")

    proving = commands.add("prove", _prove, "restore a generation into an empty directory and check everything")
    proving.add_argument("--generation", default="latest", metavar="ID")
    proving.add_argument("--target", required=True, metavar="NAME", help="fetch from this target alone")
    proving.add_argument("--host", default="", help="a generation of another host than this one")
    proving.add_argument("--identity", type=Path, required=True, metavar="FILE", help="age identity to decrypt with")
    proving.add_argument("--work-dir", type=Path, metavar="DIR", help="where to restore to; emptied afterwards")

    pruning = commands.add("prune", _prune, "delete what retention no longer keeps, and what interrupted runs left")
    pruning.add_argument(
        "--target", default="", metavar="NAME", help="this target alone; default: every one that is a directory"
    )
    pruning.add_argument(
        "--credentials", type=Path, metavar="FILE", help="of a bucket: those that may delete, as the target's own file"
    )
    pruning.add_argument("--dry-run", action="store_true", help="say what would be done, do nothing")

    commands.add("status", _status, "tell the state of the backups of this host")


def _backup(context: Context) -> Answer:
    config = context.config
    if context.options.dry_run:
        return _plan(generation.plan(config, context.options.kind))
    with context.progress("backup") as progress:
        result = generation.create(
            config,
            context.options.kind,
            clock=context.clock,
            journal=context.journal(config),
            progress=progress,
            accept_drift=context.options.accept_drift,
        )
    size = f"{result['bytes']} bytes as {result['stored_bytes']}"
    lines = [f"generation {result['id']} ({result['kind']}): {result['result']}, {size}, {result['duration_s']:.1f} s"]
    lines += [f"  target {name}: {state}" for name, state in result["targets"].items()]
    lines += [f"  {name}: {text}" for name, text in result["errors"].items()]
    lines += [f"  problem: {text}" for text in result["problems"]]
    return Answer(result, "\n".join(lines), DEGRADED if result["result"] == "degraded" else 0)


def _plan(plan: dict[str, Any]) -> Answer:
    lines = [f"a {plan['kind']} generation would hold:"]
    lines += [f"  {part['name']}: {', '.join(part['sources'])}" for part in plan["parts"]]
    lines += [f"target {name}: {state}" for name, state in plan["targets"].items()]
    lines += [f"generation {identity} waits for a target" for identity in plan["waiting"]]
    reachable = all(state == generation.REACHABLE for state in plan["targets"].values())
    return Answer(plan, "\n".join(lines), 0 if reachable else DEGRADED)


def _prove(context: Context) -> Answer:
    options, config = context.options, context.config
    backup = config.require_backup()
    with context.progress("prove") as progress:
        result = proof.prove(
            open_store(backup.target(options.target), context.clock),
            config.service,
            options.host or config.host,
            options.generation,
            identity_file=options.identity,
            allowed_signers_file=backup.allowed_signers_file,
            signer=f"{config.service}@{options.host}" if options.host else backup.signer,
            work_dir=options.work_dir or config.state_dir / "proofs",
            verifier=config.host,
            signing_key_file=backup.signing_key_file if backup.signing_key_file.exists() else None,
            evidence_dir=config.state_dir / "evidence",
            clock=context.clock,
            journal=context.journal(config),
            progress=progress,
        )
    kept = "written back" if result["written_back"] else f"not written back: {result['write_back_error']}"
    text = (
        f"generation {result['generation']} of {result['host']} on target {result['target']} is proven:"
        f" {result['files']} files, {result['bytes']} bytes in {result['duration_s']:.1f} s; the proof is {kept}"
    )
    text = "\n".join([text, *(f"  problem: {problem}" for problem in result["problems"])])
    return Answer(result, text, DEGRADED if result["problems"] else 0)


def _prune(context: Context) -> Answer:
    options, config = context.options, context.config
    with context.progress("prune") as progress:
        result = prune.prune_configured(
            config,
            target=options.target,
            credentials_file=options.credentials,
            dry_run=options.dry_run,
            clock=context.clock,
            journal=context.journal(config),
            progress=progress,
        )
    text = "\n\n".join(prune.table(found) for found in result["targets"].values())
    return Answer(result, text, DEGRADED if result["result"] == "degraded" else 0)


def _generations(context: Context) -> Answer:
    options = context.options
    facts = overview.overview(context.config, target=options.target, host=options.host, clock=context.clock)
    return Answer(facts, overview.table(facts), DEGRADED if facts["problems"] else 0)


def _status(context: Context) -> Answer:
    facts = backup_status.status(context.config, clock=context.clock)
    return Answer(facts, backup_status.text(facts), 0 if facts["result"] == backup_status.OK else DEGRADED)
