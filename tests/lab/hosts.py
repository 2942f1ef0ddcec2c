# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Create, destroy and list hosts of the lab: `python -m tests.lab.hosts create|destroy|list [NAME ...]`.

`create` leaves running hosts alone; with `--fresh` it destroys them first. Without names, `create`
takes the hosts of the roles' scenarios and `destroy` every host there is. Molecule's `default` scenario
holds the playbooks that do the work, for one process at a time.
"""

from __future__ import annotations

import argparse
import fcntl
import sys
import time
from typing import TYPE_CHECKING

from . import names
from .steps import SetupError, output_of, run, say

if TYPE_CHECKING:
    from collections.abc import Sequence

PLAYBOOKS = names.ROOT / "molecule" / "default"
INVENTORY = names.ROOT / "inventories" / "lab" / "hosts.yml"
KNOWN = ("production", "staging", "standby", "trixie", "bookworm", "store")
# Where the roles' scenarios run. The store is the drill's, too.
ROLE_HOSTS = ("trixie", "bookworm")
SCENARIO_HOSTS = ("store", *ROLE_HOSTS)


def create(hosts: Sequence[str], *, fresh: bool = False, variant: str = "") -> None:
    """Create the hosts that do not run and wait until they answer; with `fresh`, all of them anew.

    They are bare, or of a `variant` of their image. Raises SetupError naming the log when a host does not come up.
    """
    _play("create", hosts, f"lab_fresh={str(fresh).lower()}", f"lab_variant={variant}")


def destroy(hosts: Sequence[str]) -> None:
    """Remove hosts, with all their data."""
    _play("destroy", hosts)


def existing() -> dict[str, str]:
    """The lab's hosts and their container's state, such as `running` or `exited`."""
    lines = output_of(
        [
            *("docker", "ps", "--all", "--filter", f"label={names.LABEL}=1"),
            *("--filter", f"name=^/{names.PREFIX}-", "--format", "{{.Names}} {{.State}}"),
        ]
    )
    if lines is None:
        raise SetupError("No container engine answers: make setup")
    pairs = (line.split() for line in lines.splitlines())
    return {name[len(names.PREFIX) + 1 :]: state for name, state in pairs}


def _play(playbook: str, hosts: Sequence[str], *variables: str) -> None:
    """Run one lifecycle playbook for the named hosts."""
    unknown = sorted(set(hosts) - set(KNOWN))
    if unknown:
        raise SetupError(f"No such host: {', '.join(unknown)}; there are {', '.join(KNOWN)}")
    if not hosts:
        return
    chosen = " ".join((f"lab_hosts={','.join(hosts)}", *variables))
    with (names.LAB / "hosts.lock").open("w") as lock:
        # All write .lab/ssh_config from the hosts that they see.
        fcntl.flock(lock, fcntl.LOCK_EX)
        run(
            [
                *(names.bin_path("ansible-playbook"), "--inventory", INVENTORY),
                *("--extra-vars", chosen, PLAYBOOKS / f"{playbook}.yml"),
            ],
            log=f"hosts-{playbook}",
            env={"ANSIBLE_CONFIG": str(names.ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        )


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.hosts", description="Hosts of the lab.")
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("create", help="create hosts and wait until they answer")
    make.add_argument("--fresh", action="store_true", help="destroy them first")
    make.add_argument("names", nargs="*", choices=[*KNOWN, []], metavar="NAME")
    remove = commands.add_parser("destroy", help="remove hosts with their data")
    remove.add_argument("names", nargs="*", choices=[*KNOWN, []], metavar="NAME")
    commands.add_parser("list", help="show the hosts and their state")
    options = parser.parse_args()
    started = time.monotonic()
    try:
        if options.command == "list":
            for name, state in sorted(existing().items()):
                say(f"{name} {state}")
            return 0
        if options.command == "create":
            chosen = options.names or list(SCENARIO_HOSTS)
            create(chosen, fresh=options.fresh)
        else:
            chosen = options.names or sorted(existing())
            destroy(chosen)
    except SetupError as exc:
        say(str(exc))
        return 1
    say(f"{options.command}: {', '.join(chosen) or 'nothing to do'} ({time.monotonic() - started:.1f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
