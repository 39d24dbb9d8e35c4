"""The tokenizer of a checkpoint or bundle: `tokenizer.json`, or what can be made into one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from lightvla_ros.core.errors import BundleError, CheckpointError
from lightvla_ros.model.config import ModelConfig

TOKENIZER_NAME = "tokenizer.json"


def read_tokenizer(checkpoint: Path) -> str | None:
    """Return the contents of a checkpoint's `tokenizer.json`, converted from `tokenizer.model` if need be.

    Returns:
        JSON text, or None when the checkpoint has no tokenizer at all.

    Raises:
        CheckpointError: there is only a `tokenizer.model` and it cannot be converted here.
    """
    path = checkpoint / TOKENIZER_NAME
    if path.is_file():
        return path.read_text(encoding="utf-8")
    if not (checkpoint / "tokenizer.model").is_file():
        return None
    try:
        from transformers import LlamaTokenizerFast

        text: str = LlamaTokenizerFast.from_pretrained(
            checkpoint, add_bos_token=True
        ).backend_tokenizer.to_str()
    except Exception as e:
        raise CheckpointError(
            f"tokenizer in {checkpoint}",
            got=f"only tokenizer.model, and {type(e).__name__}: {e}",
            expected=TOKENIZER_NAME,
            fix="fetch tokenizer.json of the checkpoint, or pip install transformers sentencepiece",
        ) from e
    return text


def load_encoder(path: Path, model: ModelConfig) -> Callable[[str], Sequence[int]]:
    """Open a `tokenizer.json` as a function from text to token ids, BOS first.

    Raises:
        BundleError: the file is corrupt or has more tokens than the model has embeddings.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as e:
        raise BundleError(
            str(path), got=str(e), expected="a tokenizer.json", fix="fetch or export it again"
        ) from e
    if (size := tokenizer.get_vocab_size()) > model.vocab_size:
        raise BundleError(
            str(path),
            got=f"{size} tokens",
            expected=f"at most {model.vocab_size}, the rows of the embedding table",
            fix="use the tokenizer.json that belongs to these weights",
        )

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text).ids
        # Some tokenizer files leave BOS to the caller; the model was trained with it.
        return ids if ids[:1] == [model.bos_id] else [model.bos_id, *ids]

    return encode
