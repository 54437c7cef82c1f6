"""From image files to answers. The settings of `tasks` come first: libraries read them when they are imported."""

import tasks
