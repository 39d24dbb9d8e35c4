"""Recordings of a policy node as rosbag2 directories with MCAP storage; no ROS installation is needed."""
