"""The tabletop scene as a MuJoCo model, generated from code: arm, table, objects, basket, plate, cameras.

The arm is generic: seven revolute joints in Panda-like proportions (Denavit-Hartenberg lengths 0.333,
0.316, 0.0825, 0.384, 0.088, 0.107 m), made of primitives with guessed masses. It is not a calibrated
model of any robot.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lightvla_ros.sim.gl import mujoco

ARM_JOINTS = tuple(f"joint{i}" for i in range(1, 8))
FINGER_JOINTS = ("finger_left", "finger_right")
FINGER_OPEN_M = 0.04
PHYSICS_STEP_S = 0.0025
HOME_JOINTS = np.array([0.0, -0.35, 0.0, -2.55, 0.0, 2.2, 0.785])


@dataclass(frozen=True, slots=True, kw_only=True)
class GraspObject:
    """An object the gripper can take.

    Attributes:
        name: as instructions call it.
        rgb: surface colour, 0..1.
        half_width: m, half the size between the fingers.
        half_height: m.
        grasp_offset: m, height of the grasp above the object's centre.
    """

    name: str
    rgb: tuple[float, float, float]
    half_width: float = 0.023
    half_height: float = 0.023
    grasp_offset: float = 0.0

    @property
    def body(self) -> str:
        """Name of the object's body in the model."""
        return self.name.replace(" ", "_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A place an object can be put.

    Attributes:
        name: as instructions call it, and its body in the model.
        preposition: "in the" or "on the".
        position: m [2], nominal place of its centre on the table.
        radius: m, an object's centre within it (per axis for the basket) counts as there.
        release_height: m, height of the object's underside when the expert lets go.
        rest_height: m, an object's underside below it counts as resting there.
    """

    name: str
    preposition: str
    position: tuple[float, float]
    radius: float
    release_height: float
    rest_height: float


OBJECTS = (
    GraspObject(name="red cube", rgb=(0.90, 0.05, 0.05)),
    GraspObject(name="blue cube", rgb=(0.05, 0.18, 0.95)),
    GraspObject(name="green cube", rgb=(0.03, 0.65, 0.12)),
    GraspObject(
        name="yellow can", rgb=(1.0, 0.82, 0.0), half_width=0.024, half_height=0.03, grasp_offset=0.005
    ),
)
TARGETS = (
    Target(
        name="basket",
        preposition="in the",
        position=(0.12, 0.125),
        radius=0.072,
        release_height=0.065,
        rest_height=0.04,
    ),
    Target(
        name="plate",
        preposition="on the",
        position=(0.12, -0.125),
        radius=0.06,
        release_height=0.013,
        rest_height=0.03,
    ),
)


def build_model() -> mujoco.MjModel:
    """Compile the scene."""
    return mujoco.MjModel.from_xml_string(_scene_xml(), {"wood.png": _png(_wood())})


def _wood() -> NDArray[np.uint8]:
    """Plank texture, uint8 [256, 256, 3] RGB; the same on every call."""
    rng = np.random.default_rng(7)
    size = 256
    drift = np.cumsum(rng.normal(0.0, 0.6, size))
    rows = np.sin(np.linspace(0.0, 70.0, size)[:, None] + 0.12 * drift[None, :])
    grain = 1.0 + 0.035 * rows + rng.normal(0.0, 0.012, (size, 1)) + rng.normal(0.0, 0.006, (size, size))
    grain[:: size // 4] *= 0.86
    base = np.array([0.80, 0.66, 0.49])
    return np.asarray(np.clip(grain[..., None] * base, 0.0, 1.0) * 255.0).astype(np.uint8)


def _png(image: NDArray[np.uint8]) -> bytes:
    return bytes(cv2.imencode(".png", image[..., ::-1])[1].tobytes())


def _rgba(rgb: tuple[float, float, float]) -> str:
    return f'rgba="{rgb[0]} {rgb[1]} {rgb[2]} 1"'


_VISUAL = 'contype="0" conaffinity="0"'
_WHITE = 'rgba=".93 .93 .95 1"'
_DARK = 'rgba=".22 .22 .25 1"'
_GREY = 'rgba=".75 .75 .78 1"'


def _capsule(start: str, end: str, radius: float, colour: str = _WHITE) -> str:
    return f'<geom {_VISUAL} type="capsule" fromto="{start} {end}" size="{radius}" {colour} mass="1.2"/>'


def _cylinder(start: str, end: str, radius: float, colour: str = _DARK) -> str:
    return f'<geom {_VISUAL} type="cylinder" fromto="{start} {end}" size="{radius}" {colour} mass=".6"/>'


def _finger(name: str, quaternion: str) -> str:
    return f"""
    <body name="{name}_body" pos="0 0 .0584" quat="{quaternion}" gravcomp="1">
      <joint name="{name}" type="slide" axis="0 1 0" range="0 {FINGER_OPEN_M}" damping="10" armature=".05"/>
      <geom {_VISUAL} type="box" pos="0 .012 .020" size=".010 .009 .022" {_DARK} mass=".02"/>
      <geom name="{name}_pad" type="box" pos="0 .0055 .0445" size=".0105 .0055 .0095" mass=".02"
            rgba=".62 .62 .65 1" friction="1.8 .05 .001" condim="4" solref=".006 1"/>
    </body>"""


def _hand() -> str:
    # The camera looks past the fingers: 22 degrees inwards, so that they and what is under them are seen.
    return f"""
    <body name="hand" pos="0 0 .107" quat=".9238795 0 0 -.3826834" gravcomp="1">
      <geom name="palm" type="box" pos="0 0 .03" size=".028 .1 .03" {_WHITE} mass=".5"/>
      <geom {_VISUAL} type="box" pos=".062 0 .005" size=".012 .03 .012" {_DARK} mass=".02"/>
      <camera name="wrist" pos=".075 0 .01" xyaxes="0 1 0 .927 0 .375" fovy="72"/>
      <site name="grip" pos="0 0 .1034" size=".004" rgba="0 0 0 0"/>
      {_finger("finger_left", "1 0 0 0")}{_finger("finger_right", "0 0 0 1")}
    </body>"""


def _link(index: int, frame: str, joint_range: str, shapes: str) -> str:
    joint = f'<joint name="joint{index}" axis="0 0 1" range="{joint_range}" damping="1" armature=".1"/>'
    return f'<body name="link{index}" {frame} gravcomp="1">{joint}{shapes}'


def _arm() -> str:
    turn, back = 'quat="1 1 0 0"', 'quat="1 -1 0 0"'
    links = (
        _link(1, 'pos="0 0 .333"', "-2.9 2.9", _capsule("0 0 -.14", "0 0 -.02", 0.065)
              + _cylinder("0 -.066 0", "0 .066 0", 0.06)),
        _link(2, back, "-1.76 1.76", _capsule("0 -.05 0", "0 -.16 0", 0.062)),
        _link(3, f'pos="0 -.316 0" {turn}', "-2.9 2.9", _capsule("0 0 -.12", "0 0 -.04", 0.06)
              + _capsule("0 0 0", ".07 0 0", 0.055)),
        _link(4, f'pos=".0825 0 0" {turn}', "-3.07 -.07", _cylinder("0 0 -.06", "0 0 .06", 0.052)
              + _capsule("-.03 .03 0", "-.0825 .12 0", 0.052)),
        _link(5, f'pos="-.0825 .384 0" {back}', "-2.9 2.9", _capsule("0 0 -.25", "0 .03 -.1", 0.048)
              + _capsule("0 .03 -.1", "0 0 -.02", 0.044)),
        _link(6, turn, "-.017 3.75", _cylinder("0 0 -.055", "0 0 .055", 0.046)
              + _capsule("0 0 0", ".06 0 0", 0.044)),
        _link(7, f'pos=".088 0 0" {turn}', "-2.9 2.9", _cylinder("0 0 .04", "0 0 .107", 0.042)),
    )  # fmt: skip
    base = _cylinder("0 0 0", "0 0 .06", 0.1) + _capsule("0 0 .06", "0 0 .2", 0.07)
    chain = "".join(links) + _hand() + "</body>" * len(links)
    return f'<body name="base" pos="-.6 0 0">{base}{chain}</body>'


def _object(item: GraspObject) -> str:
    contact = 'friction="1.4 .02 .001" condim="4"'
    width, height = item.half_width, item.half_height
    if "can" in item.name:
        # The lid makes the can look like one; it is not part of the collision shape.
        lid = f'<geom {_VISUAL} type="cylinder" pos="0 0 {height}" size="{width / 2} .001" mass="0" {_GREY}/>'
        shape = f'<geom type="cylinder" size="{width} {height}" {_rgba(item.rgb)} mass=".07" {contact}/>{lid}'
    else:
        shape = f'<geom type="box" size="{width} {width} {height}" {_rgba(item.rgb)} mass=".06" {contact}/>'
    return f'<body name="{item.body}" pos="0 0 .1"><freejoint/>{shape}</body>'


def _basket() -> str:
    parts = (
        ("0 0 .003", ".08 .08 .003"),
        (".083 0 .0275", ".004 .087 .0275"),
        ("-.083 0 .0275", ".004 .087 .0275"),
        ("0 .083 .0275", ".079 .004 .0275"),
        ("0 -.083 .0275", ".079 .004 .0275"),
    )
    boxes = "".join(f'<geom type="box" pos="{p}" size="{s}" material="wicker"/>' for p, s in parts)
    return f'<body name="basket" mocap="true">{boxes}</body>'


def _plate() -> str:
    return f"""
    <body name="plate" mocap="true">
      <geom type="cylinder" size=".085 .004" pos="0 0 .004" rgba=".97 .97 .97 1" friction="1.2 .02 .001"/>
      <geom {_VISUAL} type="cylinder" size=".062 .0003" pos="0 0 .0081" rgba=".72 .74 .78 1"/>
      <geom {_VISUAL} type="cylinder" size=".056 .0003" pos="0 0 .0084" rgba=".97 .97 .97 1"/>
    </body>"""


def _actuators() -> str:
    gains = [(4500, 150, 90)] * 4 + [(2500, 75, 50)] * 3
    arm = "".join(
        f'<position joint="{joint}" kp="{kp}" kv="{kv}" forcerange="-{force} {force}"/>'
        for joint, (kp, kv, force) in zip(ARM_JOINTS, gains, strict=True)
    )
    finger = f'<position joint="{FINGER_JOINTS[0]}" kp="700" kv="35" ctrlrange="0 {FINGER_OPEN_M}" '
    return arm + finger + 'forcerange="-40 40"/>'


def _scene_xml() -> str:
    return f"""
<mujoco>
  <compiler angle="radian"/>
  <option timestep="{PHYSICS_STEP_S}" integrator="implicitfast" cone="elliptic" impratio="5" iterations="20"/>
  <visual>
    <global offwidth="1024" offheight="1024"/>
    <quality offsamples="0"/>
    <headlight ambient=".45 .45 .45" diffuse=".45 .45 .45" specular=".05 .05 .05"/>
  </visual>
  <asset>
    <texture name="wood" type="2d" file="wood.png"/>
    <material name="wood" texture="wood" texrepeat="2 2" specular=".1"/>
    <texture name="wicker" type="cube" builtin="checker" rgb1=".42 .25 .14" rgb2=".30 .17 .09"
             width="64" height="64"/>
    <material name="wicker" texture="wicker" texrepeat="8 8" texuniform="false" specular=".05"/>
  </asset>
  <worldbody>
    <light pos="0.6 0.3 1.6" dir="-.35 -.2 -1" directional="true" diffuse=".28 .28 .28" castshadow="false"/>
    <light pos="0.8 -0.4 0.8" dir="-.8 .4 -.5" directional="true" diffuse=".15 .15 .15" castshadow="false"/>
    <geom name="table" type="box" size=".7 .75 .02" pos="0 0 -.02" material="wood"/>
    <geom name="floor" type="plane" size="4 4 .1" pos="0 0 -.7" rgba=".78 .80 .82 1"/>
    <geom name="wall" type="box" size=".02 4 2" pos="-1.6 0 .5" rgba=".86 .88 .90 1" {_VISUAL}/>
    <camera name="third_person" pos=".42 0 .69" xyaxes="0 1 0 -.809 0 .588" fovy="43"/>
    {_arm()}{"".join(_object(item) for item in OBJECTS)}{_basket()}{_plate()}
  </worldbody>
  <contact><exclude body1="finger_left_body" body2="finger_right_body"/></contact>
  <equality>
    <joint joint1="finger_left" joint2="finger_right" solimp=".95 .99 .001" solref=".005 1"/>
  </equality>
  <actuator>{_actuators()}</actuator>
</mujoco>"""
