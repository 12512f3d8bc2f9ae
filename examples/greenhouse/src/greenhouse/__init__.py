"""Greenhouse gateway: reads sensors, keeps readings, raises alarms, serves its status."""

from importlib.metadata import version

# The one place that holds the version is pyproject.toml.
__version__ = version("greenhouse")
