"""Searches: the capacity of a model, and the setting that gives the most of it."""
