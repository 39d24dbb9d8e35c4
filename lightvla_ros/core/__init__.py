"""ROS-free, torch-free core: what an observation is, how it is prepared, how a chunk is executed in time."""
