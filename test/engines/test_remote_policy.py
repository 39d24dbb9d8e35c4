"""Inference in a process of its own: same answers, and nothing that happens to it is lost or lasts."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import lightvla_ros
from lightvla_ros.app import load_prompt_encoder
from lightvla_ros.core.errors import (
    BundleError,
    EngineError,
    InstructionError,
    LightVlaError,
    ObservationError,
    WorkerError,
)
from lightvla_ros.core.observation import ActionChunk, Observation
from lightvla_ros.core.realtime import become_realtime
from lightvla_ros.worker.remote_policy import RemotePolicy
from lightvla_ros.worker.restarts import RestartBudget

WAIT_S = 30.0


def observation(seed: int = 0, size: tuple[int, int] = (48, 64), proprio_dim: int = 8) -> Observation:
    rng = np.random.default_rng(seed)
    return Observation(
        images={n: rng.integers(0, 256, (*size, 3), dtype=np.uint8) for n in ("third_person", "wrist")},
        proprio=rng.uniform(-0.1, 0.2, proprio_dim),
        instruction="pick up the red cup",
        stamp_ns=5 + seed,
        epoch=2,
    )


def start(bundle: Path, *, timeout_s: float = WAIT_S, max_restarts: int = 3) -> RemotePolicy:
    return RemotePolicy(
        {"path": str(bundle), "num_threads": 1},
        check_instruction=load_prompt_encoder(bundle).encode,
        timeout_s=timeout_s,
        restarts=RestartBudget(max_restarts=max_restarts, first_delay_s=0.05),
    )


@pytest.fixture
def policy(tiny_bundle: Path) -> Iterator[RemotePolicy]:
    policy = start(tiny_bundle)
    yield policy
    policy.close()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def answer_when_back(policy: RemotePolicy, seed: int = 0) -> ActionChunk:
    until(lambda: policy.pid is not None)
    return policy.predict_chunk(observation(seed))


def is_running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_the_answers_are_those_of_the_policy_in_this_process(policy: RemotePolicy, tiny_bundle: Path) -> None:
    local = lightvla_ros.load_policy(tiny_bundle, num_threads=1)
    assert policy.spec == local.spec
    assert policy.pid != os.getpid()
    # Sizes go up and down, so that the shared memory is replaced and reused.
    for seed, size in enumerate([(48, 64), (480, 640), (20, 30)]):
        seen = observation(seed, size)
        chunk, expected = policy.predict_chunk(seen), local.predict_chunk(seen)
        np.testing.assert_array_equal(chunk.actions, expected.actions)
        for camera, mask in expected.keep_masks.items():
            np.testing.assert_array_equal(chunk.keep_masks[camera], mask)
        assert (chunk.stamp_ns, chunk.epoch, chunk.instruction) == (5 + seed, 2, "pick up the red cup")
        assert chunk.timings_ms.keys() == {*expected.timings_ms, "transport"}


def test_a_chunk_does_not_change_with_the_next_one(policy: RemotePolicy) -> None:
    chunk = policy.predict_chunk(observation(0))
    before = chunk.actions.copy()
    policy.predict_chunk(observation(1))
    np.testing.assert_array_equal(chunk.actions, before)


def test_errors_of_the_policy_arrive_as_they_are_and_the_process_goes_on(policy: RemotePolicy) -> None:
    pid = policy.pid
    with pytest.raises(ObservationError, match="8 finite numbers"):
        policy.predict_chunk(observation(proprio_dim=7))
    with pytest.raises(InstructionError, match="empty"):
        policy.check_instruction("")
    policy.predict_chunk(observation())
    assert policy.pid == pid


def test_a_killed_process_is_reported_and_comes_back(policy: RemotePolicy) -> None:
    expected = policy.predict_chunk(observation()).actions
    assert policy.pid is not None
    os.kill(policy.pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match="exit code -9"):
        policy.predict_chunk(observation())
    np.testing.assert_array_equal(answer_when_back(policy).actions, expected)
    assert policy.health.restarts == 1


def test_the_end_of_a_process_that_nobody_asks_is_noticed_and_mended(policy: RemotePolicy) -> None:
    assert policy.health.problem is None
    assert policy.pid is not None
    os.kill(policy.pid, signal.SIGKILL)
    problems: list[LightVlaError | None] = []

    def is_noticed() -> bool:
        problems.append(policy.health.problem)
        return problems[-1] is not None

    until(is_noticed)
    assert isinstance(problems[-1], WorkerError)
    assert "exit code -9" in str(problems[-1])
    until(lambda: policy.health.problem is None)
    assert policy.health.restarts == 1
    policy.predict_chunk(observation())


def test_closing_does_not_wait_for_a_restart_in_progress(tiny_bundle: Path) -> None:
    policy = start(tiny_bundle)
    for _ in range(2):
        killed = policy._process.pid
        os.kill(killed, signal.SIGKILL)
        # The next one has been started but cannot have loaded yet: Python alone takes longer to start.
        until(lambda killed=killed: policy._process.pid != killed)
    os.kill(policy._process.pid, signal.SIGSTOP)
    begun = time.monotonic()
    policy.close()
    assert time.monotonic() - begun < WAIT_S / 2
    assert not is_running(policy._process.pid)


def test_a_hung_process_is_killed_and_comes_back(tiny_bundle: Path) -> None:
    policy = start(tiny_bundle, timeout_s=0.5)
    hung = policy.pid
    assert hung is not None
    os.kill(hung, signal.SIGSTOP)
    with pytest.raises(WorkerError, match=r"no answer for 0\.5 s"):
        policy.predict_chunk(observation())
    assert not is_running(hung)
    answer_when_back(policy)
    policy.close()


def test_while_it_restarts_every_question_is_refused_at_once(policy: RemotePolicy) -> None:
    assert policy.pid is not None
    os.kill(policy.pid, signal.SIGKILL)
    for _ in range(3):
        with pytest.raises(WorkerError):
            policy.predict_chunk(observation())
    answer_when_back(policy)


def test_a_process_that_keeps_ending_is_given_up_with_a_reason(tiny_bundle: Path) -> None:
    policy = start(tiny_bundle, max_restarts=1)

    for _ in range(2):
        until(lambda: policy.pid is not None)
        assert policy.pid is not None
        os.kill(policy.pid, signal.SIGKILL)
        with pytest.raises(EngineError):  # the second time it may have been given up already
            policy.predict_chunk(observation())
    until(lambda: not isinstance(policy.health.problem, WorkerError))
    with pytest.raises(EngineError, match="1 restarts within a minute.*exit code -9.*configure") as raised:
        policy.predict_chunk(observation())
    assert not isinstance(raised.value, WorkerError)
    policy.close()


def test_a_restart_that_fails_is_tried_again(bundle_copy: Path) -> None:
    policy = start(bundle_copy)
    manifest = bundle_copy / "manifest.json"
    content = manifest.read_text()
    manifest.write_text("{")
    assert policy.pid is not None
    os.kill(policy.pid, signal.SIGKILL)
    reasons: list[str] = []

    def is_refused_for_the_manifest() -> bool:
        with pytest.raises(WorkerError) as raised:
            policy.predict_chunk(observation())
        reasons.append(str(raised.value))
        return "not started" in reasons[-1] and "invalid JSON" in reasons[-1]

    until(is_refused_for_the_manifest)
    manifest.write_text(content)
    answer_when_back(policy)
    policy.close()


def test_a_policy_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no directory"):
        RemotePolicy({"path": str(tmp_path / "nowhere")}, check_instruction=str)


def test_a_policy_that_takes_too_long_to_load_is_not_said_to_answer_too_slowly() -> None:
    with pytest.raises(
        WorkerError, match=r"no answer for 0\.001 s; expected a policy that is loaded"
    ) as raised:
        RemotePolicy({"path": "mini"}, check_instruction=str, start_timeout_s=0.001)
    assert "timeout_s" not in raised.value.fix
    assert "restarted" not in raised.value.fix


def test_a_process_without_a_file_descriptor_to_spare_is_an_error_with_a_way_out() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(WorkerError, match=r"not started: .*Too many open files"):
            RemotePolicy({"path": "mini"}, check_instruction=str)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_closing_ends_the_process(tiny_bundle: Path) -> None:
    policy = start(tiny_bundle)
    pid = policy.pid
    assert pid is not None
    policy.close()
    assert not is_running(pid)


def test_the_process_does_not_outlive_a_killed_parent(tiny_bundle: Path) -> None:
    script = (
        "import sys, time\nfrom lightvla_ros.worker.remote_policy import RemotePolicy\n"
        f"policy = RemotePolicy({{'path': {str(tiny_bundle)!r}}}, check_instruction=str)\n"
        "print(policy.pid, flush=True)\ntime.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert is_running(pid)
    parent.kill()
    parent.wait()
    until(lambda: not is_running(pid))
    parent.stdout.close()


def test_inference_never_inherits_real_time_priority(tiny_bundle: Path) -> None:
    started: list[tuple[str | None, RemotePolicy]] = []

    def start_from_a_realtime_thread() -> None:
        started.append((become_realtime(10), start(tiny_bundle)))

    thread = threading.Thread(target=start_from_a_realtime_thread)
    thread.start()
    thread.join()
    refusal, policy = started[0]
    try:
        threads = [int(name) for name in os.listdir(f"/proc/{policy.pid}/task")]
        assert {os.sched_getscheduler(number) for number in threads} == {os.SCHED_OTHER}
    finally:
        policy.close()
    if refusal:
        pytest.skip(refusal)


def test_a_prompt_encoder_alone_needs_no_engine(tiny_bundle: Path) -> None:
    encoder = load_prompt_encoder(tiny_bundle)
    expected = lightvla_ros.load_policy(tiny_bundle, num_threads=1).prompt_encoder
    np.testing.assert_array_equal(encoder.encode("put on the cup"), expected.encode("put on the cup"))
