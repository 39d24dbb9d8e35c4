"""Attention in training is that of inference."""

import torch

from lightvla_ros.model.attention import attend


def test_training_and_inference_agree() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 9, 16, generator=generator) for _ in range(3))
    bias = torch.zeros(2, 1, 1, 9).masked_fill(torch.arange(9) > 6, float("-inf"))
    for added in (None, bias):
        inference = attend(q, k, v, added)
        training = attend(q.requires_grad_(), k, v, added)
        assert training.grad_fn is not None
        torch.testing.assert_close(training, inference, atol=1e-6, rtol=1e-5)
        q = q.detach()
