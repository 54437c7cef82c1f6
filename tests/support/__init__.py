"""What tests share: sets that are drawn, small pipelines, a second way to every number."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
