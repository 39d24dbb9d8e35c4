"""Learned queries: what they are compared with, how they are trained, and how they start."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lightvla_ros.core.errors import CheckpointError
from lightvla_ros.model import LightVla, ModelConfig, PrunerConfig, TokenPruner
from lightvla_ros.model.pruner import rms_normalize

KINDS = ("vision_queries", "decoder_queries")
N, D = 32, 32


def learned(tiny_model: LightVla, kind: str, num_queries: int | None = None) -> LightVla:
    model = copy.deepcopy(tiny_model)
    torch.manual_seed(1)
    model.replace_pruner(PrunerConfig(kind=kind, num_queries=num_queries))
    return model


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest, tiny_model: LightVla) -> LightVla:
    return learned(tiny_model, request.param)


def inputs(batch: int = 2, seed: int = 0, num_prompt: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Return patches, prompt tokens and proprio."""
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(batch, N, D, generator=generator),
        torch.randn(batch, num_prompt, D, generator=generator),
        torch.rand(batch, 8, generator=generator) * 2 - 1,
    )


def noise(model: LightVla, batch: int = 2, seed: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, model.num_queries, N, generator=generator)


def rms(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def oracle_keys(model: LightVla, patches: Tensor) -> Tensor:
    if model.config.pruner.kind == "vision_queries":
        return rms(patches)
    layer = model.language_model.model.layers[0]
    return rms((rms(patches) * layer.input_layernorm.weight) @ layer.self_attn.k_proj.weight.T)


def score(model: LightVla, patches: Tensor, prompt: Tensor, proprio: Tensor) -> Tensor:
    return model.score(patches, rms_normalize(prompt), proprio)


def test_each_query_is_compared_with_each_key(model: LightVla) -> None:
    patches, prompt, proprio = inputs()
    keys, queries = oracle_keys(model, patches), rms(model.pruner.queries).detach()
    got = score(model, patches, prompt, proprio).detach()
    assert got.shape == (2, model.num_queries, N)
    for query, patch in ((0, 0), (3, 17), (7, 31)):
        expected = float(queries[query] @ keys[1, patch]) / math.sqrt(D)
        assert float(got[1, query, patch]) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_the_score_of_a_query_is_the_sum_of_what_each_head_would_give_it(tiny_model: LightVla) -> None:
    model = learned(tiny_model, "decoder_queries")
    patches, prompt, proprio = inputs()
    heads = model.config.num_heads
    by_head = torch.einsum(
        "qhd,bnhd->bhqn",
        rms(model.pruner.queries).unflatten(-1, (heads, -1)),
        oracle_keys(model, patches).unflatten(-1, (heads, -1)),
    )
    assert torch.allclose(
        score(model, patches, prompt, proprio), by_head.sum(1) / math.sqrt(D), rtol=1e-4, atol=1e-5
    )


def test_at_most_one_token_per_query_is_retained(model: LightVla) -> None:
    patches, prompt, proprio = inputs()
    chosen = score(model, patches, prompt, proprio).argmax(-1)
    keep_mask = model.prune(patches, rms_normalize(prompt), proprio)
    for mask, indices in zip(keep_mask, chosen, strict=True):
        assert mask.nonzero()[:, 0].tolist() == sorted(set(indices.tolist()))
    assert keep_mask.sum(-1).max() <= model.num_queries == N // 4


def test_a_batch_gives_what_its_samples_give(model: LightVla) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(3, 12, 56, 56, generator=generator)
    ids = torch.randint(4, 64, (3, 7), generator=generator)
    proprio = torch.rand(3, 8, generator=generator)
    actions, keep_mask = model.predict(pixels, ids, proprio)
    for i in range(3):
        alone = model(pixels[i : i + 1], ids[i : i + 1], proprio[i])
        assert keep_mask[i].equal(alone.keep_mask)
        assert torch.allclose(actions[i], alone.normalized_actions, atol=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_sample_whose_scores_are_not_finite_keeps_nothing(model: LightVla, bad: float) -> None:
    patches, prompt, proprio = inputs()
    patches[1, 5, 0] = bad
    keep_mask = model.prune(patches, rms_normalize(prompt), proprio)
    assert keep_mask[0].any()
    assert not keep_mask[1].any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("initialization", ["normal", "orthogonal"])
def test_a_fresh_model_retains_a_spread_of_tokens(
    tiny_config: ModelConfig, kind: str, initialization: str
) -> None:
    torch.manual_seed(0)
    pruner = PrunerConfig(kind=kind, num_queries=16, initialization=initialization)
    model = LightVla(replace(tiny_config, pruner=pruner)).eval()
    with torch.inference_mode():
        patches = model.encode_images(torch.randn(8, 12, 56, 56))
        counts = model.prune(patches, torch.randn(8, 5, D), torch.rand(8, 8)).sum(-1)
    assert int(counts.min()) >= 8


def test_orthogonal_queries_are_at_unit_scale_and_at_right_angles(tiny_config: ModelConfig) -> None:
    pruner = PrunerConfig(kind="vision_queries", initialization="orthogonal")
    queries = LightVla(replace(tiny_config, pruner=pruner)).pruner.queries
    assert torch.allclose(queries @ queries.T / D, torch.eye(len(queries)), atol=1e-5)


# -- training ----------------------------------------------------------------------------------------------


def test_soft_selection_is_a_hard_gather_with_the_softmax_gradient(model: LightVla) -> None:
    model.requires_grad_(True)
    patches, prompt, proprio = inputs()
    patches.requires_grad_()
    U = noise(model)
    indices, tokens = model.select_for_training(patches, prompt, proprio, None, noise_scale=0.7, noise=U)
    assert indices.shape == (2, model.num_queries)
    assert torch.allclose(tokens[1], patches[1, indices[1]], atol=1e-5)

    weight = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(3))
    (tokens * weight).sum().backward()
    k_proj = model.language_model.model.layers[0].self_attn.k_proj.weight
    leaves = [model.pruner.queries] + ([k_proj] if model.config.pruner.kind == "decoder_queries" else [])
    keys = oracle_keys(model, patches.detach())
    noisy = rms(model.pruner.queries) @ keys.transpose(1, 2) / math.sqrt(D) + 0.7 * U
    soft = (noisy.softmax(-1) @ patches.detach() * weight).sum()
    for leaf, expected in zip(leaves, torch.autograd.grad(soft, leaves), strict=True):
        assert expected.abs().max() > 1e-4
        assert torch.allclose(leaf.grad, expected, rtol=1e-3, atol=1e-5)
    assert patches.grad.abs().max() > 0


def test_queries_learn_to_choose_what_lowers_the_loss(model: LightVla) -> None:
    patches, prompt, proprio = inputs(batch=1)
    queries = model.pruner.queries.requires_grad_(True)
    wanted = 11
    assert not model.prune(patches, rms_normalize(prompt), proprio)[0, wanted]
    optimizer = torch.optim.Adam([queries], lr=0.1)
    for step in range(200):
        _, tokens = model.select_for_training(
            patches, prompt, proprio, None, noise_scale=1 - step / 200, noise=noise(model, 1, step)
        )
        optimizer.zero_grad()
        (tokens - patches[:, wanted : wanted + 1]).square().mean().backward()
        optimizer.step()
    assert model.prune(patches, rms_normalize(prompt), proprio)[0].nonzero().tolist() == [[wanted]]


def test_task_queries_train_as_their_pruner_alone_does(tiny_model: LightVla) -> None:
    patches, prompt, proprio = inputs()
    mask = torch.arange(6)[None] < torch.tensor([[4], [6]])
    U = noise(tiny_model)
    assert tiny_model.num_queries == N
    got = tiny_model.select_for_training(patches, prompt, proprio, mask, noise_scale=0.5, noise=U)
    task_tokens, task_mask = tiny_model.task_tokens(prompt, proprio, mask)
    expected = TokenPruner.select_soft(patches, task_tokens, 0.5, U, task_mask)
    assert all(a.equal(b) for a, b in zip(got, expected, strict=True))


def test_padding_has_no_say_unless_the_references_bug_is_asked_for(tiny_model: LightVla) -> None:
    patches, prompt, proprio = inputs()
    padded = torch.cat([prompt, torch.full((2, 9, D), 0.3)], dim=1)
    mask = (torch.arange(15) < 6).expand(2, 15)
    U = torch.zeros(2, N, N)

    def indices(prompt: Tensor, mask: Tensor | None, **options: bool) -> Tensor:
        return tiny_model.select_for_training(
            patches, prompt, proprio, mask, noise_scale=0.0, noise=U, **options
        )[0]

    assert indices(padded, mask).equal(indices(prompt, None))
    as_published = indices(padded, mask, reference_compatible=True)
    task_tokens, _ = tiny_model.task_tokens(padded, proprio)
    assert as_published.equal(TokenPruner.select_soft(patches, task_tokens, 0.0, U)[0])
    assert not as_published.equal(indices(prompt, None))
    # Without padding there is nothing to be compatible with.
    assert indices(prompt, None, reference_compatible=True).equal(indices(prompt, None))


def test_scores_are_float32_under_autocast_too(tiny_model: LightVla) -> None:
    model = learned(tiny_model, "vision_queries", num_queries=N)
    patches, prompt, proprio = inputs()

    def select(patches: Tensor) -> tuple[Tensor, Tensor]:
        return model.select_for_training(patches, prompt, proprio, None, noise_scale=0.1, noise=noise(model))

    exact, tokens = select(patches)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        indices, same = select(patches)
        _, half = select(patches.bfloat16())
    assert indices.equal(exact)
    assert same.equal(tokens)
    assert half.dtype == torch.bfloat16


def test_a_model_in_half_precision_selects_too(model: LightVla) -> None:
    patches, prompt, proprio = (x.bfloat16() for x in inputs())
    indices, tokens = model.bfloat16().select_for_training(
        patches, prompt, proprio, None, noise_scale=0.0, noise=noise(model)
    )
    assert tokens.dtype == torch.bfloat16
    assert tokens[1].equal(patches[1, indices[1]])


# -- configuration and state -------------------------------------------------------------------------------


def test_only_learned_queries_have_weights(tiny_model: LightVla, model: LightVla) -> None:
    assert not [name for name in tiny_model.state_dict() if "pruner" in name]
    added = model.state_dict().keys() - tiny_model.state_dict().keys()
    assert added == {"pruner.queries"}
    assert model.pruner.queries.shape == (N // 4, D)


def test_replacing_the_pruner_leaves_all_other_weights(tiny_model: LightVla) -> None:
    model = copy.deepcopy(tiny_model).double()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.replace_pruner(PrunerConfig(kind="decoder_queries", num_queries=5))
    after = model.state_dict()
    assert after.pop("pruner.queries").dtype == torch.float64
    assert model.config.num_queries == model.num_queries == 5
    assert all(after[name].equal(before[name]) for name in before)
    model.replace_pruner(PrunerConfig())
    assert model.state_dict().keys() == before.keys()


def test_a_quarter_of_the_visual_tokens_is_the_default_number_of_queries() -> None:
    config = ModelConfig(pruner=PrunerConfig(kind="vision_queries"))
    assert (config.num_queries, ModelConfig().num_queries) == (128, 512)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "queries"}, "kind.*'queries'.*decoder_queries"),
        ({"kind": "vision_queries", "num_queries": 0}, "num_queries.*0.*from 1 on"),
        ({"kind": "vision_queries", "num_queries": 2.5}, "num_queries"),
        ({"num_queries": 4}, "num_queries.*for learned queries"),
        ({"kind": "vision_queries", "initialization": "zeros"}, "initialization.*orthogonal"),
    ],
)
def test_what_no_pruner_can_be_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        PrunerConfig(**options)
