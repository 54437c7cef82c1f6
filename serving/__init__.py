"""From image files to predictions, on the command line, by REST and on a web page."""

import tasks  # noqa: F401  it prepares the environment before any library reads it
