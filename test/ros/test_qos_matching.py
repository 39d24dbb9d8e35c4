"""Subscriptions ask for what publishers offer: everybody is heard, and as reliably as they allow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import rclpy
from harness import LATCHED, Bench, wait_until
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Bool, String

from lightvla_ros.nodes import qos
from lightvla_ros.nodes.entities import Entities
from lightvla_ros.nodes.matched_subscription import MatchedSubscription

TOPIC = "/spoken"
RELIABLE = QoSProfile(depth=10)
BEST_EFFORT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
BEST_EFFORT_LATCHED = QoSProfile(
    depth=10, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
OFFERS = {"latched": LATCHED, "reliable": RELIABLE, "best effort": BEST_EFFORT, "both": BEST_EFFORT_LATCHED}
WANTED = {
    "camera": qos.CAMERA["auto"],
    "best-effort camera": qos.CAMERA["best_effort"],
    "instruction": qos.INSTRUCTION,
    "estop": qos.ESTOP,
}


class Listener:
    """A matched subscription as the node has it: in a timer of a single-threaded executor."""

    def __init__(self, wanted: qos.MatchedQos) -> None:
        self._contexts = [Context(), Context()]
        for context in self._contexts:
            rclpy.init(context=context)
        self.node, self.speaker = (
            Node(name, context=context)
            for name, context in zip(("listener", "speaker"), self._contexts, strict=True)
        )
        self.heard: list[str] = []
        self._entities = Entities(self.node)
        self.subscription = MatchedSubscription(
            self.node, self._entities, kind=String, topic=TOPIC, callback=self._on_message, qos=wanted
        )
        self.node.create_timer(0.05, self.subscription.match)
        self._executor = SingleThreadedExecutor(context=self._contexts[0])
        self._executor.add_node(self.node)

    def _on_message(self, message: String) -> None:
        self.heard.append(message.data)

    def publisher(self, profile: QoSProfile) -> Publisher[Any]:
        return self.speaker.create_publisher(String, TOPIC, profile)

    def spin_until(self, is_done: Callable[[], object], what: str) -> None:
        def spun() -> object:
            self._executor.spin_once(timeout_sec=0.01)
            return is_done()

        wait_until(spun, what)

    def hears(self, publisher: Publisher[Any], text: str) -> None:
        """What is said once both sides have found each other arrives."""

        def is_joined() -> bool:
            found = self.subscription._subscription.get_publisher_count()
            known = max(1, self.node.count_publishers(TOPIC))
            return publisher.get_subscription_count() > 0 and found >= known

        self.spin_until(is_joined, "a subscription that fits")
        publisher.publish(String(data=text))
        self.spin_until(lambda: text in self.heard, f"hearing {text!r}")

    def asks_for(self, reliability: str, durability: str = "VOLATILE") -> None:
        def is_so() -> bool:
            profile = self.subscription.profile
            return (profile.reliability.name, profile.durability.name) == (reliability, durability)

        self.spin_until(is_so, f"asking for {reliability}, {durability}")

    def spin_for_looks(self, number: int) -> None:
        """Let it look at the publishers a number of times."""
        looks: list[int] = []
        timer = self.node.create_timer(0.05, lambda: looks.append(1))
        self.spin_until(lambda: len(looks) > number, "looks")
        self.node.destroy_timer(timer)

    def close(self) -> None:
        self._executor.shutdown()
        self._entities.destroy()
        for node, context in zip((self.node, self.speaker), self._contexts, strict=True):
            node.destroy_node()
            rclpy.shutdown(context=context)


@pytest.fixture
def listen() -> Iterator[Callable[[str], Listener]]:
    made: list[Listener] = []

    def make(kind: str) -> Listener:
        made.append(Listener(WANTED[kind]))
        return made[-1]

    yield make
    for listener in made:
        listener.close()


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("kind", WANTED)
def test_whatever_a_publisher_offers_it_is_heard(
    listen: Callable[[str], Listener], kind: str, offer: str
) -> None:
    listener = listen(kind)
    listener.hears(listener.publisher(OFFERS[offer]), "hello")


def test_a_camera_is_asked_for_reliability_once_all_its_publishers_offer_it(
    listen: Callable[[str], Listener],
) -> None:
    listener = listen("camera")
    listener.asks_for("BEST_EFFORT")
    first = listener.publisher(RELIABLE)
    listener.asks_for("RELIABLE")
    second = listener.publisher(BEST_EFFORT)
    listener.asks_for("BEST_EFFORT")
    listener.hears(second, "from the best-effort one")
    listener.hears(first, "from the reliable one")
    listener.speaker.destroy_publisher(second)
    listener.asks_for("RELIABLE")
    listener.hears(first, "from the reliable one again")


def test_a_publisher_that_comes_back_with_another_quality_of_service_is_heard(
    listen: Callable[[str], Listener],
) -> None:
    listener = listen("camera")
    for number, profile in enumerate((RELIABLE, BEST_EFFORT, LATCHED, BEST_EFFORT_LATCHED)):
        publisher = listener.publisher(profile)
        listener.hears(publisher, f"life {number}")
        listener.speaker.destroy_publisher(publisher)


def test_a_kept_instruction_is_heard_by_a_node_that_comes_later(listen: Callable[[str], Listener]) -> None:
    early = listen("instruction")
    publisher = early.publisher(LATCHED)
    early.hears(publisher, "pick up the cup")
    late = listen("instruction")
    late.spin_until(lambda: late.heard, "the kept instruction")
    assert late.heard == ["pick up the cup"]
    late.asks_for("RELIABLE", "TRANSIENT_LOCAL")


def test_an_instruction_said_once_before_the_node_has_looked_who_says_it_is_heard(
    listen: Callable[[str], Listener],
) -> None:
    listener = listen("instruction")
    person = listener.publisher(RELIABLE)
    # As `ros2 topic pub --once` does it, and nothing spins meanwhile.
    wait_until(lambda: person.get_subscription_count() > 0, "a subscription that fits")
    person.publish(String(data="stop"))
    listener.spin_until(lambda: listener.heard, "the instruction")


def test_an_old_instruction_does_not_come_again_when_somebody_who_said_stop_is_gone(
    listen: Callable[[str], Listener],
) -> None:
    listener = listen("instruction")
    planner = listener.publisher(LATCHED)
    listener.hears(planner, "go")
    person = listener.publisher(RELIABLE)
    listener.hears(person, "stop")
    listener.speaker.destroy_publisher(person)
    listener.spin_until(lambda: listener.node.count_publishers(TOPIC) == 1, "the end of the person")
    listener.spin_for_looks(6)
    assert listener.heard[-1] == "stop"
    listener.hears(planner, "go on")
    listener.speaker.destroy_publisher(planner)
    listener.asks_for("RELIABLE", "TRANSIENT_LOCAL")


@pytest.mark.parametrize("kind", ["camera", "instruction", "estop"])
def test_no_message_of_a_steady_publisher_is_lost_while_others_come_and_go(
    listen: Callable[[str], Listener], kind: str
) -> None:
    listener = listen(kind)
    steady = listener.publisher(RELIABLE)
    listener.hears(steady, "first")
    said: list[str] = []

    def speak() -> None:
        said.append(f"message {len(said)}")
        steady.publish(String(data=said[-1]))
        # One message is on its way at a time: what is lost is lost by a change of the subscription.
        listener.spin_until(lambda: said[-1] in listener.heard, f"{said[-1]} after {profiles[-1]}")

    profiles = []
    for _ in range(3):
        profiles.append(listener.subscription.profile.reliability.name)
        guest = listener.publisher(BEST_EFFORT)
        while listener.subscription.profile.reliability.name != "BEST_EFFORT":
            speak()
        listener.speaker.destroy_publisher(guest)
        while listener.subscription.profile.reliability.name != "RELIABLE":
            speak()
        for _ in range(20):
            speak()
    assert len(said) > 60


def test_a_plain_button_and_a_plain_instruction_reach_the_node(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(enable_actuation=True)
    bench.activate()
    person = bench.robot.create_publisher(String, "/instruction", 10)
    # Said more than once: the first may come before the node has found who says it.
    bench.wait_until(lambda: person.publish(String(data="go")) or bench.robot.moves, "motion")
    button = bench.robot.create_publisher(Bool, "/estop", BEST_EFFORT)
    bench.wait_until(lambda: button.publish(Bool(data=True)) or bench.reason == "estop", "the stop")
