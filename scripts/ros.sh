# Sourced by setup.sh and run.sh: which ROS 2 a virtual environment works with.

# Succeeds when ROS 2 was set up in this shell for the given Python.
has_system_ros() {
    [ -n "${ROS_DISTRO:-}" ] && "$1" -c "import rclpy" >/dev/null 2>&1
}

# Hides a ROS 2 that was set up in this shell, or the wheels of another environment: libraries of two must not
# be mixed. The last variable is how the wheels know that LD_LIBRARY_PATH is already theirs.
hide_system_ros() {
    unset PYTHONPATH AMENT_PREFIX_PATH LD_LIBRARY_PATH RMW_IMPLEMENTATION ROS_DISTRO
    unset _ROS_WHEELS_BOOTSTRAP_COMPLETE
}
