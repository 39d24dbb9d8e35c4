"""Where torch runs."""

from __future__ import annotations

import torch

from lightvla_ros.core.errors import EngineError


def torch_device(asked: str) -> str:
    """Return "cpu" or "cuda" for "cpu", "cuda", or "auto", which is the GPU where there is one.

    Raises:
        EngineError: a GPU is asked for that torch does not see.
    """
    present = torch.cuda.is_available()
    if asked == "cuda" and not present:
        raise EngineError(
            "device 'cuda'",
            got=f"PyTorch {torch.__version__}, which sees no CUDA GPU",
            expected="an NVIDIA GPU and a CUDA build of PyTorch",
            fix="check nvidia-smi and the PyTorch build, or set device to 'cpu'",
        )
    return "cuda" if present and asked != "cpu" else "cpu"
