"""How processes are told of a Fast DDS profile: by their environment, before they start."""

from __future__ import annotations

from collections.abc import Mapping

# The name changed with Fast DDS 3, which ROS 2 has from Kilted on.
_VARIABLE, _VARIABLE_BEFORE = "FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"
_BEFORE_KILTED = ("humble", "iron", "jazzy")


def profile_environment(profile: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that name a profile to Fast DDS.

    Args:
        profile: path of the XML file; "" or "none" for Fast DDS's defaults.
        environment: of the process that starts the others; whoever has named a profile there keeps it.
    """
    if profile in ("", "none") or _VARIABLE in environment or _VARIABLE_BEFORE in environment:
        return {}
    is_old = environment.get("ROS_DISTRO") in _BEFORE_KILTED
    return {_VARIABLE_BEFORE if is_old else _VARIABLE: profile}
