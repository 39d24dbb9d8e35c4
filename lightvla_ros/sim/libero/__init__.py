"""LIBERO's tasks as worlds; needs the extra `libero`."""
