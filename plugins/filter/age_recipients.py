# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable

from ansible_collections.fluxhero.maintenance.plugins.module_utils.backup import recipients


class FilterModule:
    """Looks at public age keys before any host does."""

    def filters(self) -> dict[str, Callable[[str], str]]:
        """The filters by their names."""
        return {"age_recipient_mistake": recipients.mistake, "age_recipient_fingerprint": recipients.fingerprint}
