"""When to run and how to watch. The settings of `tasks` come first: Prefect reads its own when it is imported."""

import tasks
