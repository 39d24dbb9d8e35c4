#!/usr/bin/env bash
# Runs a command of .venv (or of $LIGHTVLA_VENV) on a ROS 2 graph of its own: no robot nearby is seen, let
# alone moved.
#   scripts/run.sh pytest test/ros
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/ros.sh

venv=${LIGHTVLA_VENV:-.venv}
if compgen -G "$venv/lib/python*/site-packages/rclpy" >/dev/null; then
    hide_system_ros
fi
export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST
# Humble's word for it, which later distributions warn of.
if [ "${ROS_DISTRO:-}" = humble ]; then export ROS_LOCALHOST_ONLY=1; fi
export ROS_DOMAIN_ID=$((1 + $$ % 100))
# The pytest plugins of an installed ROS 2 do not work with current pytest, and none is needed.
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
export PATH=$(realpath "$venv")/bin:$PATH
exec "$@"
