"""Time ONNX Runtime's options against each other on the CPU, in turns, in one process.

    python bench/onnxruntime_options.py engines/mini --retained 1 16 64 128
    python bench/onnxruntime_options.py --random 1024x8 --retained 64 512 [--json]

Each variant changes one thing of what `OrtEngine` does with one thread. A speed-up is the median over the
rounds of the engine's time in that round over the variant's, so load that lasts for a round cancels.
"""
# long: every option beside the measurement it was chosen by.

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lightvla_ros.backends.export import export_bundle
from lightvla_ros.backends.manifest import Manifest
from lightvla_ros.backends.onnxruntime_engine import OrtOptions, session_options
from lightvla_ros.commands._random_bundle import random_model_config
from lightvla_ros.commands._random_size import RandomSize
from lightvla_ros.model import LightVla
from lightvla_ros.model.policy_config import policy_config_for

BASELINE = "engine"
BOUND = "IO binding"
STAGES = ("vision", "pruner", "decoder")
WARM_UP = 2
# LIBERO's mean instruction has 28 ids, BOS not counted here.
PROMPT_TOKENS = 27

Sessions = Mapping[str, ort.InferenceSession]
Inputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One stage of one variant; times in milliseconds, `cpu_ms` over all threads."""

    variant: str
    retained: int
    stage: str
    p50_ms: float
    cpu_ms: float
    speedup: float
    speedup_q1: float
    speedup_q3: float
    cpu_speedup: float


def _level(name: str) -> Callable[[ort.SessionOptions], None]:
    def configure(options: ort.SessionOptions) -> None:
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_{name}")

    return configure


def _entry(key: str, value: str) -> Callable[[ort.SessionOptions], None]:
    return lambda options: options.add_session_config_entry(key, value)


def _attributes(**values: Any) -> Callable[[ort.SessionOptions], None]:
    def configure(options: ort.SessionOptions) -> None:
        for name, value in values.items():
            setattr(options, name, value)

    return configure


def _two_spinning_threads(options: ort.SessionOptions) -> None:
    # Without the engine's limit on it, spinning would slow down the neighbour in the same round too.
    options.intra_op_num_threads = 2
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")


CONFIGURE: dict[str, Callable[[ort.SessionOptions], None]] = {
    BASELINE: lambda options: None,
    "2 threads": _attributes(intra_op_num_threads=2),
    "2 threads, spinning": _two_spinning_threads,
    "no graph optimisation": _level("DISABLE_ALL"),
    "basic graph level": _level("ENABLE_BASIC"),
    "extended graph level": _level("ENABLE_EXTENDED"),
    "no arena": _attributes(enable_cpu_mem_arena=False),
    "no memory pattern": _attributes(enable_mem_pattern=False),
    "no arena, no pattern": _attributes(enable_cpu_mem_arena=False, enable_mem_pattern=False),
    "denormals are zero": _entry("session.set_denormal_as_zero", "1"),
    "no prepacking": _entry("session.disable_prepacking", "1"),
    BOUND: lambda options: None,
}


class Plain:
    """A chunk through `InferenceSession.run`, as the engine does it."""

    def __init__(self, sessions: Sessions, inputs: Inputs) -> None:
        self._sessions, self._inputs = sessions, inputs

    def vision(self) -> None:
        """Pixels to patches."""
        self.patches = self._run("vision", {})[0]

    def pruner(self) -> None:
        """Patches to order and count."""
        self._run("pruner", {"patches": self.patches})

    def decoder(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Retained patches to actions."""
        feed = {"patches": self.patches, "retained_indices": indices, "retained_count": _count(indices)}
        return self._run("decoder", feed)[0]

    def _run(self, part: str, feed: Inputs) -> list[NDArray[Any]]:
        session = self._sessions[part]
        names = {i.name for i in session.get_inputs()}
        return session.run(None, {k: v for k, v in self._inputs.items() if k in names} | dict(feed))


class Bound:
    """A chunk through bindings: patches stay an OrtValue, and each output has its place already."""

    def __init__(self, sessions: Sessions, inputs: Inputs) -> None:
        self._sessions = sessions
        self._bindings = {part: sessions[part].io_binding() for part in STAGES}
        values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in inputs.items()}
        for part, session in sessions.items():
            for output in session.get_outputs():
                values[output.name] = ort.OrtValue.ortvalue_from_numpy(
                    np.zeros(output.shape, _dtype(output.type))
                )
                self._bindings[part].bind_ortvalue_output(output.name, values[output.name])
        for part, session in sessions.items():
            for name in (i.name for i in session.get_inputs() if i.name in values):
                self._bindings[part].bind_ortvalue_input(name, values[name])
        self._values = values

    def vision(self) -> None:
        """Pixels to patches."""
        self._sessions["vision"].run_with_iobinding(self._bindings["vision"])

    def pruner(self) -> None:
        """Patches to order and count."""
        self._sessions["pruner"].run_with_iobinding(self._bindings["pruner"])

    def decoder(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Retained patches to actions."""
        binding = self._bindings["decoder"]
        binding.bind_cpu_input("retained_indices", indices)
        binding.bind_cpu_input("retained_count", _count(indices))
        self._sessions["decoder"].run_with_iobinding(binding)
        return self._values["normalized_actions"].numpy().copy()


def _count(indices: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.array([indices.shape[1]])


def _dtype(ort_type: str) -> type:
    return {"tensor(float)": np.float32, "tensor(int64)": np.int64}[ort_type]


def _sessions(directory: Path, manifest: Manifest, options: ort.SessionOptions) -> Sessions:
    return {
        part: ort.InferenceSession(
            str(manifest.part_path(directory, part)), options, providers=["CPUExecutionProvider"]
        )
        for part in STAGES
    }


def _inputs(manifest: Manifest) -> Inputs:
    rng, model = np.random.default_rng(0), manifest.model
    prompt = min(PROMPT_TOKENS, manifest.prompt_buckets[-1])
    channels = 3 * len(model.towers) * model.num_cameras
    return {
        "pixel_values": rng.normal(size=(1, channels, model.image_size, model.image_size)).astype(np.float32),
        "prompt_keys": rng.normal(size=(1, prompt, model.hidden_size)).astype(np.float32),
        "prompt_tokens": rng.normal(size=(1, prompt, model.hidden_size)).astype(np.float32),
        "prompt_length": np.array([prompt]),
        "proprio": rng.uniform(-1, 1, (1, model.proprio_dim)).astype(np.float32),
    }


def _runner(variant: str, directory: Path, manifest: Manifest) -> Plain | Bound:
    options = session_options(OrtOptions(num_threads=1))
    CONFIGURE[variant](options)
    runner = Bound if variant == BOUND else Plain
    return runner(_sessions(directory, manifest, options), _inputs(manifest))


def _timed(run: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return (time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3


def measure(directory: Path, variants: Sequence[str], retained: Sequence[int], rounds: int) -> Iterator[Row]:
    """Time variants, each in turns with the engine's own way: two at a time, to stay small."""
    manifest = Manifest.read(directory)
    order = np.random.default_rng(1).permutation(manifest.model.num_patches)
    chosen = {count: np.sort(order[:count])[None] for count in retained}
    for variant in variants:
        pair = [_runner(name, directory, manifest) for name in (BASELINE, variant)]
        # The count changes with every chunk, as it does when a policy runs.
        turns = [[_round(pair, i, turn) for i in chosen.values()] for turn in range(WARM_UP + rounds)]
        times = np.array(turns[WARM_UP:])
        for index, count in enumerate(chosen):
            yield from _rows(variant, count, times[:, index])


def _round(pair: Sequence[Plain | Bound], indices: NDArray[np.int64], turn: int) -> Any:
    """Run both once, the first of them alternating: [2, stages + total, (wall, cpu)]."""
    times: list[Any] = [None, None]
    for index in (0, 1) if turn % 2 else (1, 0):
        runner = pair[index]
        stages = [_timed(runner.vision), _timed(runner.pruner), _timed(partial(runner.decoder, indices))]
        times[index] = [*stages, tuple(np.sum(stages, axis=0))]
    return times


def _rows(variant: str, retained: int, times: NDArray[np.float64]) -> Iterator[Row]:
    """Condense [rounds, 2, stages + total, (wall, cpu)]."""
    for s, stage in enumerate((*STAGES, "total")):
        wall, cpu = times[:, :, s, 0], times[:, :, s, 1]
        q1, median, q3 = np.percentile(wall[:, 0] / wall[:, 1], (25, 50, 75))
        yield Row(
            variant=variant,
            retained=retained,
            stage=stage,
            p50_ms=round(float(np.median(wall[:, 1])), 3),
            cpu_ms=round(float(np.median(cpu[:, 1])), 3),
            speedup=round(float(median), 3),
            speedup_q1=round(float(q1), 3),
            speedup_q3=round(float(q3), 3),
            cpu_speedup=round(float(np.median(cpu[:, 0] / cpu[:, 1])), 3),
        )


def measure_start(directory: Path, rounds: int) -> dict[str, float]:
    """Seconds to open the decoder as it is, and as ONNX Runtime saved it after its own optimisation."""
    source = Manifest.read(directory).part_path(directory, "decoder")
    with tempfile.TemporaryDirectory() as scratch:
        saved = Path(scratch) / "optimised.onnx"
        options = session_options(OrtOptions(num_threads=1))
        options.optimized_model_filepath = str(saved)
        ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
        seconds: dict[str, list[float]] = {"as exported": [], "as optimised": []}
        for _ in range(rounds):
            for name, path, level in (
                ("as exported", source, "ENABLE_ALL"),
                ("as optimised", saved, "DISABLE_ALL"),
            ):
                options = session_options(OrtOptions(num_threads=1))
                _level(level)(options)
                wall_ms, _ = _timed(
                    lambda p=path, o=options: ort.InferenceSession(
                        str(p), o, providers=["CPUExecutionProvider"]
                    )
                )
                seconds[name].append(wall_ms / 1e3)
    return {name: round(float(np.median(values)), 3) for name, values in seconds.items()}


@contextmanager
def _bundle(arguments: argparse.Namespace) -> Iterator[Path]:
    if arguments.random is None:
        yield arguments.bundle
        return
    model = LightVla(random_model_config(RandomSize.parse(arguments.random)))
    quantiles = {name: {"q01": [-1.0] * n, "q99": [1.0] * n} for name, n in (("action", 7), ("proprio", 8))}
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "random"
        export_bundle(model, policy_config_for(model.config, {"random": quantiles}), directory)
        del model
        yield directory


def main() -> None:
    """Print the table, or one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, nargs="?", default=Path("engines/mini"))
    parser.add_argument("--random", metavar="WIDTHxLAYERS", help="a model with random weights instead")
    parser.add_argument("--retained", type=int, nargs="+", default=[16, 64], help="retained tokens")
    parser.add_argument(
        "--variants", nargs="+", choices=list(CONFIGURE), default=list(CONFIGURE), help="default: all"
    )
    parser.add_argument("--rounds", type=int, default=30, help="timed turns of each variant (default 30)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args()
    ort.set_default_logger_severity(3)  # a variant that sets an option again is no news
    with _bundle(arguments) as directory:
        start_s = measure_start(directory, rounds=5)
        rows = list(measure(directory, arguments.variants, arguments.retained, arguments.rounds))
    if arguments.json:
        print(json.dumps({"start_s": start_s, "rows": [asdict(row) for row in rows]}))
        return
    print("decoder opens in " + ", ".join(f"{value:.2f} s {name}" for name, value in start_s.items()))
    print(f"{'variant':<22} {'K':>4} {'stage':<8} {'p50 ms':>8} {'CPU ms':>8}  speed-up [quartiles], CPU")
    for row in rows:
        print(
            f"{row.variant:<22} {row.retained:>4} {row.stage:<8} {row.p50_ms:>8.2f} {row.cpu_ms:>8.2f}"
            f"  {row.speedup:.2f} [{row.speedup_q1:.2f}, {row.speedup_q3:.2f}]  {row.cpu_speedup:.2f}"
        )


if __name__ == "__main__":
    main()
