"""Sizes of random models, and that they keep the proportions of the published one."""

from __future__ import annotations

import pytest

from lightvla_ros.backends.flops import stage_flops
from lightvla_ros.commands._random_bundle import random_model_config
from lightvla_ros.commands._random_size import RandomSize
from lightvla_ros.core.errors import ConfigError
from lightvla_ros.model import ModelConfig


@pytest.mark.parametrize("text", ["1024x8", "512x8@8"])
def test_a_size_reads_back_what_it_prints(text: str) -> None:
    assert str(RandomSize.parse(text)) == text


def test_a_size_without_grid_has_as_many_visual_tokens_as_the_published_model() -> None:
    assert random_model_config(RandomSize.parse("1024x8")).num_patches == 512
    assert random_model_config(RandomSize.parse("512x8@8")).num_patches == 128


@pytest.mark.parametrize(
    "text", ["", "1024", "x8", "1000x8", "1024x0", "0x8", "1024x8@0", "1024x8@", "-256x8"]
)
def test_a_size_no_model_can_have_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="WIDTHxLAYERS"):
        RandomSize.parse(text)


def test_full_size_is_the_published_model_but_for_the_action_prefix() -> None:
    config, published = random_model_config(RandomSize.parse("4096x32")), ModelConfig()
    assert stage_flops(config, 78, 28, reference=True) == stage_flops(published, 78, 28, reference=True)
    assert config.vocab_size == published.vocab_size


def test_a_small_model_spends_about_the_same_share_on_vision_as_the_published_one() -> None:
    def vision_share(config: ModelConfig) -> float:
        flops = stage_flops(config, 78, 28, reference=True)
        return flops.vision / sum(flops)

    small = random_model_config(RandomSize.parse("1024x8"))
    assert vision_share(small) == pytest.approx(vision_share(ModelConfig()), rel=0.3)
