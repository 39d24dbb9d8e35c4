"""Which environment variable names a Fast DDS profile, and when none does."""

from __future__ import annotations

import pytest

from lightvla_ros.core.dds import profile_environment


@pytest.mark.parametrize(
    ("distribution", "variable"),
    [
        ("humble", "FASTRTPS_DEFAULT_PROFILES_FILE"),
        ("jazzy", "FASTRTPS_DEFAULT_PROFILES_FILE"),
        ("kilted", "FASTDDS_DEFAULT_PROFILES_FILE"),
        (None, "FASTDDS_DEFAULT_PROFILES_FILE"),
    ],
)
def test_the_variable_is_the_distributions(distribution: str | None, variable: str) -> None:
    environment = {"ROS_DISTRO": distribution} if distribution else {}
    assert profile_environment("/some/profile.xml", environment) == {variable: "/some/profile.xml"}


@pytest.mark.parametrize("profile", ["", "none"])
def test_no_profile_is_no_variable(profile: str) -> None:
    assert profile_environment(profile, {}) == {}


@pytest.mark.parametrize("name", ["FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"])
def test_a_profile_that_a_person_has_named_stays(name: str) -> None:
    assert profile_environment("/some/profile.xml", {name: "/own.xml"}) == {}
