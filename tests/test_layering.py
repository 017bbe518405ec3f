"""The promises of the package's structure: the device half is light, layers point down, nothing breaks on a board."""

import ast
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dance_deploy"

# ground floor, runtime, and the numpy part of ops run on the board
DEVICE_FOLDERS = ("runtime", "power")
WORKSHOP_FOLDERS = ("method", "models", "data", "export", "bench", "report")
WORKSHOP_OPS = ("functions.py",)
# who may import whom: a folder may import those at its own level or below
LEVELS = {"cli": 3, "bench": 2, "report": 2, "export": 2, "runtime": 2, "power": 2, "method": 2,
          "ops": 1, "models": 1, "data": 1}


def area(path: Path) -> str:
    """Top folder below the package, '' for the ground floor."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def is_device(path: Path) -> bool:
    where = area(path)
    return where in DEVICE_FOLDERS or where == "" or (where == "ops" and path.name not in WORKSHOP_OPS)


SOURCES = sorted(PACKAGE.rglob("*.py"))
DEVICE = [path for path in SOURCES if is_device(path)]
# the commands for the board must start there as well, Typer at hand
ON_BOARD = DEVICE + [PACKAGE / "cli" / name for name in (
    "__init__.py", "entry.py", "run.py", "run_text.py", "run_power.py", "run_report.py", "power.py", "power_text.py",
    "doctor.py", "export.py")] + [PACKAGE / "bench" / "cuda_library.py"]  # by kernels/cuda/tests/on_device.py


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", ON_BOARD, ids=name_of)
def test_device_half_is_python_3_6_syntax(path):
    ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 6))


def imports_of(path: Path) -> set[str]:
    """Areas of the package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules = [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
        for module in modules:
            parts = module.split(".")
            if parts[0] == "dance_deploy" and len(parts) > 1 and (PACKAGE / parts[1]).is_dir():
                found.add(parts[1])
    return found


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_point_down(path):
    mine = LEVELS.get(area(path), 0)
    upward = {a for a in imports_of(path) if LEVELS[a] > mine}
    assert not upward, f"{name_of(path)} imports {upward} from above"
    if is_device(path):
        assert not imports_of(path) & set(WORKSHOP_FOLDERS)


@pytest.fixture(scope="module")
def numpy_only(tmp_path_factory):
    """An environment for a child interpreter that can see the standard library, numpy and this package, no more."""
    site = tmp_path_factory.mktemp("numpy_only")
    packages = Path(numpy.__file__).resolve().parents[1]
    for entry in packages.iterdir():
        if entry.name == "numpy" or entry.name.startswith("numpy.libs"):
            (site / entry.name).symlink_to(entry)
    (site / "dance_deploy").symlink_to(PACKAGE)
    return dict(os.environ, PYTHONPATH=str(site))


def test_every_device_module_imports_with_numpy_only(numpy_only):
    modules = [".".join(p.relative_to(ROOT).with_suffix("").parts).replace(".__init__", "") for p in DEVICE]
    assert len(modules) > 15
    code = ("import importlib, sys\n"
            "for name in sys.argv[1:]:\n"
            "    importlib.import_module(name)\n"
            "heavy = {'torch', 'onnx', 'onnxruntime', 'av', 'cv2', 'typer', 'tensorrt', 'pycuda'} & set(sys.modules)\n"
            "assert not heavy, heavy\n")
    # -S: no site-packages but the folder above
    done = subprocess.run([sys.executable, "-S", "-c", code, *modules], env=numpy_only, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_module_works_at_import():
    """Importing the workshop half must not start threads, read the environment's data or print."""
    names = [m.name for m in pkgutil.walk_packages([str(PACKAGE)], "dance_deploy.") if "__main__" not in m.name]
    code = "import importlib, sys, threading\n[importlib.import_module(n) for n in sys.argv[1:]]\n" \
           "assert threading.active_count() == 1"
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and done.stdout == "", done.stderr + done.stdout
