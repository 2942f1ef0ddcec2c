# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the lab keeps its files, and how its containers, networks and images are called."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAB = ROOT / ".lab"

VENV = LAB / "venv"
PYTHON = VENV / "bin" / "python"
KEYS = LAB / "keys"
LOGS = LAB / "logs"
STAMPS = LAB / "stamps"
IMAGES = LAB / "images"
COLLECTIONS = LAB / "collections"
SSH_CONFIG = LAB / "ssh_config"
SSH_KEY = KEYS / "lab_ed25519"
S3_KEYS = KEYS / "s3.json"

REQUIREMENTS = ROOT / "requirements" / "dev.txt"
IMAGE_SOURCES = Path(__file__).resolve().parent / "images"

PREFIX = "fluxhero-lab"
LABEL = "org.fluxhero.maintenance.lab"

S3_ENDPOINT = "http://store:8333"
BUCKET = "fluxhero-backups"
AGE_IDENTITIES = ("operator", "escrow", "verifier")
S3_IDENTITIES = ("admin", "uploader", "reader", "prover", "pruner")


def bin_path(tool: str) -> str:
    """Path of a tool inside the project's virtual environment."""
    return str(VENV / "bin" / tool)
