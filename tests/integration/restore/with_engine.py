# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`with_engine.py SCRIPT [ARGUMENT...]` runs a script beside it that imports the engine as `fluxmaint`."""

import runpy
import sys
from pathlib import Path

runpy.run_path(str(Path(__file__).resolve().parents[2] / "conftest.py"))
sys.argv.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parent))
runpy.run_path(sys.argv[0], run_name="__main__")
