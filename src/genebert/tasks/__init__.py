"""Labelled windows: reading them, making them from annotation, and simple baselines on them."""
