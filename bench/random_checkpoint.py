"""Write a checkpoint of random weights in the published layout: `python bench/random_checkpoint.py DIR`.

The defaults are the published 7B sizes: every tensor of its files is there, also those nobody reads. One
block of random numbers is repeated, so that writing is what takes the time.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from math import prod
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from lightvla_ros.model import LightVla, ModelConfig
from lightvla_ros.model.checkpoint import published_shapes, write_descriptions
from lightvla_ros.model.stored_model import HEADS, Shapes

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SCALE = 0.02


class RandomWeights:
    """Makes tensors from one block of random numbers."""

    def __init__(self, dtype: torch.dtype, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._block = (SCALE * torch.randn(1 << 20, generator=generator)).to(dtype)

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Return a new tensor; the weights of norms are near one."""
        count = prod(shape)
        tensor = self._block.repeat(-(-count // len(self._block)))[:count].reshape(shape)
        is_norm = len(shape) == 1 and name.endswith("weight")
        return tensor + 1 if is_norm else tensor.clone()


def shards(shapes: Shapes, max_bytes: int, item_bytes: int) -> Iterator[Shapes]:
    """Cut tensors into groups of about the same size, in their order."""
    group: Shapes = {}
    for name, shape in shapes.items():
        if group and sum(prod(s) for s in (*group.values(), shape)) * item_bytes > max_bytes:
            yield group
            group = {}
        group[name] = shape
    yield group


def write_body(config: ModelConfig, directory: Path, weights: RandomWeights, max_bytes: int) -> None:
    """Write the safetensors shards and their index, one shard in memory at a time."""
    groups = list(shards(published_shapes(config), max_bytes, item_bytes=2))
    index: dict[str, str] = {}
    for number, group in enumerate(groups, start=1):
        file = f"model-{number:05}-of-{len(groups):05}.safetensors"
        tensors = {name: weights.tensor(name, shape) for name, shape in group.items()}
        save_file(tensors, directory / file, metadata={"format": "pt"})
        index |= dict.fromkeys(group, file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def write_heads(model: LightVla, directory: Path, weights: RandomWeights) -> None:
    """Write the two torch pickles beside the body."""
    for head in HEADS:
        shapes = {name: tuple(t.shape) for name, t in model.get_submodule(head).state_dict().items()}
        tensors = {f"module.{name}": weights.tensor(name, shape) for name, shape in shapes.items()}
        torch.save(tensors, directory / f"{head}--0_checkpoint.pt")


def write_checkpoint(config: ModelConfig, directory: Path, *, dtype: str, shard_gb: float, seed: int) -> None:
    """Write a whole checkpoint directory."""
    directory.mkdir(parents=True)
    action = {"q01": [-1.0] * config.action_dim, "q99": [1.0] * config.action_dim}
    proprio = {"q01": [-1.0] * config.proprio_dim, "q99": [1.0] * config.proprio_dim}
    with torch.device("meta"):
        model = LightVla(config, {"random": {"action": action, "proprio": proprio}})
    weights = RandomWeights(DTYPES[dtype], seed)
    write_body(config, directory, weights, int(shard_gb * 1e9))
    write_heads(model, directory, weights)
    write_descriptions(model, directory)


def main() -> None:
    """Write what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    sizes = ModelConfig()
    parser.add_argument("directory", type=Path, help="a new directory")
    parser.add_argument("--hidden", type=int, default=sizes.hidden_size)
    parser.add_argument("--intermediate", type=int, default=sizes.intermediate_size)
    parser.add_argument("--layers", type=int, default=sizes.num_layers, help="of the decoder")
    parser.add_argument("--heads", type=int, default=sizes.num_heads)
    parser.add_argument("--vocab", type=int, default=sizes.vocab_size)
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--shard-gb", type=float, default=3.0, help="largest safetensors file")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    config = replace(
        sizes,
        hidden_size=args.hidden,
        intermediate_size=args.intermediate,
        num_layers=args.layers,
        num_heads=args.heads,
        vocab_size=args.vocab,
    )
    write_checkpoint(config, args.directory, dtype=args.dtype, shard_gb=args.shard_gb, seed=args.seed)


if __name__ == "__main__":
    main()
