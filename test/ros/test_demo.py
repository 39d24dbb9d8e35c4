"""`lightvla demo` end to end: both nodes as processes over DDS, on the embedded policy."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import cv2

from lightvla_ros.view.video import count_frames

COMMAND = "import sys; from lightvla_ros.cli import main; sys.exit(main())"


def _start(out: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "demo", "--headless", "--out", str(out), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _processes_with(word: str) -> list[str]:
    """Command lines of running processes that contain `word`."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # ended in the meantime
            continue
    return [line for line in lines if word in line]


def test_the_demo_acts_measures_and_leaves_a_video_and_a_picture(tmp_path: Path) -> None:
    demo = _start(tmp_path, "--episodes", "1", "--max-steps", "60", "--json")
    output, errors = demo.communicate(timeout=120)
    assert demo.returncode == 0, errors
    summary = json.loads(output.splitlines()[-1])

    assert summary["episodes"] == 1
    assert 0.0 <= summary["success"] <= 1.0
    assert 15.0 < summary["chunk_rate_hz"] < 25.0
    assert 15.0 < summary["command_rate_hz"] < 25.0
    assert 1 <= summary["retained_min"] < summary["retained_max"] <= summary["num_visual_tokens"]
    assert summary["retained_min"] <= summary["retained_mean"] <= summary["retained_max"]
    assert cv2.imread(str(tmp_path / "demo.png")) is not None
    assert count_frames(tmp_path / "demo.mp4") >= 10


def test_a_bundle_that_is_not_there_fails_before_anything_starts(tmp_path: Path) -> None:
    demo = _start(tmp_path, "--engine", "no-such-bundle")
    _, errors = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert "no-such-bundle" in errors
    assert not list(tmp_path.glob("*.log"))


def test_a_bundle_that_the_node_refuses_fails_with_its_reason_and_leaves_no_process(tmp_path: Path) -> None:
    engine = tmp_path / "broken"
    engine.mkdir()
    (engine / "manifest.json").write_text("{}")
    demo = _start(tmp_path / "out", "--engine", str(engine))
    _, errors = demo.communicate(timeout=120)
    assert demo.returncode == 1
    assert "policy_node failed" in errors
    assert "schema_version" in errors
    assert _processes_with(str(engine)) == []


def test_an_interrupted_demo_leaves_no_process(tmp_path: Path) -> None:
    seed = f"seed:={uuid.uuid4().int % 2**30}"
    demo = _start(tmp_path, "--seed", seed.removeprefix("seed:="))
    log = tmp_path / "sim_node.log"
    deadline_s = time.monotonic() + 60.0
    while not (log.is_file() and "episode 1" in log.read_text()):
        assert time.monotonic() < deadline_s, "the world did not start"
        time.sleep(0.05)
    assert len(_processes_with(seed)) == 1
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert _processes_with(seed) == []
