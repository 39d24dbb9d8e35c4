"""Policies on TensorRT and TensorRT-RTX: building plans, choosing them, and running them without torch."""
