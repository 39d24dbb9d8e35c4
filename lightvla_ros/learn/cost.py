"""What a training will take, found without weights: one step is run on tensors that have only shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from lightvla_ros.learn.batches import Batch
from lightvla_ros.learn.network import adapted
from lightvla_ros.learn.objective import Objective, Selection
from lightvla_ros.learn.recipes import TrainingConfig
from lightvla_ros.learn.stages import Stage
from lightvla_ros.learn.training import make_objective
from lightvla_ros.model import LightVla, ModelConfig

# A usual prompt of the published models (spec §3.1); a few tokens more or less change nothing.
_PROMPT_TOKENS = 32
_GB = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """What one stage takes.

    Attributes:
        name: of the stage.
        flops: operations of one optimiser step and process, forward and backward.
        activation_bytes: what one pass keeps for its gradients.
        state_bytes: gradients, optimiser and averaged weights.
    """

    name: str
    flops: int
    activation_bytes: int
    state_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a training takes.

    Attributes:
        trainable: weights that change, by part.
        frozen: those that do not.
        weight_bytes: all weights.
        stages: those with steps.
    """

    trainable: Mapping[str, int]
    frozen: Mapping[str, int]
    weight_bytes: int
    stages: tuple[StageCost, ...]

    def table(self) -> str:
        """Return it for reading."""
        lines = [f"{'part':20}{'trainable':>16}{'frozen':>16}"]
        names = {**self.trainable, **self.frozen}
        parts = {part: (self.trainable.get(part, 0), self.frozen.get(part, 0)) for part in names}
        parts["all"] = (sum(self.trainable.values()), sum(self.frozen.values()))
        lines += [f"{part:20}{train:>16,}{frozen:>16,}" for part, (train, frozen) in parts.items()]
        for stage in self.stages:
            total = self.weight_bytes + stage.state_bytes + stage.activation_bytes
            lines.append(
                f"{stage.name}: {total / _GB:.2f} GB per process (weights {self.weight_bytes / _GB:.2f}, "
                f"gradients, optimiser and average {stage.state_bytes / _GB:.2f}, "
                f"activations {stage.activation_bytes / _GB:.2f}), "
                f"{stage.flops / 1e12:.3g} TFLOP per step and process"
            )
        return "\n".join(lines)


def estimate(config: TrainingConfig, sizes: ModelConfig) -> Cost:
    """Say what training a model of these sizes takes; needs no memory to speak of.

    Args:
        config: of the run; neither its demonstrations nor its start are read.
        sizes: of the model.
    """
    with torch.device("meta"):
        model = LightVla(sizes)
        if config.lora is not None:
            model.to(torch.bfloat16)
        model = adapted(model, config)
        counts = {flag: _count_by_part(model, trainable=flag) for flag in (True, False)}
        return Cost(
            trainable=counts[True],
            frozen=counts[False],
            weight_bytes=sum(map(_bytes, model.parameters())),
            stages=tuple(_stage_cost(model, stage, config) for stage in config.stages if stage.steps),
        )


def _count_by_part(model: nn.Module, *, trainable: bool) -> Counter[str]:
    counts: Counter[str] = Counter()
    for name, weight in model.named_parameters():
        if weight.requires_grad == trainable:
            counts[name.partition(".")[0]] += weight.numel()
    return counts


def _stage_cost(model: LightVla, stage: Stage, config: TrainingConfig) -> StageCost:
    settings = config.settings
    objective = make_objective(model, stage, settings)
    flops, activation_bytes = _of_one_pass(objective, stage, config)
    trained = [weight for weight in objective.parameters() if weight.requires_grad]
    averaged = sum(map(_bytes, model.parameters())) if settings.ema_decay is not None else 0
    return StageCost(
        name=stage.name,
        flops=flops * stage.accumulate,
        activation_bytes=activation_bytes,
        # A gradient and AdamW's two moments.
        state_bytes=3 * sum(map(_bytes, trained)) + averaged,
    )


def _of_one_pass(objective: Objective, stage: Stage, config: TrainingConfig) -> tuple[int, int]:
    """Return operations, forward and backward, and the bytes kept in between."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    held: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        held[storage._cdata] = storage.nbytes()
        return tensor

    with FakeTensorMode(), torch.device("cpu"):
        weights = {
            name: torch.empty(weight.shape, dtype=weight.dtype, requires_grad=weight.requires_grad)
            for name, weight in objective.named_parameters()
        }
        selection = Selection(stage.prune, config.settings.noise)
        inputs = _batch(objective.model.config, stage.batch_size), selection, (0,)
        with FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter:
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                losses = functional_call(objective, weights, inputs)
            for weight in weights.values():
                held.pop(weight.untyped_storage()._cdata, None)
            activation_bytes = sum(held.values())
            losses.total.backward()
    return counter.get_total_flops(), activation_bytes


def _attention_flops(*shapes: Any, **_: Any) -> int:
    return int(sdpa_flop_count(*shapes[:3]))


def _attention_backward_flops(*shapes: Any, **_: Any) -> int:
    return int(sdpa_backward_flop_count(*shapes[:4]))


# torch counts attention on GPUs; the CPU's operators do the same.
_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}


def _batch(config: ModelConfig, size: int) -> Batch:
    channels = 3 * len(config.towers) * config.num_cameras
    return Batch(
        pixel_values=torch.zeros(size, channels, config.image_size, config.image_size),
        input_ids=torch.zeros(size, _PROMPT_TOKENS, dtype=torch.int64),
        prompt_mask=torch.ones(size, _PROMPT_TOKENS - 1, dtype=torch.bool),
        proprio=torch.zeros(size, config.proprio_dim),
        actions=torch.zeros(size, config.chunk_size, config.action_dim),
        shares=torch.zeros(size, config.num_patches),
    )


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
