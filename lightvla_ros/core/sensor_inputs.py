"""What comes from the robot: checked, paired, and judged whether it may be acted on."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.config import NodeConfig
from lightvla_ros.core.errors import ObservationError
from lightvla_ros.core.frame_pairing import Frame, FramePair, FramePairing
from lightvla_ros.core.watchdog import FrozenImages, InputMonitor, StopReason

STATE = "robot_state"


class SensorInputs:
    """Cameras and robot state. Not thread safe: the owner locks.

    Args:
        cameras: names of the cameras that motion depends on.
        config: the node's configuration.
        counters: where frames and refusals are counted.

    Attributes:
        proprio: float64 [P], the newest state; None before the first and after one that was refused.
    """

    def __init__(self, cameras: tuple[str, ...], config: NodeConfig, counters: Counter[str]) -> None:
        self._counters = counters
        self._pairing = FramePairing(cameras, max_skew_ns=0)
        self._monitor = InputMonitor((*cameras, STATE), stale_after_ns=0)
        self._frozen_images = FrozenImages(0)
        self._sizes: dict[str, tuple[int, ...]] = {}
        self._frozen: dict[str, StopReason] = {}
        self._paired_ns = 0
        self.proprio: NDArray[np.float64] | None = None
        self.apply(config)

    def apply(self, config: NodeConfig) -> None:
        """Take over the values that may change while running."""
        self._stale_after_ns = round(config.stale_after_s * 1e9)
        self._max_ahead_ns = round(config.max_ahead_s * 1e9)
        self._pairing.max_skew_ns = round(config.camera.max_pair_skew_s * 1e9)
        self._monitor.stale_after_ns = self._stale_after_ns
        self._frozen_images.frozen_after_ns = round(config.camera.frozen_after_s * 1e9)

    def restart(self, now_ns: int) -> None:
        """Forget every message but the images' sizes, and wait for every input anew."""
        self._pairing.clear()
        self._monitor.restart(now_ns)
        self._frozen_images.clear()
        self._frozen.clear()
        self._paired_ns = now_ns
        self.proprio = None

    def forget_sizes(self) -> None:
        """Take the next image of each camera as the measure of those that follow."""
        self._sizes.clear()

    def add_frame(self, camera: str, frame: Frame, now_ns: int) -> FramePair | None:
        """Take an image in.

        Returns:
            The pair it completes, if it completes one.

        Raises:
            ObservationError: the image has another size than before, or a stamp in the future.
        """
        self._counters[f"frames_{camera}"] += 1
        self._check_size(camera, frame)
        self._check_stamp(f"camera {camera}", frame.stamp_ns, now_ns)
        self._monitor.accept(camera, frame.stamp_ns)
        self._counters["frames_stale"] += now_ns - frame.stamp_ns > self._stale_after_ns
        frozen = self._frozen_images.add(camera, frame.image, frame.stamp_ns)
        if frozen is None:
            self._frozen.pop(camera, None)
        else:
            self._frozen[camera] = frozen
        pair = self._pairing.add(camera, frame)
        self._counters["frames_unpaired"] = self._pairing.unpaired
        if pair is not None:
            self._paired_ns = pair.stamp_ns
        return pair

    def add_proprio(self, proprio: NDArray[np.float64], stamp_ns: int, now_ns: int) -> None:
        """Take the robot's state in, float64 [P], finite.

        Raises:
            ObservationError: the stamp is in the future, from where it would never grow old.
        """
        self._check_stamp("the robot's state", stamp_ns, now_ns)
        self.proprio = proprio
        self._monitor.accept(STATE, stamp_ns)

    def refuse(self, name: str, message: str) -> None:
        """Note a message that cannot be used; nothing older is used in its place."""
        self._counters[f"refused_{name}"] += 1
        self._monitor.refuse(name, message)
        if name == STATE:
            self.proprio = None
        else:
            self._pairing.forget(name)

    def problem(self, now_ns: int) -> StopReason | None:
        """Return what forbids motion, None when all inputs are fresh, alive and of one time."""
        problem = self._monitor.problem(now_ns) or next(iter(self._frozen.values()), None)
        if problem is None and now_ns - self._paired_ns > self._stale_after_ns:
            return self._skew()
        return problem

    def _skew(self) -> StopReason:
        nearest_ns = self._pairing.nearest_skew_ns()
        got = "never meet" if nearest_ns is None else f"are at best {nearest_ns / 1e9:.3f} s apart"
        return StopReason(
            "skew",
            f"images of the cameras come, but {got}; expected at most camera.max_pair_skew_s = "
            f"{self._pairing.max_skew_ns / 1e9:g} s. Fix: synchronise the cameras or their clocks, or raise "
            "camera.max_pair_skew_s",
        )

    def _check_size(self, camera: str, frame: Frame) -> None:
        size = self._sizes.setdefault(camera, frame.image.shape)
        if frame.image.shape != size:
            raise ObservationError(
                f"image of camera {camera}",
                got=f"{frame.image.shape[1]}x{frame.image.shape[0]} pixels",
                expected=f"{size[1]}x{size[0]} as since activation",
                fix="set the camera back, or call ~/reset to go on with the new size",
            )

    def _check_stamp(self, source: str, stamp_ns: int, now_ns: int) -> None:
        if stamp_ns - now_ns > self._max_ahead_ns:
            raise ObservationError(
                f"stamp of {source}",
                got=f"{(stamp_ns - now_ns) / 1e9:.2f} s in the future",
                expected="the time of this node's clock, at most max_ahead_s = "
                f"{self._max_ahead_ns / 1e9:g} s ahead",
                fix="synchronise the clocks, and set use_sim_time alike everywhere",
            )
