"""The policy in a process of its own: nothing it does can hold up the process that publishes commands."""
