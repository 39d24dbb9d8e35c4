"""The same model as a GPU runs it fastest: fewer and larger products, fewer and larger kernels.

One chunk of the published model is some 2,500 small kernels, most of which move rows that fit a cache.
Here the projections that read the same rows are one product, products of odd sizes are padded to what
tensor cores take, chains of pointwise operations become one kernel each (torch.compile, where it works),
and the vision towers run side by side. Results are those of the model up to rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightvla_ros.model.attention import attend
from lightvla_ros.model.decoder import Attention, DecoderLayer, Mlp, rotate
from lightvla_ros.model.lightvla import LightVla
from lightvla_ros.model.vision import Block, PatchEmbed, VisionBackbone, VisionTower

_EVERYTHING = slice(None)
# Of bfloat16 numbers: 16 bytes, what tensor cores load at once.
_ALIGNMENT = 8
# The node's process must not leave a pool of compilers behind; the few kernels are compiled in seconds.
_COMPILE_OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {"compile_threads": 1}

_Forward = Callable[..., Tensor]
_Module = TypeVar("_Module", bound=nn.Module)


def fused(model: LightVla, *, compiled: bool) -> LightVla:
    """Return a model with the same weights and results that a GPU runs faster.

    The weights exist once: those that are joined become views of the joined ones in `model` too.

    Args:
        model: on its device and in its precision.
        compiled: whether chains of pointwise operations are compiled, when they first run.
    """
    decoder, backbone = model.language_model.model, model.vision_backbone
    run_layer = _compiled(DecoderLayer.forward, dynamic=True) if compiled else DecoderLayer.forward
    # Weights made in inference mode could not be trained any more.
    with torch.inference_mode(False), torch.no_grad():
        layers = nn.ModuleList(_FusedLayer(cast(DecoderLayer, layer), run_layer) for layer in decoder.layers)
        towers = {
            name: _fused_tower(tower, compiled=compiled)
            for name, tower in zip(backbone.tower_names, backbone.towers(), strict=True)
        }
        head = model.action_head.model
        head = _with_modules(head, fc2=_AlignedLinear(head.fc2.weight, head.fc2.bias))
    return _with_modules(
        model,
        vision_backbone=_with_modules(_Towers(backbone), **towers),
        language_model=_with_modules(model.language_model, model=_with_modules(decoder, layers=layers)),
        action_head=_with_modules(model.action_head, model=head),
    )


def profits_from_compiling(device: torch.device) -> bool:
    """Whether joined kernels are worth the seconds of compiling; whether it works shows when it is tried."""
    return device.type == "cuda"


class _FusedAttention(Attention):
    """Queries, keys and values by one product, queries and keys rotated at once."""

    def __init__(self, attention: Attention) -> None:
        nn.Module.__init__(self)
        self.num_heads, self.head_dim = attention.num_heads, attention.head_dim
        self.q_proj, self.k_proj, self.v_proj = attention.q_proj, attention.k_proj, attention.v_proj
        self.o_proj = attention.o_proj
        self.qkv = _joined(self.q_proj, self.k_proj, self.v_proj)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, key_bias: Tensor | None, rows: slice) -> Tensor:
        """See `Attention.forward`."""
        if rows != _EVERYTHING:  # queries are few there, and have rows of their own
            return super().forward(x, cos, sin, key_bias, rows)
        heads = F.linear(x, self.qkv).unflatten(-1, (3 * self.num_heads, self.head_dim)).transpose(1, 2)
        qk, v = heads.split([2 * self.num_heads, self.num_heads], dim=1)
        q, k = rotate(qk, cos, sin).chunk(2, dim=1)
        return cast(Tensor, self.o_proj(attend(q, k, v, key_bias).transpose(1, 2).flatten(2)))


class _FusedMlp(Mlp):
    """Gate and content by one product."""

    def __init__(self, mlp: Mlp) -> None:
        nn.Module.__init__(self)
        self.gate_proj, self.up_proj, self.down_proj = mlp.gate_proj, mlp.up_proj, mlp.down_proj
        self.gate_up = _joined(self.gate_proj, self.up_proj)

    def forward(self, x: Tensor) -> Tensor:
        """See `Mlp.forward`."""
        gate, up = F.linear(x, self.gate_up).chunk(2, dim=-1)
        return cast(Tensor, self.down_proj(F.silu(gate) * up))


class _FusedLayer(DecoderLayer):
    def __init__(self, layer: DecoderLayer, run: _Forward) -> None:
        nn.Module.__init__(self)
        self.input_layernorm = layer.input_layernorm
        self.self_attn = _FusedAttention(layer.self_attn)
        self.post_attention_layernorm = layer.post_attention_layernorm
        self.mlp = _FusedMlp(layer.mlp)
        self._run = run

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, key_bias: Tensor | None, rows: slice) -> Tensor:
        """See `DecoderLayer.forward`."""
        return self._run(self, x, cos, sin, key_bias, rows)


class _AlignedLinear(nn.Module):
    """A linear layer of any size: rows and columns are padded with zeros to multiples of 8."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.num_outputs = weight.shape[0]
        rows, self.num_missing = (-size % _ALIGNMENT for size in weight.shape)
        self.weight = nn.Parameter(F.pad(weight, (0, self.num_missing, 0, rows)), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(F.pad(bias, (0, rows)), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        padded = F.linear(F.pad(x, (0, self.num_missing)), self.weight, self.bias)
        return padded[..., : self.num_outputs]


class _PatchProduct(nn.Module):
    """The convolution of `PatchEmbed`, whose patches do not overlap, as one product."""

    def __init__(self, patch_embed: PatchEmbed) -> None:
        super().__init__()
        proj = patch_embed.proj
        (self.patch_size, _) = proj.kernel_size
        self.linear = _AlignedLinear(proj.weight.flatten(1), proj.bias)

    def forward(self, images: Tensor) -> Tensor:
        B, C, S, _ = images.shape
        grid, size = S // self.patch_size, self.patch_size
        pixels = images.reshape(B, C, grid, size, grid, size).permute(0, 2, 4, 1, 3, 5)
        return cast(Tensor, self.linear(pixels.reshape(B, grid * grid, C * size * size)))


class _CompiledBlock(nn.Module):
    def __init__(self, block: nn.Module, run: _Forward) -> None:
        super().__init__()
        self.block = block
        self._run = run

    def forward(self, x: Tensor) -> Tensor:
        return self._run(self.block, x)


class _Towers(VisionBackbone):
    """The towers side by side: alone, none of them fills a large GPU."""

    def __init__(self, backbone: VisionBackbone) -> None:
        nn.Module.__init__(self)
        self.num_cameras, self.tower_names = backbone.num_cameras, backbone.tower_names
        self._streams: list[torch.cuda.Stream] = []

    def tower_features(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """See `VisionBackbone.tower_features`."""
        if inputs[0].device.type != "cuda":
            return super().tower_features(inputs)
        first, *others = self.towers()
        while len(self._streams) < len(others):
            self._streams.append(torch.cuda.Stream(inputs[0].device))
        current = torch.cuda.current_stream(inputs[0].device)
        features = []
        for tower, x, stream in zip(others, inputs[1:], self._streams, strict=True):
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                features.append(tower(x))
        features.insert(0, first(inputs[0]))
        for stream in self._streams:
            current.wait_stream(stream)
        return features


def _fused_tower(tower: VisionTower, *, compiled: bool) -> VisionTower:
    blocks = tower.blocks
    if compiled:
        run = _compiled(Block.forward, dynamic=False)
        blocks = nn.ModuleList(_CompiledBlock(block, run) for block in blocks)
    return _with_modules(tower, patch_embed=_PatchProduct(tower.patch_embed), blocks=blocks)


def _compiled(forward: _Forward, *, dynamic: bool) -> _Forward:
    """Compile a method once for all modules that have it: weights are arguments of what is compiled."""
    return cast(_Forward, torch.compile(forward, dynamic=dynamic, options=_COMPILE_OPTIONS))


def _joined(*linears: nn.Linear) -> nn.Parameter:
    """Put the weights of linear layers below each other, [sum of rows, columns]; theirs become views."""
    joined = torch.cat([linear.weight for linear in linears])
    sizes = [linear.weight.shape[0] for linear in linears]
    for linear, part in zip(linears, joined.split(sizes), strict=True):
        linear.weight = nn.Parameter(part, requires_grad=linear.weight.requires_grad)
    return nn.Parameter(joined, requires_grad=False)


def _with_modules(module: _Module, **modules: Any) -> _Module:
    """Return a copy that shares everything but the submodules given."""
    clone = copy.copy(module)
    clone._modules = {**module._modules, **modules}
    return clone
