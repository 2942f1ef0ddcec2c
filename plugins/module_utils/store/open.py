# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a target's configuration to the store behind it."""

from __future__ import annotations

from pathlib import Path

from ..core.clock import Clock
from ..core.config import Target, TargetS3
from .base import Store
from .path import PathStore


def open_store(target: Target, clock: Clock | None = None, *, write_credentials_file: Path | None = None) -> Store:
    """The store of a configured target. Nothing is asked of an S3 service yet; `Store.check` does that.

    Args:
        write_credentials_file: other credentials for writing, where the target's own may only read.
    """
    if isinstance(target, TargetS3):
        from .s3 import S3Store

        return S3Store(
            target.name,
            endpoint=target.endpoint,
            region=target.region,
            bucket=target.bucket,
            credentials_file=target.credentials_file,
            prefix=target.prefix,
            lock_days=target.lock_days,
            connect_timeout_s=min(10, target.answer_timeout_s),
            read_timeout_s=target.answer_timeout_s,
            retries=target.retries,
            write_credentials_file=write_credentials_file,
            bandwidth_limit_bytes_s=target.bandwidth_limit_bytes_s,
            clock=clock,
        )
    return PathStore(
        target.name,
        target.path,
        require_mount=target.require_mount,
        marker=target.marker,
        bandwidth_limit_bytes_s=target.bandwidth_limit_bytes_s,
        clock=clock,
    )
