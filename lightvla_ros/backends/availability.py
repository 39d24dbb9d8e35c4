"""Which backends this machine has, what each lacks, and the command that gets it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from lightvla_ros.core.errors import LightVlaError

# PCI numbers.
_NVIDIA, _DISPLAY_CONTROLLER = "0x10de", "0x03"


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """What a machine has of one backend.

    Attributes:
        name: of the backend, or "gpu".
        usable: whether policies run on it here.
        found: what is there, for example "onnxruntime 1.20.0"; empty where nothing is.
        lacks: what is missing; empty where nothing is.
        fix: how to get that, a command where there is one.
    """

    name: str
    usable: bool
    found: str = ""
    lacks: str = ""
    fix: str = ""


def available_backends() -> tuple[Availability, ...]:
    """Look at every backend; imports what is installed, and never raises."""
    gpu = available_gpu()
    return (
        _library("onnxruntime", "onnxruntime", "pip install onnxruntime"),
        _library("torch", "torch", "pip install 'lightvla_ros[torch]'", _torch_device),
        _tensorrt("tensorrt", gpu),
        _tensorrt("tensorrt-rtx", gpu),
    )


def available_gpu() -> Availability:
    """Look for an NVIDIA GPU that TensorRT plans can run on; never raises."""
    if not has_nvidia_gpu():
        return Availability(name="gpu", usable=False, lacks="an NVIDIA GPU")
    try:
        from lightvla_ros.backends.tensorrt.cuda import device_info

        device = device_info()
    except Exception as e:  # noqa: BLE001 (a broken driver may raise anything)
        reason, fix = getattr(e, "got", None) or e, getattr(e, "fix", "")
        return Availability(
            name="gpu", usable=False, found="an NVIDIA GPU", lacks=f"working CUDA ({reason})", fix=fix
        )
    free, total = (number / 1e9 for number in (device.free_bytes, device.total_bytes))
    driver = ".".join(map(str, device.driver_version))
    return Availability(
        name="gpu",
        usable=True,
        found=f"{device.name} ({device.target}), {free:.1f} of {total:.1f} GB free, driver for CUDA {driver}",
    )


def has_nvidia_gpu() -> bool:
    """Whether the hardware is there: a display controller of NVIDIA's, a driver's device, or a Jetson."""
    devices = ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/nvgpu", "/dev/dxg")
    if any(Path(device).exists() for device in devices):
        return True
    return any(
        _read(device / "vendor") == _NVIDIA and _read(device / "class").startswith(_DISPLAY_CONTROLLER)
        for device in Path("/sys/bus/pci/devices").glob("*")
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _library(
    name: str, module_name: str, fix: str, describe: Callable[[Any], str] = lambda module: ""
) -> Availability:
    try:
        module = import_module(module_name)
        version = module.__version__.partition("-")[0]  # OpenVINO's goes on with its build
        return Availability(name=name, usable=True, found=f"{module_name} {version}{describe(module)}")
    except Exception as e:  # noqa: BLE001 (a broken library may raise anything)
        return Availability(name=name, usable=False, lacks=_reason(module_name, e), fix=fix)


def _torch_device(torch: Any) -> str:
    return f", CUDA {torch.version.cuda}" if torch.cuda.is_available() else ", CPU only"


def _tensorrt(flavour: str, gpu: Availability) -> Availability:
    module_name = flavour.replace("-", "_")
    try:
        from lightvla_ros.backends.tensorrt.api import load

        found = f"{module_name} {load(flavour).version}"  # type: ignore[arg-type]  # both callers name one
    except Exception as e:  # noqa: BLE001 (a broken library may raise anything)
        return Availability(
            name=flavour,
            usable=False,
            lacks=_reason(module_name, e),
            fix=f"pip install 'lightvla_ros[{flavour}]'",
        )
    if gpu.usable:
        return Availability(name=flavour, usable=True, found=found)
    fix = gpu.fix or "use a machine with one, or backend 'onnxruntime'"
    if flavour == "tensorrt-rtx":
        found += " (builds plans here with `lightvla build --target`)"
    return Availability(name=flavour, usable=False, found=found, lacks=f"{gpu.lacks} to run plans", fix=fix)


def _reason(module_name: str, error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, LightVlaError) else error
    # sys.modules[name] = None and an absent module both mean that it is not installed.
    if isinstance(cause, ModuleNotFoundError) and cause.name == module_name:
        return f"the Python module {module_name}"
    return f"a working {module_name} ({error})"
