"""Closed-loop evaluation: policies act in simulated worlds, and what they are compared with."""
