"""The engine's layers: a package imports only what stands left of it, and nothing of Ansible."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
ENGINE = PLUGINS / "module_utils"
COLLECTION = "ansible_collections.fluxhero.maintenance.plugins.module_utils"
LAYERS = ["core", "sqlite", "store", "backup", "service", "notify", "health", "logs", "updates", "drill", "cli"]
BESIDE = {"health", "logs", "updates", "drill"}
GLUE = "ansible"
THIRD_PARTY = {"boto3": "store/s3.py", "botocore": "store/s3.py", "pyarrow": "sqlite/export_parquet.py"}


def imports_of(source: str, package: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Absolute names of everything that a source file in `package` imports; the engine's start with its layer."""
    names: list[tuple[str, ...]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.extend(("", *alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.append(("", *(node.module or "").split(".")))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            module = tuple((node.module or "").split(".")) if node.module else ()
            names.extend([(*base, *module)] if module else [(*base, alias.name) for alias in node.names])
    return names


def violations(relative: str, source: str) -> list[str]:
    """What the rules forbid among the imports of one engine file."""
    package = Path(relative).parent.parts
    layer = package[0] if package else Path(relative).stem
    found = []
    for name in imports_of(source, package):
        if name[0] == "":
            top = name[1]
            if top in {"ansible", "ansible_collections"} and layer != GLUE:
                found.append(f"{relative} imports {'.'.join(name[1:])}")
            if THIRD_PARTY.get(top, relative) != relative:
                found.append(f"{relative} imports {top}")
        elif layer != GLUE:
            other = name[0]
            sideways = layer in BESIDE and other in BESIDE and other != layer
            if other not in LAYERS or LAYERS.index(other) > LAYERS.index(layer) or sideways:
                found.append(f"{relative} imports {'.'.join(name)}")
    return found


ENGINE_FILES = sorted(path.relative_to(ENGINE).as_posix() for path in ENGINE.rglob("*.py"))
MODULES = sorted((PLUGINS / "modules").glob("*.py"))


def test_there_is_an_engine_to_check() -> None:
    assert len(ENGINE_FILES) > 10
    assert MODULES


@pytest.mark.parametrize("relative", ENGINE_FILES)
def test_engine_file_imports_only_what_stands_left_of_it(relative: str) -> None:
    assert violations(relative, (ENGINE / relative).read_text()) == []


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_module_imports_only_the_engine_and_ansible_module_utils(module: Path) -> None:
    for name in imports_of(module.read_text(), ()):
        dotted = ".".join(name[1:])
        ours = dotted.startswith((COLLECTION, "ansible.module_utils"))
        allowed = ours or dotted in {"__future__", "typing", "pathlib"}
        assert allowed, f"{module.name} imports {dotted}"


@pytest.mark.parametrize(
    ("relative", "source"),
    [
        ("core/x.py", "from ..sqlite import connect"),
        ("sqlite/x.py", "from ..backup.restore import run"),
        ("store/x.py", "def f():\n    from ..service import units"),
        ("backup/x.py", "import ansible.module_utils.basic"),
        ("backup/x.py", "from .. import service"),
        ("backup/x.py", "import boto3"),
        ("logs/x.py", "from ..health import probe"),
    ],
)
def test_the_rules_notice_a_wrong_import(relative: str, source: str) -> None:
    assert violations(relative, source)


@pytest.mark.parametrize(
    ("relative", "source"),
    [
        ("sqlite/x.py", "from ..core.errors import EngineError"),
        ("sqlite/x.py", "from . import connect"),
        ("cli/x.py", "from ..backup import restore"),
        ("store/s3.py", "import boto3"),
    ],
)
def test_the_rules_accept_a_right_import(relative: str, source: str) -> None:
    assert violations(relative, source) == []
