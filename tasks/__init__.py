"""The stages. What a machine brings along is settled first: libraries read their settings when they are imported."""

import tasks.machine
