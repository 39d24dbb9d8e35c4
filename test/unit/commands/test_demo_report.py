"""What the demo tells after its episodes."""

from __future__ import annotations

from lightvla_ros.commands._demo_report import describe_policy, stage_latencies, table

SUMMARY = {
    "episodes": 2,
    "success": 0.5,
    "chunk_rate_hz": 20.01,
    "command_rate_hz": 19.98,
    "retained_mean": 37.4,
    "retained_min": 23,
    "retained_max": 51,
    "num_visual_tokens": 128,
    "frames": 118,
    "stage_ms": {"vision": {"p50": 3.2, "p95": 4.5}},
    "results": [
        {"instruction": "pick up the cube", "success": True, "seed": 3, "steps": 90, "retained_mean": 37.0},
        {"instruction": "pick up the can", "success": False, "seed": 4, "steps": 300, "retained_mean": 38.0},
    ],
    "video": "out/demo.mp4",
    "picture": "out/demo.png",
}


def test_latencies_are_grouped_by_stage() -> None:
    diagnostics = {
        "vision_p50_ms": "3.20",
        "vision_p95_ms": "4.50",
        "epoch": "3",
        "publisher_late_p50_ms": "0.10",
    }
    assert stage_latencies(diagnostics) == {
        "vision": {"p50": 3.2, "p95": 4.5},
        "publisher_late": {"p50": 0.1},
    }


def test_the_table_has_a_row_per_episode_and_the_totals() -> None:
    text = table(SUMMARY)
    assert [line.split()[-3] for line in text.splitlines()[1:3]] == ["yes", "no"]
    assert "success 50% of 2 episodes" in text
    assert "retained 37.4 of 128 visual tokens, 23 to 51 over 118 frames" in text
    assert "p95    4.50 ms" in text
    assert "out/demo.mp4" in text


def test_the_policy_is_described_by_what_its_bundle_notes() -> None:
    notes = {"evaluation": {"success": 0.6, "episodes": 40}, "made": "from the scripted expert"}
    assert describe_policy("mini", notes).splitlines() == [
        "policy mini",
        "  evaluation: success 0.6, episodes 40",
        "  made: from the scripted expert",
    ]
