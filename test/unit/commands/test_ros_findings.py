"""What `lightvla doctor` says about the ROS of a shell, from environment variables to findings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from graph_cases import bad, only

from lightvla_ros.commands._finding import Finding
from lightvla_ros.commands._ros_findings import (
    environment_findings,
    profile_finding,
    shared_memory_finding,
    shipped_profile,
)

NEW, OLD = "FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"
CYCLONE = "rmw_cyclonedds_cpp"
FAST_DDS = "rmw_fastrtps_cpp"


def found(environment: Mapping[str, str], rmw: str = CYCLONE, wheels: str | None = None) -> list[Finding]:
    return list(environment_findings({"ROS_DISTRO": "kilted", **environment}, rmw, wheels=wheels))


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "kilted, rmw_cyclonedds_cpp, domain 0, finds nodes on the local network"),
        (
            {"ROS_DOMAIN_ID": "7", "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"},
            "domain 7, finds nodes on this",
        ),
        ({"ROS_LOCALHOST_ONLY": "1"}, "on this machine only"),
        ({"ROS_LOCALHOST_ONLY": "0"}, "on the local network"),
    ],
)
def test_a_sound_environment_is_one_line(environment: Mapping[str, str], words: str) -> None:
    (finding,) = found(environment)
    assert finding.level == "ok"
    assert words in finding.text


def test_wheels_are_told_from_a_systems_ros() -> None:
    assert found({}, wheels="9.1.2")[0].text.startswith("wheels of rclpy 9.1.2, ")


@pytest.mark.parametrize("name", ["AMENT_PREFIX_PATH", "PYTHONPATH", "LD_LIBRARY_PATH"])
def test_wheels_beside_a_sourced_ros_are_a_warning(name: str) -> None:
    environment = {name: "/home/me/lib:/opt/ros/jazzy/lib"}
    finding = only(found(environment, wheels="9.1.2"))
    assert finding.level == "warning"
    assert f"{name} has /opt/ros/jazzy/lib" in finding.text
    assert "has not sourced it" in finding.fix
    assert not bad(found(environment))


@pytest.mark.parametrize(("domain", "level"), [("233", "error"), ("robot", "error"), ("150", "warning")])
def test_a_domain_that_cannot_be_or_may_collide_is_told(domain: str, level: str) -> None:
    finding = only(found({"ROS_DOMAIN_ID": domain}))
    assert (finding.level, domain in finding.text) == (level, True)
    assert "ROS_DOMAIN_ID" in finding.fix


def test_a_discovery_range_that_is_overruled_is_a_warning() -> None:
    finding = only(found({"ROS_LOCALHOST_ONLY": "1", "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}))
    assert finding.level == "warning"
    assert finding.fix.startswith("unset ROS_LOCALHOST_ONLY")


@pytest.mark.parametrize("chosen", ["OFF", "EVERYWHERE"])
def test_a_discovery_range_that_finds_nobody_is_a_warning(chosen: str) -> None:
    finding = only(found({"ROS_AUTOMATIC_DISCOVERY_RANGE": chosen}))
    assert finding.level == "warning"
    assert "ROS_AUTOMATIC_DISCOVERY_RANGE=SUBNET" in finding.fix


def test_the_shipped_profiles_are_large_enough() -> None:
    for name in ("fastdds.xml", "fastdds_localhost.xml"):
        finding = profile_finding({NEW: str(shipped_profile().with_name(name))})
        assert finding.level == "ok"
        assert "8.4 MB of shared memory" in finding.text


def test_without_a_profile_the_shipped_one_is_offered_to_fast_dds_only() -> None:
    finding = only(found({}, FAST_DDS))
    assert (finding.level, finding.fix) == ("note", f"export {NEW}={shipped_profile()}")
    assert shipped_profile().is_file()
    assert not bad(found({}, CYCLONE))


@pytest.mark.parametrize(("distribution", "read", "unread"), [("jazzy", OLD, NEW), ("kilted", NEW, OLD)])
def test_the_variable_of_another_fast_dds_is_a_warning(distribution: str, read: str, unread: str) -> None:
    environment = {"ROS_DISTRO": distribution, unread: "/profile.xml"}
    finding = profile_finding(environment)
    assert finding.level == "warning"
    assert finding.text == f"this Fast DDS does not read {unread}, but {read}"
    assert finding.fix.startswith(f"export {read}=")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("<dds><transport_descriptor><type>SHM</type></transport_descriptor></dds>", "sets no size"),
        (
            "<dds><transport_descriptor><type>SHM</type><segment_size>524288</segment_size>"
            "</transport_descriptor></dds>",
            "has 0.5 MB",
        ),
        ("<dds><transport_descriptor><type>UDPv4</type></transport_descriptor></dds>", "sets no size"),
        ("<dds>", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_a_profile_without_room_for_images_is_a_warning(
    tmp_path: Path, content: str | None, words: str
) -> None:
    profile = tmp_path / "profile.xml"
    if content is not None:
        profile.write_text(content)
    finding = profile_finding({NEW: str(profile)})
    assert finding.level == "warning"
    assert words in finding.text
    assert str(shipped_profile()) in finding.fix


def test_shared_memory_of_a_default_container_is_too_little() -> None:
    assert shared_memory_finding(8 << 30).level == "ok"
    for free in (None, 60 << 20):
        finding = shared_memory_finding(free)
        assert (finding.level, "--shm-size=1g" in finding.fix) == ("warning", True)
