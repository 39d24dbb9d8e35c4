"""Simulated worlds behind one protocol, and scripted experts that act in them."""
