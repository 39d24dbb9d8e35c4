"""Adapters on the reference's own checkpoint layout."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from lightvla_ros.learn.lora import LoraSettings, add_adapters, merged
from lightvla_ros.model import load_checkpoint, save_checkpoint


def test_a_published_checkpoint_is_adapted_merged_and_saved_in_its_layout(
    golden_dir: Path, tmp_path: Path
) -> None:
    directory = golden_dir / "official_tiny"
    case = load_file(directory / "cases.safetensors")
    inputs = (
        case["case0/pixel_values"].float(),
        case["case0/input_ids"],
        case["case0/proprio"],
    )
    model = load_checkpoint(directory)
    add_adapters(model, LoraSettings(rank=4, alpha=2))
    with torch.no_grad():
        untouched = model(*inputs)
    torch.testing.assert_close(
        untouched.normalized_actions, case["case0/normalized_actions"], rtol=1e-3, atol=1e-4
    )
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if ".lora_B." in name:
            weight.data.copy_(0.2 * torch.randn(weight.shape, generator=generator))
    save_checkpoint(merged(model), tmp_path)
    with torch.no_grad():
        expected, got = model(*inputs), load_checkpoint(tmp_path)(*inputs)
    assert torch.equal(got.keep_mask, expected.keep_mask)
    torch.testing.assert_close(got.normalized_actions, expected.normalized_actions, rtol=1e-4, atol=1e-4)
    assert (got.normalized_actions - untouched.normalized_actions).abs().max() > 1e-2
