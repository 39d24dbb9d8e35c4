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
    return {profile_variable(environment): profile}


def profile_variable(environment: Mapping[str, str]) -> str:
    """Return the variable that Fast DDS reads in an environment."""
    return _VARIABLE_BEFORE if environment.get("ROS_DISTRO") in _BEFORE_KILTED else _VARIABLE


def unread_profile_variable(environment: Mapping[str, str]) -> str | None:
    """Return the other version's variable where it alone is set, None otherwise."""
    read = profile_variable(environment)
    unread = _VARIABLE if read == _VARIABLE_BEFORE else _VARIABLE_BEFORE
    return unread if unread in environment and read not in environment else None
