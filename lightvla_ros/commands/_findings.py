"""What `lightvla doctor` looks at: each finding says what is so, how bad that is, and how to mend it."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import lightvla_ros
from lightvla_ros.backends.availability import Availability, available_backends
from lightvla_ros.commands._bundle_findings import bundle_findings
from lightvla_ros.commands._finding import Finding, Level
from lightvla_ros.commands._graph_findings import graph_findings
from lightvla_ros.commands._machine_findings import machine_findings
from lightvla_ros.commands._ros_findings import ros_findings


def findings(bundle: str, *, node: str | None = None, seconds: float = 0.0) -> Iterator[Finding]:
    """Look at everything.

    Args:
        bundle: the one to look at, a directory or a name.
        node: full name of the policy node; None for the default's, or any that is there.
        seconds: how long to listen to the graph; 0 leaves it out.
    """
    backends = available_backends()
    yield _package()
    of_ros = list(ros_findings())
    yield from of_ros
    yield from machine_findings()
    yield from (_backend(backend) for backend in backends)
    yield from bundle_findings(bundle, {backend.name: backend for backend in backends})
    can_listen = of_ros[0].level == "ok" and all(finding.level != "error" for finding in of_ros)
    if seconds > 0.0 and can_listen:
        from lightvla_ros.nodes.graph_survey import survey_graph

        yield from graph_findings(survey_graph(node, seconds))


def _package() -> Finding:
    python = platform.python_version()
    text = f"lightvla_ros {lightvla_ros.__version__}, Python {python} on {platform.machine()}"
    return Finding(section="package", level="ok", text=text)


def _backend(backend: Availability) -> Finding:
    if backend.usable:
        return Finding(section="backends", level="ok", text=f"{backend.name}: {backend.found}")
    found = f"{backend.found}, " if backend.found else ""
    # The one backend that every installation has: without it the package is broken.
    level: Level = "error" if backend.name == "onnxruntime" else "note"
    text = f"{backend.name}: {found}lacks {backend.lacks}"
    return Finding(section="backends", level=level, text=text, fix=backend.fix)
