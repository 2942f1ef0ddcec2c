"""Make the engine importable in tests as the package `fluxmaint`, the name it has inside the built executable."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ENGINE = Path(__file__).resolve().parents[1] / "plugins" / "module_utils"

if "fluxmaint" not in sys.modules:
    spec = importlib.util.spec_from_file_location(
        "fluxmaint", ENGINE / "__init__.py", submodule_search_locations=[str(ENGINE)]
    )
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["fluxmaint"] = package
    spec.loader.exec_module(package)
