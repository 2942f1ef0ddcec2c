# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shared documentation: what each module supports."""

from __future__ import annotations


class ModuleDocFragment:
    """Attributes of every module, and the particular ones of info modules and action plugins."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check mode, and then tells what it would change without changing it.
  diff_mode:
    description: Returns what changed, or in check mode would change, when asked for a diff.
  idempotent:
    description: Run twice, with nothing changed in between, the second run changes nothing.
"""

    INFO_MODULE = r"""
options: {}
attributes:
  check_mode:
    support: full
    details: This module reads and never changes anything.
  diff_mode:
    support: N/A
    details: This module reads and never changes anything.
  idempotent:
    support: full
    details: This module reads and never changes anything.
"""

    FLOW = r"""
options: {}
attributes:
  action:
    description: Has a part that runs on the controller.
"""
