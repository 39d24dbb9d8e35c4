"""Tells a policy what to do and looks at what it retains, without ROS: `pip install rosless numpy`.

    python client_without_ros.py "pick up the red cube and place it in the basket" [DOMAIN]

rosless speaks DDS by itself. That it is understood shows that the node's topics are plain ROS 2 messages.
Version 0.5 misreads sequences of numbers that are empty, as a trajectory's velocities are here; so of a chunk
only what stands before its points is read, and the points from `policy/inference`, which is text.
"""

import json
import sys
import time

import numpy as np
import rosless

TIMEOUT_S = 30.0
CHUNK = "std_msgs/Header header\nstring[] joint_names\n"


def main(instruction: str, domain: int) -> None:
    """Publish the instruction, then print chunks and counts of retained patches for a while."""
    rosless.register_type("trajectory_msgs/msg/JointTrajectory", CHUNK)
    latched = {"durability": "transient_local", "reliability": "reliable", "depth": 1}
    chunks = rosless.subscribe("/policy/action_chunk", domain=domain, reliability="reliable")
    inferences = rosless.subscribe("/policy/inference", domain=domain, reliability="reliable")
    masks = rosless.subscribe("/policy/retained_tokens/third_person", domain=domain, reliability="reliable")
    with rosless.advertise("/instruction", "std_msgs/msg/String", domain=domain, **latched) as publisher:
        deadline_s = time.monotonic() + TIMEOUT_S
        while publisher.subscriber_count == 0:
            if time.monotonic() > deadline_s:
                raise SystemExit(
                    f"nobody listens to /instruction on domain {domain}: does the policy node run?"
                )
            time.sleep(0.1)
        publisher.send({"data": instruction})
        for _ in range(10):
            heard = [topic.read(timeout=TIMEOUT_S) for topic in (chunks, inferences, masks)]
            if None in heard:
                raise SystemExit("no chunk: ask `lightvla top` why the policy does not infer")
            chunk, inference, mask = heard
            actions = np.array(json.loads(inference.data)["actions"])
            grid = np.frombuffer(mask.data, dtype=np.uint8).reshape(mask.height, mask.width)
            retained = f"{(grid == 255).sum()} of {grid.size} patches retained"
            print(f"{len(actions)} steps of {chunk.joint_names}, next {actions[0].round(3)}; {retained}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0)
