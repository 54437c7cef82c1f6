"""When the pipeline runs, and how to watch it.

`tasks` is imported first: it cleans the environment, which Prefect reads when it is imported.
"""

import tasks  # noqa: F401
