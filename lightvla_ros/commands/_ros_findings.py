"""What `lightvla doctor` says about the ROS of this shell: installation, middleware, domain, discovery."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from importlib import import_module, metadata
from pathlib import Path
from xml.etree import ElementTree

from lightvla_ros.commands._finding import Finding, Level
from lightvla_ros.core.dds import profile_variable, unread_profile_variable
from lightvla_ros.core.paths import share_directories

_PREFIXES = ("AMENT_PREFIX_PATH", "PYTHONPATH", "LD_LIBRARY_PATH")
_RANGES = {
    "": "on the local network",
    "SUBNET": "on the local network",
    "SYSTEM_DEFAULT": "as the middleware is configured",
    "LOCALHOST": "on this machine only",
    "OFF": "nowhere",
}
# Above, DDS's ports are among those that Linux gives to any program that asks for one, or there are none.
_MAX_SAFE_DOMAIN, _MAX_DOMAIN = 101, 232
_IMAGE_BYTES = 640 * 480 * 3
_SHARED_MEMORY = Path("/dev/shm")
# Eight megabytes for each publishing process, as config/fastdds.xml has it: node, cameras, robot, controller.
_MIN_SHARED_MEMORY = 64 << 20


def ros_findings() -> Iterator[Finding]:
    """Look at the ROS that this process has."""
    try:
        rmw = str(import_module("rclpy").get_rmw_implementation_identifier())
    except Exception as e:  # noqa: BLE001 (a ROS that was set up for another Python fails in many ways)
        yield _finding(
            "warning",
            f"rclpy cannot be used ({e}): policies load and verify, but no node runs",
            "source /opt/ros/<distribution>/setup.bash, or pip install 'lightvla_ros[ros]'",
        )
        return
    yield from environment_findings(os.environ, rmw, wheels=_version_of_wheels())
    yield shared_memory_finding(shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else None)


def environment_findings(
    environment: Mapping[str, str], rmw: str, *, wheels: str | None
) -> Iterator[Finding]:
    """Judge environment variables.

    Args:
        environment: of this process.
        rmw: the middleware in use.
        wheels: version of rclpy where it was installed by pip, None where it is a system's ROS.
    """
    distribution = f"wheels of rclpy {wheels}" if wheels else environment.get("ROS_DISTRO", "of unknown name")
    domain = environment.get("ROS_DOMAIN_ID") or "0"
    text = f"{distribution}, {rmw}, domain {domain}, finds nodes {discovery_range(environment)}"
    yield _finding("ok", text)
    if wheels:
        yield from _mixture(environment)
    yield from _domain(domain)
    yield from _discovery(environment)
    if rmw.startswith("rmw_fastrtps"):
        yield profile_finding(environment)


def discovery_range(environment: Mapping[str, str]) -> str:
    """Say in words where a node finds others."""
    if environment.get("ROS_LOCALHOST_ONLY") == "1":
        return _RANGES["LOCALHOST"]
    chosen = _range(environment)
    return _RANGES.get(chosen, f"in an unknown range {chosen!r}")


def _mixture(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Libraries of two ROS installations in one process crash or fail to load."""
    for name in _PREFIXES:
        paths = [path for path in environment.get(name, "").split(os.pathsep) if path.startswith("/opt/ros/")]
        if paths:
            yield _finding(
                "warning",
                f"rclpy is a wheel, but {name} has {paths[0]}: libraries of two ROS must not be mixed",
                "use a shell that has not sourced it, or the system's Python with its own rclpy",
            )
            return


def _domain(domain: str) -> Iterator[Finding]:
    if not domain.isdecimal() or int(domain) > _MAX_DOMAIN:
        yield _finding(
            "error",
            f"ROS_DOMAIN_ID is {domain!r}: no node starts",
            f"export ROS_DOMAIN_ID=0, or another number up to {_MAX_SAFE_DOMAIN}, the same everywhere",
        )
    elif int(domain) > _MAX_SAFE_DOMAIN:
        yield _finding(
            "warning",
            f"domain {domain} uses ports that Linux may have given to other programs",
            f"choose ROS_DOMAIN_ID from 0 to {_MAX_SAFE_DOMAIN}, the same everywhere",
        )


def _discovery(environment: Mapping[str, str]) -> Iterator[Finding]:
    chosen, local_only = _range(environment), environment.get("ROS_LOCALHOST_ONLY") == "1"
    if local_only and chosen not in ("", "LOCALHOST"):
        yield _finding(
            "warning",
            f"ROS_AUTOMATIC_DISCOVERY_RANGE={chosen} has no effect: ROS_LOCALHOST_ONLY=1 overrules it",
            "unset ROS_LOCALHOST_ONLY, here and where the other nodes start",
        )
    elif not local_only and chosen not in _RANGES:
        yield _finding(
            "warning",
            f"ROS_AUTOMATIC_DISCOVERY_RANGE={chosen} is no range",
            "export ROS_AUTOMATIC_DISCOVERY_RANGE=SUBNET, or LOCALHOST for this machine only",
        )
    elif not local_only and chosen == "OFF":
        yield _finding(
            "warning",
            "ROS_AUTOMATIC_DISCOVERY_RANGE=OFF: no node finds another",
            "export ROS_AUTOMATIC_DISCOVERY_RANGE=SUBNET, or LOCALHOST for this machine only",
        )


def profile_finding(environment: Mapping[str, str]) -> Finding:
    """Judge the Fast DDS profile that processes started from this shell get."""
    variable = profile_variable(environment)
    fix = f"export {variable}={shipped_profile()}"
    if unread := unread_profile_variable(environment):
        return _finding("warning", f"this Fast DDS does not read {unread}, but {variable}", fix)
    profile = environment.get(variable, "")
    if not profile:
        return _finding(
            "note",
            "no Fast DDS profile in this shell: cameras started from it lose most images of 640x480 and more "
            "sent with best effort (our launch files set it for their own nodes)",
            fix,
        )
    try:
        size = _segment_bytes(Path(profile))
    except (OSError, ValueError, ElementTree.ParseError) as error:
        return _finding("warning", f"{variable}={profile} cannot be read ({error}): it has no effect", fix)
    if size is None or size < 2 * _IMAGE_BYTES:
        has = "sets no size" if size is None else f"has {size / 1e6:.1f} MB"
        text = f"{profile} {has} for shared memory: too little for images of 640x480 sent with best effort"
        return _finding("warning", text, fix)
    return _finding("ok", f"Fast DDS profile {profile}, {size / 1e6:.1f} MB of shared memory a process")


def shared_memory_finding(free_bytes: int | None) -> Finding:
    """Judge the room for images on their way between processes.

    Args:
        free_bytes: of /dev/shm; None where there is none.
    """
    fix = "--shm-size=1g or --ipc=host of the container, or: sudo mount -o remount,size=1g /dev/shm"
    if free_bytes is None:
        return _finding("warning", "no /dev/shm: nodes exchange images over the network stack, slowly", fix)
    free = f"{free_bytes / 1e6:.0f} MB" if free_bytes < 1e9 else f"{free_bytes / 1e9:.1f} GB"
    if free_bytes < _MIN_SHARED_MEMORY:
        return _finding("warning", f"{free} free in /dev/shm: too little for the images of all nodes", fix)
    return _finding("ok", f"{free} free in /dev/shm for images between processes")


def shipped_profile() -> Path:
    """Return the path of config/fastdds.xml."""
    found = (share / "config" / "fastdds.xml" for share in share_directories())
    return next((path for path in found if path.is_file()), Path("config/fastdds.xml"))


def _segment_bytes(profile: Path) -> int | None:
    """Return the size of the shared memory segment that a profile sets; None where it sets none."""
    sizes = [
        int(transport.findtext("{*}segment_size") or 0)
        for transport in ElementTree.parse(profile).iterfind(".//{*}transport_descriptor")
        if transport.findtext("{*}type") == "SHM"
    ]
    return max(sizes, default=0) or None


def _range(environment: Mapping[str, str]) -> str:
    return environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "").upper()


def _version_of_wheels() -> str | None:
    try:
        return metadata.version("ros-rclpy")
    except metadata.PackageNotFoundError:
        return None


def _finding(level: Level, text: str, fix: str = "") -> Finding:
    return Finding(section="ROS", level=level, text=text, fix=fix)
