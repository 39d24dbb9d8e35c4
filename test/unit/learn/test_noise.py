import math

import pytest
import torch

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.learn.noise import Noise
from lightvla_ros.learn.seeds import torch_generator

SHAPE = (4, 50, 500)


def sample(kind: str, seed: int = 0) -> torch.Tensor:
    return Noise(kind=kind).sample(SHAPE, torch_generator("cpu", seed))


def test_uniform_noise_is_that_of_the_released_code() -> None:
    noise = sample("uniform")
    assert noise.shape == SHAPE and noise.min() >= 0.0 and noise.max() < 1.0
    assert noise.mean() == pytest.approx(0.5, abs=0.01)


def test_gumbel_noise_has_the_moments_of_a_gumbel_variable() -> None:
    noise = sample("gumbel")
    assert torch.isfinite(noise).all()
    assert noise.mean() == pytest.approx(0.5772, abs=0.02)
    assert noise.var() == pytest.approx(math.pi**2 / 6, abs=0.05)


def test_gumbel_noise_makes_the_argmax_a_draw_from_the_softmax() -> None:
    scores = torch.tensor([0.0, 1.0, 2.0])
    noise = Noise(kind="gumbel").sample((100_000, 3), torch_generator("cpu", 0))
    frequency = (scores + noise).argmax(-1).bincount(minlength=3) / 100_000
    torch.testing.assert_close(frequency, scores.softmax(0), atol=0.01, rtol=0)


def test_no_noise_is_none() -> None:
    assert not sample("none").any()
    assert Noise(kind="none").scale_at(0.0) == 0.0


def test_the_same_seed_gives_the_same_noise_and_another_another() -> None:
    assert torch.equal(sample("uniform", 3), sample("uniform", 3))
    assert not torch.equal(sample("uniform", 3), sample("uniform", 4))


def test_the_scale_falls_to_zero_or_stays() -> None:
    assert [Noise(scale=2.0).scale_at(p) for p in (0.0, 0.5, 1.0)] == [2.0, 1.0, 0.0]
    assert [Noise(schedule="fixed").scale_at(p) for p in (0.0, 1.0)] == [1.0, 1.0]


@pytest.mark.parametrize("field", [{"kind": "normal"}, {"schedule": "cosine"}, {"scale": -1.0}])
def test_noise_without_meaning_is_refused(field: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="noise"):
        Noise(**field)  # type: ignore[arg-type]
