"""What `lightvla doctor` says about a computer, from numbers to findings."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightvla_ros.backends.availability import Availability
from lightvla_ros.commands._machine_findings import (
    available_memory,
    capacity,
    clock_error_us,
    governor_finding,
    governors,
    gpu_finding,
    may_become_realtime,
    realtime_finding,
    synchronisation_finding,
)


def test_enough_cores_and_memory_are_one_line() -> None:
    (found,) = capacity(8, int(16e9))
    assert (found.level, found.text) == ("ok", "8 CPU cores for this process, 16.0 GB of memory free")


def test_one_core_and_little_memory_are_warnings_with_what_to_do() -> None:
    cores, memory = capacity(1, int(3e8))
    assert (cores.level, memory.level) == ("warning", "warning")
    assert cores.text.startswith("1 CPU core for this process: ")
    assert "--cpus=2" in cores.fix
    assert (memory.text, memory.fix) == ("0.3 GB of memory free", "close other programs")
    assert [finding.level for finding in capacity(4, int(3e8))] == ["ok", "warning"]
    assert [finding.level for finding in capacity(1, int(8e9))] == ["warning", "ok"]


def test_powersave_on_any_core_is_a_warning_with_the_command() -> None:
    found = governor_finding(["performance", "powersave", "performance"])
    assert (found.level, found.fix) == ("warning", "sudo cpupower frequency-set -g performance")
    assert "performance on 2, powersave on 1" in found.text


@pytest.mark.parametrize("name", ["performance", "schedutil"])
def test_other_governors_are_told(name: str) -> None:
    found = governor_finding([name, name])
    assert (found.level, found.text, found.fix) == ("ok", f"CPU frequency governor {name}", "")


def test_a_machine_without_governors_is_a_note() -> None:
    found = governor_finding([])
    assert (found.level, found.fix) == ("note", "")


def test_governors_are_read_core_by_core(tmp_path: Path) -> None:
    for index, name in enumerate(("performance", "powersave")):
        directory = tmp_path / f"cpu{index}" / "cpufreq"
        directory.mkdir(parents=True)
        (directory / "scaling_governor").write_text(f"{name}\n")
    (tmp_path / "cpufreq").mkdir()
    assert governors(tmp_path) == ["performance", "powersave"]
    assert governors(tmp_path / "none") == []


def test_real_time_priority_that_is_not_permitted_is_a_note_with_the_remedies() -> None:
    assert realtime_finding(20, permitted=True).level == "ok"
    found = realtime_finding(20, permitted=False)
    assert found.level == "note"
    assert all(word in found.fix for word in ("rtprio 20", "LimitRTPRIO=20", "--cap-add=SYS_NICE"))


def test_trying_the_priority_leaves_this_thread_as_it_was() -> None:
    import os

    before = os.sched_getscheduler(0)
    assert isinstance(may_become_realtime(1), bool)
    assert os.sched_getscheduler(0) == before


def test_a_clock_is_synchronised_below_the_kernels_limit() -> None:
    found = synchronisation_finding(2_500)
    assert (found.level, found.text) == ("ok", "the system's clock is synchronised, to 2.5 ms at worst")
    free = synchronisation_finding(16_000_000)
    assert (free.level, "chrony" in free.fix) == ("note", True)
    assert "cannot be told" in synchronisation_finding(None).text


def test_this_machine_tells_its_memory_and_its_clocks_error() -> None:
    assert available_memory() > 0
    error_us = clock_error_us()
    assert error_us is None or 0 <= error_us <= 16_000_000


def test_a_gpu_is_fine_incomplete_or_not_there() -> None:
    found = [
        gpu_finding(Availability(name="gpu", usable=True, found="RTX A6000")),
        gpu_finding(Availability(name="gpu", usable=False, found="a GPU", lacks="CUDA", fix="install it")),
        gpu_finding(Availability(name="gpu", usable=False)),
    ]
    assert [finding.level for finding in found] == ["ok", "warning", "note"]
    assert (found[1].text, found[1].fix) == ("a GPU without CUDA", "install it")
