# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the engine into one executable file on the controller and copy it to the host."""

from __future__ import annotations

import os
import tempfile

from ansible.plugins.action import ActionBase
from ansible_collections.fluxhero.maintenance.plugins.plugin_utils.executable import build


class ActionModule(ActionBase):
    """Action part of the module engine_executable; its documentation is with the module."""

    TRANSFERS_FILES = True
    _requires_connection = True

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        _spec, options = self.validate_argument_spec(
            {
                "dest": {"type": "path", "default": "/usr/local/bin/fluxmaint"},
                "owner": {"type": "str", "default": "root"},
                "group": {"type": "str", "default": "root"},
                "mode": {"type": "str", "default": "0755"},
            }
        )
        descriptor, executable = tempfile.mkstemp(prefix="fluxmaint-")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(build())
            copy = self._task.copy()
            copy.args = {**options, "src": executable}
            copy.diff = False
            return self._shared_loader_obj.action_loader.get(
                "ansible.builtin.copy",
                task=copy,
                connection=self._connection,
                play_context=self._play_context,
                loader=self._loader,
                templar=self._templar,
                shared_loader_obj=self._shared_loader_obj,
            ).run(task_vars=task_vars)
        finally:
            os.unlink(executable)
