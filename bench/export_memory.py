"""Measure the memory of an export: `python bench/export_memory.py CHECKPOINT --out DIR --precision bfloat16`.

The export runs in a process of its own, whose memory is sampled from /proc. Anonymous memory is what the
export itself holds; pages of mapped files, which the system can drop at any time, are counted apart.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from lightvla_ros.backends.export import export_bundle
from lightvla_ros.model.checkpoint import open_checkpoint
from lightvla_ros.model.policy_config import read_policy_config

PERIOD_S = 0.02


@dataclass(slots=True, kw_only=True)
class Phase:
    """One stretch of an export; memory in MB is the largest seen."""

    name: str
    seconds: float = 0.0
    anonymous_mb: float = 0.0
    mapped_mb: float = 0.0


def export(checkpoint: Path, out: Path, precision: str) -> None:
    """Export, and print a line whenever something else is being done."""
    current = "opening"

    def progress(what: str, done: int, total: int) -> None:
        nonlocal current
        name = what if done < total else f"after {what}"
        if name != current:
            current = name
            print(name, flush=True)

    model = open_checkpoint(checkpoint)
    policy = read_policy_config(checkpoint, model.config, model.statistics)
    export_bundle(model, policy, out, precision=precision, progress=progress)


def memory_mb(pid: int) -> dict[str, float]:
    """Read a process's memory; empty when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    fields = (line.split() for line in lines if line.startswith(("Rss", "VmHWM")))
    return {name.rstrip(":"): int(kilobytes) / 1e3 for name, kilobytes, _ in fields}


def measure(command: list[str]) -> tuple[list[Phase], float]:
    """Run a command whose lines name its phases; return them and the highest resident memory in MB."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    phases, high_mb, last = [Phase(name="opening")], 0.0, time.monotonic()
    assert process.stdout is not None
    lines = process.stdout
    reader = threading.Thread(target=lambda: phases.extend(Phase(name=line.strip()) for line in lines))
    reader.start()
    while process.poll() is None:
        memory, now, phase = memory_mb(process.pid), time.monotonic(), phases[-1]
        phase.seconds, last = phase.seconds + now - last, now
        anonymous = memory.get("RssAnon", 0.0) + memory.get("RssShmem", 0.0)
        phase.anonymous_mb = max(phase.anonymous_mb, anonymous)
        phase.mapped_mb = max(phase.mapped_mb, memory.get("RssFile", 0.0))
        high_mb = max(high_mb, memory.get("VmHWM", 0.0))
        time.sleep(PERIOD_S)
    reader.join()
    if process.returncode:
        raise SystemExit(process.returncode)
    return phases, high_mb


def main() -> None:
    """Print the table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="a new directory for the bundle")
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        export(args.checkpoint, args.out, args.precision)
        return
    phases, high_mb = measure([sys.executable, __file__, "--child", *sys.argv[1:]])
    files = {path.name: path.stat().st_size for path in sorted(args.out.iterdir())}
    if args.json:
        rows = [asdict(phase) for phase in phases]
        print(json.dumps({"phases": rows, "resident_peak_mb": high_mb, "files": files}))
        return
    print(f"{'phase':<24} {'seconds':>8} {'anonymous MB':>13} {'mapped files MB':>16}")
    for phase in phases:
        row = f"{phase.seconds:>8.1f} {phase.anonymous_mb:>13.0f} {phase.mapped_mb:>16.0f}"
        print(f"{phase.name:<24} {row}")
    print(f"peak: anonymous {max(p.anonymous_mb for p in phases):.0f} MB, resident {high_mb:.0f} MB")
    for name, size in files.items():
        print(f"{name:<24} {size / 1e6:>10.1f} MB")


if __name__ == "__main__":
    main()
