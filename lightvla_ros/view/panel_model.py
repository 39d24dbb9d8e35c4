"""The panel without its looks: takes what ROS says in one thread, tells another what to show."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import LightVlaError
from lightvla_ros.core.inference_record import InferenceRecord
from lightvla_ros.view.panel_banner import banner
from lightvla_ros.view.panel_state import CameraView, Chart, Mode, PanelState, Wanted
from lightvla_ros.view.policy_status import DEFAULT_NODE, node_of, parse_status
from lightvla_ros.view.watched_node import Picture, WatchedNode


class PanelModel:
    """Policy nodes that were heard, and the chosen one among them. One lock guards everything.

    Time is an argument: seconds of any clock that only goes forward.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._nodes: dict[str, WatchedNode] = {}
        self._wanted = ""
        self._mode = Mode.OVERLAY
        self._problems: dict[str, str] = {}
        self._answer = ""
        self._enabled: bool | None = None

    @property
    def mode(self) -> Mode:
        """What is shown of the cameras."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        with self._lock:
            self._mode = mode

    @property
    def chosen(self) -> str:
        """Full name of the node that was asked for; "" when none was."""
        return self._wanted

    def choose(self, node: str) -> None:
        """Show the node of this full name; "" for `DEFAULT_NODE`, or any other when that is not there."""
        with self._lock:
            self._wanted = f"/{node.lstrip('/')}" if node else ""
            self._answer, self._enabled = "", None

    def hear_status(
        self, name: str, level: int, message: str, values: Mapping[str, str], now_s: float
    ) -> None:
        """Take in a diagnostic status; one that is not a policy node's is ignored."""
        node = node_of(name)
        if node is None:
            return
        snapshot = parse_status(node, level, message, values)
        with self._lock:
            if node == self._shown:
                self._enabled = None
            if node in self._nodes:
                self._nodes[node].add(snapshot, now_s)
            else:
                self._nodes[node] = WatchedNode(snapshot, now_s)

    def hear_record(self, node: str, text: str, now_s: float) -> None:
        """Take in the JSON of an inference record; another text becomes a problem to show."""
        try:
            record, problem = InferenceRecord.from_json(text), ""
        except LightVlaError as error:
            record, problem = None, str(error)
        with self._lock:
            self._problems["record"] = problem
            if record is not None and node in self._nodes:
                self._nodes[node].add_record(record, now_s)

    def hear_picture(
        self, node: str, camera: str, mode: Mode, image: NDArray[np.uint8], *, stamp_ns: int, now_s: float
    ) -> None:
        """Take in a picture.

        Args:
            node: full name of the policy node it is about.
            camera: the policy's name of the camera.
            mode: what the picture is.
            image: uint8 [H, W, 3] RGB, of a mask [rows, columns, 3] or [rows, columns]; must stay unchanged.
            stamp_ns: stamp of the camera's image.
            now_s: when it came.
        """
        problem = _misshapen(image, mode)
        if not problem and mode is Mode.MASK and image.ndim == 3:
            image = image[:, :, 0]
        picture = Picture(heard_s=now_s, stamp_ns=stamp_ns, image=None if problem else image, problem=problem)
        self._add_picture(node, camera, mode, picture)

    def hear_bad_picture(self, node: str, camera: str, mode: Mode, problem: str, now_s: float) -> None:
        """Take in what was wrong with a message on a picture's topic."""
        self._add_picture(node, camera, mode, Picture(heard_s=now_s, problem=problem))

    def tell(self, source: str, problem: str) -> None:
        """Note what is wrong with a topic or another source; "" when nothing is any more."""
        with self._lock:
            self._problems[source] = problem

    def answer(self, text: str, *, enabled: bool | None = None) -> None:
        """Note what came of something that was asked of the node.

        Args:
            text: for the person who asked.
            enabled: whether commands are enabled now, where the answer says so: sooner than diagnostics do.
        """
        with self._lock:
            self._answer = text
            self._enabled = self._enabled if enabled is None else enabled

    def wanted(self) -> Wanted:
        """Tell what must be heard for what is shown."""
        with self._lock:
            node = self._nodes.get(self._shown)
            pictures = node.topics(self._mode) if node else {}
            # A node that was never configured publishes none.
            records = f"{node.namespace}/policy/inference" if node and pictures else ""
            return Wanted(node=self._shown, mode=self._mode, records=records, pictures=pictures)

    def state(self, now_s: float) -> PanelState:
        """Tell what to show now."""
        with self._lock:
            shown = self._shown
            node = self._nodes.get(shown)
            names = tuple(sorted({*self._nodes, *([shown] if shown else [])}))
            head = banner(node.trace if node else None, now_s, self._wanted or "a policy node")
            topics = node.topics(self._mode) if node else {}
            problems = tuple(
                text for name, text in self._problems.items() if text and name not in topics.values()
            )
            if node is None:
                return PanelState(
                    node=shown,
                    nodes=names,
                    banner=head,
                    mode=self._mode,
                    problems=problems,
                    answer=self._answer,
                )
            snapshot = node.trace.snapshot
            return PanelState(
                node=shown,
                nodes=names,
                banner=head,
                mode=self._mode,
                instruction=snapshot.instruction,
                epoch=snapshot.epoch,
                engine=f"{snapshot.engine} on {snapshot.backend}" if snapshot.engine else "",
                is_enabled=self._is_enabled(node),
                cameras=tuple(self._camera(node, camera, topic, now_s) for camera, topic in topics.items()),
                problems=problems,
                answer=self._answer,
            )

    def charts(self, now_s: float) -> tuple[Chart, Chart] | tuple[None, None]:
        """Tell the last minute, retained tokens and latency; None before the node was heard."""
        with self._lock:
            node = self._nodes.get(self._shown)
            return (None, None) if node is None else (node.kept_chart(now_s), node.latency_chart(now_s))

    @property
    def _shown(self) -> str:
        if self._wanted:
            return self._wanted
        return DEFAULT_NODE if DEFAULT_NODE in self._nodes else next(iter(self._nodes), "")

    def _is_enabled(self, node: WatchedNode) -> bool | None:
        if not node.trace.snapshot.engine:
            return None  # a node that is not configured tells nothing about it
        return node.trace.snapshot.enabled if self._enabled is None else self._enabled

    def _add_picture(self, node: str, camera: str, mode: Mode, picture: Picture) -> None:
        with self._lock:
            if node in self._nodes:
                self._nodes[node].pictures[camera, mode] = picture

    def _camera(self, node: WatchedNode, camera: str, topic: str, now_s: float) -> CameraView:
        return node.camera_view(camera, self._mode, topic, self._problems.get(topic, ""), now_s)


def _misshapen(image: NDArray[np.uint8], mode: Mode) -> str:
    """Say what is wrong with an array as a picture; "" when nothing is."""
    dims = (2, 3) if mode is Mode.MASK else (3,)
    if (
        image.dtype != np.uint8
        or image.ndim not in dims
        or image.size == 0
        or image.shape[2:] not in ((), (3,))
    ):
        return f"the {mode.value} is {image.dtype} {list(image.shape)}; expected uint8 [H, W, 3]"
    if mode is Mode.MASK and not np.isin(image, (0, 255)).all():
        return "the mask has other values than 0 and 255: is its topic a camera's image?"
    return ""
