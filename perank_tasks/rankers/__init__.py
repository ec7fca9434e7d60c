"""Rankers: what kinds of thing an arm can be."""
