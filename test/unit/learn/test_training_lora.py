import copy
from pathlib import Path

import torch
from torch import nn

from lightvla_ros.learn.lora import LoraSettings, add_adapters, merged
from lightvla_ros.learn.network import adapted
from lightvla_ros.learn.recipes import libero_7b
from lightvla_ros.model import LightVla, ModelConfig, load_checkpoint, save_checkpoint

WHOLE = ("action_head.", "proprio_projector.")


def adapted_copy(model: LightVla, rank: int = 4) -> LightVla:
    copied = copy.deepcopy(model)
    add_adapters(copied, LoraSettings(rank=rank, alpha=rank // 2))
    return copied


def shake(model: LightVla) -> None:
    """Give the second half of every adapter, which begins at zero, values."""
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        if ".lora_B." in name:
            weight.data.copy_(0.3 * torch.randn(weight.shape, generator=generator))


def inputs_of(model: LightVla) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    config = model.config
    pixels = torch.randn(2, 12, config.image_size, config.image_size, generator=generator)
    ids = torch.randint(4, config.vocab_size, (2, 6), generator=generator)
    return pixels, ids, torch.randn(2, config.proprio_dim, generator=generator).clamp(-1, 1)


def test_every_linear_layer_and_patch_embedding_has_an_adapter_and_nothing_else_but_the_heads_learns(
    tiny_model: LightVla,
) -> None:
    model = adapted_copy(tiny_model)
    layers = {
        name: module
        for name, module in tiny_model.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d)) and not name.startswith(WHOLE)
    }
    expected = {f"{name}.lora_{half}.default.weight" for name in layers for half in "AB"}
    expected |= {name for name, _ in tiny_model.named_parameters() if name.startswith(WHOLE)}
    learned = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert set(learned) == expected
    numbers = sum(4 * (layer.weight[0].numel() + layer.weight.shape[0]) for layer in layers.values())
    assert sum(w.numel() for n, w in learned.items() if ".lora_" in n) == numbers


def test_the_published_models_get_the_references_adapters_but_for_layers_that_do_nothing() -> None:
    with torch.device("meta"):
        model = adapted(LightVla(ModelConfig()), libero_7b(()))
    adapters = {n: w for n, w in model.named_parameters() if ".lora_" in n}
    # The reference: 439 layers and 110,828,288 weights; lm_head, two last blocks and a pooling head are
    # among them, and no output depends on those.
    last_blocks = 32 * (4 * 1024 + 2 * 1024 + 2 * 5120 + 4 * 1152 + 2 * 1152 + 2 * 5456)
    pooling = 32 * (2 * 1152 + 3 * 1152 + 2 * 1152 + 2 * 5456)
    head = 32 * (4096 + 32064)
    assert len(adapters) == 2 * (439 - 1 - 8 - 5)
    assert sum(w.numel() for w in adapters.values()) == 110_828_288 - last_blocks - pooling - head
    heads = [w.numel() for n, w in model.named_parameters() if n.startswith(WHOLE)]
    assert sum(heads) == 151_117_831 + 16_818_176
    assert model.config.action_row_offset == 0


def test_adapters_begin_without_effect(tiny_model: LightVla) -> None:
    model = adapted_copy(tiny_model)
    with torch.no_grad():
        got, expected = model.predict(*inputs_of(model))[0], tiny_model.predict(*inputs_of(model))[0]
    assert torch.equal(got, expected)


def test_adapters_start_with_the_references_spread(tiny_model: LightVla) -> None:
    model = adapted_copy(tiny_model, rank=32)
    first = torch.cat([w.detach().flatten() for n, w in model.named_parameters() if ".lora_A." in n])
    assert abs(float(first.std()) - 1 / 32) < 1e-3
    assert not any(w.any() for n, w in model.named_parameters() if ".lora_B." in n)


def test_a_merged_model_computes_what_the_adapters_did(tiny_model: LightVla, tmp_path: Path) -> None:
    model = adapted_copy(tiny_model)
    shake(model)
    plain = merged(model)
    assert set(plain.state_dict()) == set(tiny_model.state_dict())
    save_checkpoint(plain, tmp_path)
    with torch.no_grad():
        expected, kept = model.predict(*inputs_of(model))
        got, kept_by_merged = load_checkpoint(tmp_path).predict(*inputs_of(model))
        before, _ = tiny_model.predict(*inputs_of(model))
    assert torch.equal(kept, kept_by_merged)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert (got - before).abs().max() > 0.1


def test_merging_leaves_the_model_in_training_as_it_was(tiny_model: LightVla) -> None:
    model = adapted_copy(tiny_model)
    shake(model)
    before = copy.deepcopy(model.state_dict())
    merged(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
