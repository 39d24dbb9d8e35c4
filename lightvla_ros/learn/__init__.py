"""Demonstrations and training."""
