"""Checkpoint directories: what is written is what is read, and what is wrong is named."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightvla_ros.core.errors import CheckpointError
from lightvla_ros.model import LightVla, ModelConfig, PrunerConfig, load_checkpoint, save_checkpoint
from lightvla_ros.model.checkpoint import published_shapes

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def checkpoint(tiny_model: LightVla, tmp_path: Path) -> Path:
    save_checkpoint(tiny_model, tmp_path / "tiny", extras={"policy": {"jpeg": False}})
    return tmp_path / "tiny"


def edit_weights(checkpoint: Path, edit: Callable[[Tensors], object]) -> None:
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


def test_the_published_layout_has_982_tensors_and_no_pruner() -> None:
    shapes = published_shapes(ModelConfig())
    assert len(shapes) == 982
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == 7_541_237_184
    assert not [name for name in shapes if "pruner" in name]


def test_the_heads_have_the_published_numbers_of_parameters() -> None:
    with torch.device("meta"):
        model = LightVla(ModelConfig())
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    assert count(model.action_head) == 151_117_831
    assert count(model.proprio_projector) == 16_818_176


def test_a_saved_model_loads_again(checkpoint: Path, tiny_model: LightVla) -> None:
    loaded = load_checkpoint(checkpoint)
    assert loaded.config == tiny_model.config
    assert loaded.statistics == tiny_model.statistics
    assert not loaded.training
    for name, weight in tiny_model.state_dict().items():
        assert loaded.state_dict()[name].equal(weight), name


def test_half_precision_is_loaded_in_the_dtype_asked_for(tiny_model: LightVla, tmp_path: Path) -> None:
    save_checkpoint(tiny_model, tmp_path, dtype=torch.bfloat16)
    weights = load_checkpoint(tmp_path).state_dict()
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    name = "projector.fc1.weight"
    assert weights[name].equal(tiny_model.state_dict()[name].bfloat16().float())


def test_shards_are_read_through_their_index(checkpoint: Path, tiny_model: LightVla) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, members in shards.items():
        save_file({name: tensors[name] for name in members}, checkpoint / shard)
    (checkpoint / "model.safetensors").unlink()
    index = {"weight_map": {name: shard for shard, members in shards.items() for name in members}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    assert load_checkpoint(checkpoint).projector.fc1.weight.equal(tiny_model.projector.fc1.weight)
    (checkpoint / "b.safetensors").unlink()
    with pytest.raises(CheckpointError, match="b.safetensors"):
        load_checkpoint(checkpoint)


def test_tensors_of_published_checkpoints_that_nothing_reads_are_allowed(checkpoint: Path) -> None:
    def add(tensors: Tensors) -> None:
        tensors["language_model.lm_head.weight"] = torch.zeros(64, 32)
        tensors["vision_backbone.fused_featurizer.attn_pool.latent"] = torch.full((1, 1, 24), float("nan"))

    edit_weights(checkpoint, add)
    load_checkpoint(checkpoint)


def test_a_missing_tensor_is_named(checkpoint: Path) -> None:
    edit_weights(checkpoint, lambda tensors: tensors.pop("projector.fc2.bias"))
    with pytest.raises(CheckpointError, match=r"projector\.fc2\.bias"):
        load_checkpoint(checkpoint)


def test_an_unexpected_tensor_is_named(checkpoint: Path) -> None:
    edit_weights(checkpoint, lambda tensors: tensors.update({"pruner.weight": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match=r"pruner\.weight"):
        load_checkpoint(checkpoint)


def ask_for_queries(checkpoint: Path) -> None:
    path = checkpoint / "lightvla.json"
    content = json.loads(path.read_text())
    content["model"]["pruner"] = {"kind": "vision_queries", "num_queries": 4}
    path.write_text(json.dumps(content))


def test_learned_queries_that_are_asked_for_must_be_there(checkpoint: Path) -> None:
    ask_for_queries(checkpoint)
    with pytest.raises(CheckpointError, match=r"no pruner\.queries;"):
        load_checkpoint(checkpoint)
    edit_weights(checkpoint, lambda tensors: tensors.update({"pruner.queries": torch.ones(5, 32)}))
    with pytest.raises(CheckpointError, match=r"pruner\.queries.*\(5, 32\).*\(4, 32\)"):
        load_checkpoint(checkpoint)
    edit_weights(checkpoint, lambda tensors: tensors.update({"pruner.queries": torch.ones(4, 32)}))
    assert load_checkpoint(checkpoint).num_queries == 4


def test_learned_queries_nobody_asks_for_are_refused(checkpoint: Path) -> None:
    edit_weights(checkpoint, lambda tensors: tensors.update({"pruner.queries": torch.ones(4, 32)}))
    with pytest.raises(CheckpointError, match=r"pruner\.queries.*not part of this model"):
        load_checkpoint(checkpoint)


def test_a_checkpoint_from_before_there_was_a_choice_has_task_queries(checkpoint: Path) -> None:
    path = checkpoint / "lightvla.json"
    content = json.loads(path.read_text())
    assert content["model"].pop("pruner")["kind"] == "task_queries"
    path.write_text(json.dumps(content))
    assert load_checkpoint(checkpoint).config.pruner == PrunerConfig()


def test_a_tensor_of_another_shape_is_named_with_both_shapes(checkpoint: Path) -> None:
    edit_weights(checkpoint, lambda tensors: tensors.update({"projector.fc2.bias": torch.zeros(31)}))
    with pytest.raises(CheckpointError, match=r"projector\.fc2\.bias.*\(31,\).*\(32,\)"):
        load_checkpoint(checkpoint)


def test_weights_that_are_not_numbers_are_refused(checkpoint: Path) -> None:
    edit_weights(checkpoint, lambda tensors: tensors["projector.fc2.bias"].fill_(float("inf")))
    with pytest.raises(CheckpointError, match=r"projector\.fc2\.bias.*finite"):
        load_checkpoint(checkpoint)


def test_a_truncated_weight_file_is_refused(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_checkpoint(checkpoint)


def test_two_files_of_one_head_are_refused(checkpoint: Path) -> None:
    head = checkpoint / "action_head--latest_checkpoint.pt"
    shutil.copy(head, checkpoint / "action_head--40000_checkpoint.pt")
    with pytest.raises(CheckpointError, match="exactly one"):
        load_checkpoint(checkpoint)


def test_a_pickle_with_code_is_refused_and_not_run(checkpoint: Path, tmp_path: Path) -> None:
    trap = tmp_path / "ran"

    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (trap,)

    torch.save({"module.fc1.weight": Malicious()}, checkpoint / "proprio_projector--latest_checkpoint.pt")
    with pytest.raises(CheckpointError, match="weights-only"):
        load_checkpoint(checkpoint)
    assert not trap.exists()
    pickle.loads(pickle.dumps(Malicious()))
    assert trap.exists(), "the trap would have been noticed"


def test_a_directory_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such directory"):
        load_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "{not json", "invalid JSON"),
        ("config.json", '{"vision_backbone_id": "resnet"}', "vision_backbone_id"),
        ("lightvla.json", '{"model": {"chunks": 3}}', "chunks"),
        ("lightvla.json", '{"model": {"image_size": 57}}', "image_size"),
        ("lightvla.json", '{"model": {"pruner": {"queries": 3}}}', r"model\.pruner.*queries"),
        ("lightvla.json", '{"model": {"pruner": {"kind": "top_k"}}}', "kind.*top_k.*task_queries"),
        ("lightvla.json", '{"model": {"pruner": null}}', "pruner.*None"),
        ("lightvla.json", '{"model": {"image_size": "56"}}', "sizes in .*TypeError"),
        ("lightvla.json", '{"model": {"patch_size": 0}}', "sizes in .*ZeroDivisionError"),
        ("vision.json", '{"featurizer": {"depth": 3}}', "sizes in .*embed_dim.*Fix: correct"),
        ("vision.json", '{"featurizer": {"embed_dim": 16, "colour": 1}}', "sizes in .*colour"),
        (
            "config.json",
            '{"vision_backbone_id": "siglip-vit-so400m", "text_config": []}',
            "sizes in .*AttributeError",
        ),
    ],
)
def test_a_configuration_no_model_can_have_is_refused(
    checkpoint: Path, file: str, content: str, message: str
) -> None:
    (checkpoint / file).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(checkpoint)


def test_grouped_query_decoders_are_refused(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config["text_config"]["num_key_value_heads"] = 2
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="num_key_value_heads"):
        load_checkpoint(checkpoint)
