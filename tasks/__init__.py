"""The pipeline. `machine` comes first: libraries read their settings when they are imported."""

import tasks.machine  # noqa: F401  # it works when it is imported
