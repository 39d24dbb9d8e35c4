"""The Fast DDS profiles carry images between processes; the local one keeps them on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

CONFIG = Path(__file__).parents[2] / "config"
PROFILES = ("fastdds.xml", "fastdds_localhost.xml")
LISTENER = """
import sys, rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
rclpy.init()
node, images = rclpy.create_node("listener"), []
node.create_subscription(Image, "camera", images.append, qos_profile_sensor_data)
while len(images) < 10:
    rclpy.spin_once(node)
assert all(bytes(image.data[:4]) == b"abcd" and len(image.data) == 640 * 480 * 3 for image in images)
"""
CAMERA = """
import time, rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
rclpy.init()
publisher = rclpy.create_node("camera").create_publisher(Image, "camera", qos_profile_sensor_data)
image = Image(height=480, width=640, step=1920, encoding="rgb8")
image.data.frombytes(b"abcd" * (480 * 480))
print("ready", flush=True)
while True:
    publisher.publish(image)
    time.sleep(0.03)
"""
LOOPBACK = "127.0.0.1"
TIMEOUT_S = 60.0


def udp_addresses(pid: int) -> set[str]:
    """The addresses that the process's UDP sockets are bound to; one that sends from loopback stays there."""
    links = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    inodes = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
    rows = [line.split() for line in Path(f"/proc/{pid}/net/udp").read_text().splitlines()[1:]]
    return {
        socket.inet_ntoa(int(row[1].partition(":")[0], 16).to_bytes(4, sys.byteorder))
        for row in rows
        if row[9] in inodes
    }


@pytest.mark.parametrize("profile", PROFILES)
def test_images_of_a_best_effort_camera_reach_another_process(profile: str) -> None:
    environment = {
        **os.environ,
        # The default of ROS, under which only the profile can keep anything from the network.
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET",
        "FASTDDS_DEFAULT_PROFILES_FILE": str(CONFIG / profile),
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(CONFIG / profile),
    }
    command = [sys.executable, "-c", CAMERA]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as camera:
        try:
            assert camera.stdout is not None
            assert camera.stdout.readline() == b"ready\n"
            subprocess.run([sys.executable, "-c", LISTENER], env=environment, timeout=TIMEOUT_S, check=True)
            addresses = {a for a in udp_addresses(camera.pid) if not a.startswith("239.")}
        finally:
            camera.kill()
    assert addresses
    assert (addresses == {LOOPBACK}) == (profile == "fastdds_localhost.xml")


def test_the_profiles_differ_in_the_loopback_interface_only() -> None:
    contents = []
    for profile in PROFILES:
        root = ElementTree.parse(CONFIG / profile).getroot()
        for transport in root.findall(".//{*}transport_descriptor"):
            for listed in transport.findall("{*}interfaceWhiteList"):
                assert [address.text for address in listed] == [LOOPBACK]
                transport.remove(listed)
        contents.append(ElementTree.canonicalize(ElementTree.tostring(root), strip_text=True))
    assert contents[0] == contents[1]
