# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command of a verifier: prove the generations of other hosts, unattended."""

from __future__ import annotations

from ..backup import proof, verify
from .command import Answer, Commands, Context


def register(commands: Commands) -> None:
    """Add the commands of this module."""
    verifying = commands.add("verify", _verify, "prove the newest generation of each host, and older ones at random")
    verifying.add_argument("--host", action="append", default=[], metavar="NAME", help="only this host's; repeatable")
    verifying.add_argument("--generation", default="", metavar="ID", help="only this one")
    verifying.add_argument("--older", type=int, metavar="N", help="how many older ones; default: as configured")
    verifying.add_argument("--seed", type=int, metavar="N", help="repeat the random choice of an earlier run")
    verifying.add_argument(
        "--sweep", action="store_true", help="only remove the decrypted data that a killed verification has left"
    )


def _verify(context: Context) -> Answer:
    options, config = context.options, context.config
    if options.sweep:
        left = proof.sweep(config.require_verify().work_dir, context.clock)
        return Answer({"removed": left}, "\n".join(f"removed {path}" for path in left) or "nothing was left")
    with context.progress("verify") as progress:
        report = verify.run(
            config,
            hosts=options.host,
            generation=options.generation,
            older=options.older,
            seed=options.seed,
            stopped=context.stopped,
            clock=context.clock,
            journal=context.journal(config),
            progress=progress,
        )
    return Answer(report, verify.text(report), int(report["exit_code"]))
