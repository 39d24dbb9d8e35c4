"""Python runs this at the start of every process whose PYTHONPATH names this folder.

It puts a policy that misbehaves on command behind `load_policy`, in the process that the policy node
itself starts for inference. The command is the text of the file named by LIGHTVLA_TEST_FAULT.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import time
from typing import Any

import numpy as np

from lightvla_ros.core.realtime import lower_process

lower_process()  # before libraries start threads, as the inference process does

from lightvla_ros import app  # noqa: E402


class SpoiledPolicy:
    """A policy and what goes wrong with it.

    Commands: `late SECONDS`, `hold_lock SECONDS` (once: Python's lock is not let go),
    `stretch FACTOR` (steps last longer), `nan`, `short` (chunks of the wrong shape), `echo` (the action's
    x is the instruction's number over 2000).
    """

    def __init__(self, policy: Any) -> None:
        self._policy = policy
        self._file = os.environ["LIGHTVLA_TEST_FAULT"]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def predict_chunk(self, observation: Any) -> Any:
        with open(self._file) as file:
            fault, _, value = file.read().partition(" ")
        chunk = self._policy.predict_chunk(observation)
        if fault == "late":
            time.sleep(float(value))
        elif fault == "hold_lock":
            os.truncate(self._file, 0)
            ctypes.PyDLL(None).usleep(round(float(value) * 1e6))
        elif fault == "stretch":
            return dataclasses.replace(chunk, step_period_ns=round(float(value) * chunk.step_period_ns))
        elif fault == "nan":
            return dataclasses.replace(chunk, actions=np.full_like(chunk.actions, np.nan))
        elif fault == "short":
            return dataclasses.replace(chunk, actions=chunk.actions[:, :3])
        elif fault == "echo":
            actions = np.zeros_like(chunk.actions)
            actions[:, 0] = float(observation.instruction.split()[-1]) / 2000.0
            return dataclasses.replace(chunk, actions=actions)
        return chunk


def load_spoiled(*args: Any, **options: Any) -> SpoiledPolicy:
    return SpoiledPolicy(_load_policy(*args, **options))


_load_policy = app.load_policy
app.load_policy = load_spoiled
