# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The only glue between Ansible and the engine: parameters in, results and errors out.

A module calls `run_module` with its argument spec and a function; the function gets the module's
parameters and whether this is check mode, calls the engine, and returns the result as a dictionary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from .core.errors import as_engine_error

Work = Callable[[dict[str, Any], bool], dict[str, Any]]


def run_module(argument_spec: dict[str, Any], work: Work, **options: Any) -> None:
    """Run a module from its parameters to its exit.

    Args:
        argument_spec: as AnsibleModule takes it.
        work: called with the parameters and the check mode flag; its result goes to `exit_json`, where
            `changed` is false unless it says otherwise and each text under `warnings` is shown.
        options: further arguments of AnsibleModule; check mode is supported unless they say otherwise.
    """
    module = AnsibleModule(argument_spec=argument_spec, **{"supports_check_mode": True, **options})
    try:
        result = work(module.params, module.check_mode)
    except Exception as caught:  # noqa: BLE001 - whatever it is, the task fails with one sentence
        error = as_engine_error(caught)
        described = error.as_dict()
        described.pop("message")
        module.fail_json(msg=str(error), **described)
    for warning in result.pop("warnings", []):
        module.warn(warning)
    module.exit_json(**{"changed": False, **result})
