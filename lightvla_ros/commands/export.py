"""`lightvla export`: a checkpoint directory becomes an engine bundle."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

HELP = "turn a checkpoint directory into an engine bundle that runs without torch"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("checkpoint", type=Path, help="checkpoint directory in the published layout")
    parser.add_argument("--out", type=Path, required=True, help="directory of the new bundle")
    parser.add_argument("--statistics-key", help="data set whose statistics apply, where there are several")
    parser.add_argument(
        "--notes", type=Path, help="JSON object to keep in the manifest: how the model was made, how it did"
    )
    parser.add_argument("--force", action="store_true", help="replace a bundle that is already there")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")


def run(args: argparse.Namespace) -> int:
    """Export and say what was written."""
    from tqdm import tqdm

    from lightvla_ros.backends.export import export_bundle
    from lightvla_ros.backends.manifest import PARTS
    from lightvla_ros.backends.tokenizer import read_tokenizer
    from lightvla_ros.model import load_checkpoint
    from lightvla_ros.model.policy_config import read_policy_config

    notes = _notes(args.checkpoint, args.notes)
    tokenizer = read_tokenizer(args.checkpoint)
    model = load_checkpoint(args.checkpoint)
    policy = read_policy_config(args.checkpoint, model.config, model.statistics, args.statistics_key)
    with tqdm(total=len(PARTS), unit="part") as bar:

        def progress(part: str) -> None:
            bar.set_description(f"exporting {part}")
            bar.update()

        manifest = export_bundle(
            model,
            policy,
            args.out,
            tokenizer=tokenizer,
            notes=notes,
            overwrite=args.force,
            progress=progress,
        )
    files = {file.name: file.num_bytes for part in manifest.parts.values() for file in part.files}
    for name, size in files.items():
        print(f"{name:<16} {size / 1e6:9.2f} MB")
    if tokenizer is None:
        print("no tokenizer in the checkpoint: the bundle takes token ids only")
    print(f"wrote {args.out}")
    if args.json:
        print(json.dumps({"bundle": str(args.out), "files": files}))
    return 0


def _notes(checkpoint: Path, extra: Path | None) -> dict[str, Any]:
    """Collect what `lightvla.json` says beside "model" and "policy", and the notes of `--notes`."""
    from lightvla_ros.model.config import read_json

    own = read_json(checkpoint / "lightvla.json", optional=True)
    kept = {name: value for name, value in own.items() if name not in ("model", "policy")}
    return {**kept, **(read_json(extra) if extra else {})}
