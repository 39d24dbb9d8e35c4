"""The other end of `policy/command`: a controller that follows twists, and stops by itself without them.

    python controller.py        # in an environment with rclpy; prints where the arm would be

Take from it what every controller of a policy needs: it integrates what comes, it forgets what is older than
its own limit, and a gripper that is told on change stays where it was told.
"""

import contextlib

import rclpy
from geometry_msgs.msg import TwistStamped
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.time import Time
from std_msgs.msg import Float64

PERIOD_S = 0.01
# Longer than a period of the policy's commands, shorter than what may happen blindly.
TIMEOUT_S = 0.2


class Controller(Node):
    """Integrates velocities into a position; a real one would send joint velocities."""

    def __init__(self) -> None:
        super().__init__("controller")
        self.position_m = [0.4, 0.0, 0.3]
        self.gripper = "as it was"
        self._command: TwistStamped | None = None
        self.create_subscription(TwistStamped, "policy/command", self._on_command, 1)
        self.create_subscription(Float64, "policy/gripper", self._on_gripper, 1)
        self.create_timer(PERIOD_S, self._step)
        self.create_timer(0.5, self._tell)

    @property
    def velocity_m_s(self) -> tuple[float, float, float]:
        """What is to be followed now; zero when the last command is too old."""
        command = self._command
        if command is None:
            return 0.0, 0.0, 0.0
        age_s = (self.get_clock().now() - Time.from_msg(command.header.stamp)).nanoseconds / 1e9
        linear = command.twist.linear
        return (linear.x, linear.y, linear.z) if age_s <= TIMEOUT_S else (0.0, 0.0, 0.0)

    def _on_command(self, message: TwistStamped) -> None:
        self._command = message

    def _on_gripper(self, message: Float64) -> None:
        self.gripper = "closed" if message.data > 0 else "open"

    def _step(self) -> None:
        self.position_m = [
            position + PERIOD_S * velocity
            for position, velocity in zip(self.position_m, self.velocity_m_s, strict=True)
        ]

    def _tell(self) -> None:
        place = ", ".join(f"{value:+.3f}" for value in self.position_m)
        self.get_logger().info(
            f"at ({place}) m, {max(map(abs, self.velocity_m_s)):.3f} m/s, gripper {self.gripper}"
        )


if __name__ == "__main__":
    rclpy.init()
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(Controller())
