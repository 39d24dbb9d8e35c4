"""The panel in rqt, which gives the node, spins it and keeps the settings."""

from __future__ import annotations

from typing import Any

from rqt_gui_py.plugin import Plugin

from lightvla_ros.nodes.panel_link import PanelLink
from lightvla_ros.view.panel import SETTINGS, Panel
from lightvla_ros.view.panel_model import PanelModel


class PolicyPanel(Plugin):  # type: ignore[misc]  # rqt is not annotated
    """What rqt makes of `plugin.xml`.

    Args:
        context: rqt's.
    """

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self.setObjectName("PolicyPanel")
        model = PanelModel()
        self._link = PanelLink(context.node, model)
        self._panel = Panel(model, self._link)
        if context.serial_number() > 1:
            self._panel.setWindowTitle(f"{self._panel.windowTitle()} ({context.serial_number()})")
        context.add_widget(self._panel)

    def shutdown_plugin(self) -> None:
        """Free what was made; the node is rqt's."""
        self._panel.stop()
        self._link.close()

    def save_settings(self, plugin_settings: Any, instance_settings: Any) -> None:
        """Keep what a person chose."""
        for name, value in self._panel.save_settings().items():
            instance_settings.set_value(name, value)

    def restore_settings(self, plugin_settings: Any, instance_settings: Any) -> None:
        """Take over what was kept; what was never kept is None."""
        kept = {name: instance_settings.value(name) for name in SETTINGS}
        self._panel.restore_settings({name: value for name, value in kept.items() if isinstance(value, str)})
