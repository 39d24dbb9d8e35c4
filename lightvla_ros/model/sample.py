"""Check one sample before it goes through the network."""

from __future__ import annotations

from torch import Tensor

from lightvla_ros.core.errors import SpecError
from lightvla_ros.model.config import ModelConfig


def checked_sample(
    config: ModelConfig, pixel_values: Tensor, input_ids: Tensor, proprio: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a sample with proprio [1, P] and without the action prefix, which the sequence appends itself.

    Raises:
        SpecError: a shape does not fit the model, or the batch is not one.
    """
    channels = 3 * len(config.towers) * config.num_cameras
    expected = (1, channels, config.image_size, config.image_size)
    if tuple(pixel_values.shape) != expected:
        raise SpecError(
            "pixel_values", got=tuple(pixel_values.shape), expected=str(expected), fix="pass one sample"
        )
    if input_ids.ndim != 2 or input_ids.shape[0] != 1 or input_ids.shape[1] < 2:
        raise SpecError(
            "input_ids", got=tuple(input_ids.shape), expected="(1, n) with n >= 2", fix="pass one prompt"
        )
    if proprio.numel() != config.proprio_dim:
        raise SpecError(
            "proprio",
            got=tuple(proprio.shape),
            expected=f"{config.proprio_dim} numbers",
            fix="pass one state",
        )
    if int(input_ids[0, -1]) == config.action_prefix_id:
        input_ids = input_ids[:, :-1]
    return pixel_values, input_ids, proprio.reshape(1, -1)
