"""How many visual tokens a policy retains on real frames, and which buckets suit that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count, cycle, islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lightvla_ros.app import make_policy
from lightvla_ros.backends.length_buckets import bucket_for, default_retained_buckets, suggest_buckets
from lightvla_ros.backends.loading import LoadedEngine, find_directory, load_engine
from lightvla_ros.backends.manifest import MANIFEST_NAME, Manifest
from lightvla_ros.commands._inputs import PROMPT_TOKENS, random_ids, random_image
from lightvla_ros.core.errors import EngineError
from lightvla_ros.core.observation import Observation

SOURCES = ("auto", "tabletop", "random")
_TABLETOP = "tabletop"
_BAR_WIDTH = 40
# As in `lightvla eval`: an episode's step limit, and steps of a chunk executed per inference.
_MAX_STEPS, _EXECUTION_HORIZON = 250, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketReport:
    """What a policy retained, and how well buckets fit it.

    Attributes:
        source: where the frames came from: "tabletop", acted in by the policy, or "random" images.
        num_visual_tokens: N.
        histogram: retained count -> frames.
        present: buckets of the bundle.
        suggested: as many buckets or fewer, with the least padding.
    """

    source: str
    num_visual_tokens: int
    histogram: Mapping[int, int]
    present: tuple[int, ...]
    suggested: tuple[int, ...]

    def mean_padding(self, buckets: Sequence[int]) -> float:
        """Return the mean number of tokens that padding to `buckets` adds to a frame."""
        padded = (
            (bucket_for(count, buckets, "retained tokens") - count) * times for count, times in self._items
        )
        return sum(padded) / sum(self.histogram.values())

    @property
    def mean(self) -> float:
        """Mean retained count."""
        return sum(count * times for count, times in self._items) / sum(self.histogram.values())

    def to_mapping(self) -> dict[str, object]:
        """Return plain JSON values."""
        return {
            "source": self.source,
            "frames": sum(self.histogram.values()),
            "retained_mean": self.mean,
            "histogram": {str(count): times for count, times in self._items},
            "present": {"buckets": list(self.present), "mean_padding": self.mean_padding(self.present)},
            "suggested": {"buckets": list(self.suggested), "mean_padding": self.mean_padding(self.suggested)},
        }

    def __str__(self) -> str:
        most = max(self.histogram.values())
        bars = [
            f"{count:>8} {times:>6} {'#' * max(1, round(_BAR_WIDTH * times / most))}"
            for count, times in self._items
        ]
        return "\n".join(
            [
                f"retained tokens of {self.num_visual_tokens}, mean {self.mean:.1f}; frames: {self.source}",
                f"{'retained':>8} {'frames':>6}",
                *bars,
                self._line("present", self.present),
                self._line("suggested", self.suggested),
            ]
        )

    def _line(self, name: str, buckets: Sequence[int]) -> str:
        padding = self.mean_padding(buckets)
        return f"{name} buckets {' '.join(map(str, buckets))}: {padding:.1f} tokens of padding per frame"

    @property
    def _items(self) -> list[tuple[int, int]]:
        return sorted(self.histogram.items())


def report_buckets(
    path: str | Path, *, backend: str, num_threads: int, frames: int, source: str
) -> BucketReport:
    """Run a policy over frames and count what it retains.

    Args:
        path: bundle or checkpoint.
        backend: what runs it, as `load_policy` takes it.
        num_threads: CPU threads.
        frames: inferences.
        source: one of `SOURCES`; "auto" takes the tabletop world for policies trained in it.

    Raises:
        EngineError: the world is asked for and its packages are not installed.
    """
    directory = find_directory(path)
    loaded = load_engine(directory, backend, num_threads=num_threads)
    if source == "auto":
        source = _TABLETOP if loaded.policy.statistics_key == _TABLETOP else "random"
    counts = (_tabletop_counts if source == _TABLETOP else _random_counts)(loaded)
    with closing(loaded.engine), closing(counts):
        progress = tqdm(islice(counts, frames), total=frames, unit="frame", leave=False)
        histogram = Counter(progress)
    N, present = loaded.model.num_patches, default_retained_buckets(loaded.model.num_patches)
    if (directory / MANIFEST_NAME).is_file():
        present = Manifest.read(directory).length_buckets
    return BucketReport(
        source=source,
        num_visual_tokens=N,
        histogram=histogram,
        present=present,
        suggested=suggest_buckets(histogram, N, len(present)),
    )


def _tabletop_counts(loaded: LoadedEngine) -> Generator[int, None, None]:
    """Let the policy act in the tabletop world, episode after episode."""
    try:
        from lightvla_ros.sim.tabletop import Tabletop
    except ImportError as e:
        raise _no_world(
            str(e), "MuJoCo", "pip install 'lightvla_ros[sim]', or pass --frames-from random"
        ) from e
    from lightvla_ros.evaluation.rollout import Task, run_episode

    if loaded.tokenizer is None:
        raise _no_world(f"{loaded.name} without tokenizer.json", "a tokenizer", "pass --frames-from random")
    policy = make_policy(loaded)
    with closing(Tabletop()) as world:
        for seed, instruction in enumerate(cycle(world.instructions())):
            task = Task(instruction=instruction, told=instruction, seed=seed, max_steps=_MAX_STEPS)
            episode = run_episode(policy, world, task, execution_horizon=_EXECUTION_HORIZON)
            yield from episode.retained


def _no_world(got: str, expected: str, fix: str) -> EngineError:
    return EngineError("frames from the tabletop world", got=got, expected=expected, fix=fix)


def _random_counts(loaded: LoadedEngine) -> Generator[int, None, None]:
    """Show the policy random images, each with a random prompt."""
    rng = np.random.default_rng(0)
    length = min(PROMPT_TOKENS, loaded.policy.max_prompt_tokens)
    policy = make_policy(loaded, lambda _: random_ids(rng, loaded, length).tolist())
    size = loaded.policy.image_size
    for number in count():
        observation = Observation(
            images={name: random_image(rng, size, size) for name in loaded.policy.camera_names},
            proprio=rng.uniform(-1, 1, loaded.policy.proprio_dim),
            instruction=str(number),  # a new one each time, so that the policy asks for new ids
            stamp_ns=0,
        )
        yield policy.predict_chunk(observation).num_retained
