"""Engines: the stages of a policy on one inference library each, and the bundles they are loaded from."""
