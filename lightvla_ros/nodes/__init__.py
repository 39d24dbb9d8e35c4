"""The only rclpy code: the policy node, the simulator node and their edges."""
