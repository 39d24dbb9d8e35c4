"""Which parts of a LeRobot data set are the policy's inputs and outputs; nothing is guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lightvla_ros.core.errors import ConfigError

MAPPING_FILE = "lightvla.yaml"
_EXAMPLE = (
    "{cameras: {third_person: observation.images.front, wrist: observation.images.wrist}, "
    "state: [observation.state], action: [action], gripper: {open: 1, closed: 0}, image_size: 224}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeRobotMapping:
    """What of a data set is what for the policy.

    Attributes:
        cameras: camera name of the policy -> video or image key, in the policy's order.
        state: features that make up the state, one after the other.
        action: features that make up the action; its last number is the gripper.
        gripper: the action's values for "open" and "closed".
        image_size: pixels, height and width the images are resized to.
        state_columns: numbers of the state to take, in this order; () takes all.
        action_columns: numbers of the action to take, in this order; () takes all.
        action_names: one name per number taken; () takes the data set's own.
    """

    cameras: Mapping[str, str]
    state: tuple[str, ...]
    action: tuple[str, ...]
    gripper: Mapping[str, float]
    image_size: int
    state_columns: tuple[int, ...] = ()
    action_columns: tuple[int, ...] = ()
    action_names: tuple[str, ...] = ()

    @classmethod
    def read(cls, source: str | Path) -> LeRobotMapping:
        """Read a YAML file, or the YAML itself where the text begins with a brace.

        Raises:
            ConfigError: it cannot be read, or a key is unknown, missing or of the wrong kind.
        """
        import yaml

        text = str(source)
        try:
            values = yaml.safe_load(text if text.startswith("{") else Path(source).read_text("utf-8"))
            return cls._from_values(values)
        except (OSError, yaml.YAMLError, AttributeError, TypeError, ValueError, KeyError) as error:
            raise ConfigError(
                f"LeRobot mapping {source}",
                got=f"{error}",
                expected=f"YAML of {[field.name for field in fields(cls)]}",
                fix=f"write one like {_EXAMPLE}",
            ) from error

    @classmethod
    def _from_values(cls, values: dict[str, Any]) -> LeRobotMapping:
        lists = {
            key: (value,) if isinstance(value, (str, int)) else tuple(value)
            for key, value in values.items()
            if key in ("state", "action", "state_columns", "action_columns", "action_names")
        }
        gripper = {key: float(values["gripper"][key]) for key in ("open", "closed")}
        if gripper["open"] == gripper["closed"]:
            raise ValueError("gripper: open and closed are the same number")
        cameras = {str(name): str(key) for name, key in values["cameras"].items()}
        if not cameras:
            raise ValueError("cameras: none")
        if not isinstance(values["image_size"], int) or values["image_size"] < 1:
            raise ValueError("image_size: not a whole number from 1 on")
        return cls(**{**values, **lists, "gripper": gripper, "cameras": cameras})
