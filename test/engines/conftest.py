"""The tiny model as an engine bundle, exported once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from lightvla_ros.backends.export import export_bundle
from lightvla_ros.model import LightVla
from lightvla_ros.model.policy_config import policy_config_for

WORDS = "<unk> <s> </s> _ in : what action should the robot take to ? out pick up put on red cup".split()


@pytest.fixture(scope="session")
def tokenizer_json() -> str:
    """A word tokenizer with BOS, in the ids the tiny model was made for."""
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer.to_str()


@pytest.fixture(scope="session")
def tiny_bundle(tiny_model: LightVla, tokenizer_json: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the tiny model with a tokenizer; read only."""
    directory = tmp_path_factory.mktemp("engines") / "tiny"
    policy = policy_config_for(
        tiny_model.config, tiny_model.statistics, overrides={"jpeg": False, "max_prompt_tokens": 32}
    )
    export_bundle(tiny_model, policy, directory, tokenizer=tokenizer_json, notes={"training": {"steps": 0}})
    return directory


@pytest.fixture
def bundle_copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may damage."""
    return shutil.copytree(tiny_bundle, tmp_path / "copy")
