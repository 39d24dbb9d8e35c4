"""Demonstrations, training and closed-loop evaluation."""
