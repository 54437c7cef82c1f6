"""The stages. No library they use reports home or fills the terminal: each reads these settings when it is imported."""

import os
import sys

for _name, _value in {
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TQDM_DISABLE": "" if sys.stderr.isatty() else "1",
}.items():
    os.environ.setdefault(_name, _value)
