"""Follow a training: log each epoch to the terminal and to MLflow, and record the progress."""

import logging
import time
from dataclasses import dataclass, field

import mlflow

from tasks import progress
from tasks.modeling.checkpoints import Row
from tasks.modeling.training import Measure, Watch
from tasks.tracking import runs

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpochLog:
    """The log of one training. `metric` is the validation score that a display shows."""

    stage: str
    metric: str = "val_accuracy"
    started: float = field(default_factory=time.time)

    def watch(self, measure: Measure | None = None) -> Watch:
        """Return the watch that writes this log."""
        return Watch(self.write_epoch, measure, self.write_phase)

    def write_epoch(self, row: Row, epochs: int) -> None:
        """Log an epoch, and record it as progress."""
        log_epoch(row, epochs)
        phase = {"phase": f"phase {row['phase']:.0f}"} if "phase" in row else {}
        progress.write_progress(
            self.stage,
            started=self.started,
            epoch=row["epoch"],
            epochs=epochs,
            **phase,
            loss=row["loss"],
            val_loss=row["val_loss"],
            score=row.get(self.metric),
            metric=self.metric,
            epoch_seconds=row["seconds"],
        )

    def write_phase(self, phase: str, epoch: int, epochs: int) -> None:
        """Record the work between epochs, such as computing features."""
        named = {"phase": phase} if phase else {}
        progress.write_progress(
            self.stage, started=self.started, epoch=epoch, epochs=epochs, **named
        )


def log_epoch(row: Row, epochs: int) -> None:
    """Log one epoch to the terminal and to MLflow."""
    left = (epochs - row["epoch"]) * row["seconds"]
    rate = f"  rate {row['learning_rate']:.2g}" if "learning_rate" in row else ""
    log.info(
        f"epoch {row['epoch']:2.0f}/{epochs}  loss {row['loss']:.4f}  "
        f"accuracy {row['accuracy']:.3f}  val_loss {row['val_loss']:.4f}  "
        f"val_accuracy {row['val_accuracy']:.3f}{rate}  {row['seconds']:.1f} s, at most "
        f"{f'{left / 60:.1f} min' if left >= 60 else f'{left:.0f} s'} left"
    )
    # With a prefix, MLflow does not show the last epoch's score in place of the kept epoch's.
    metrics = {f"epoch/{name}": value for name, value in row.items() if name != "epoch"}
    runs.record(lambda: mlflow.log_metrics(metrics, step=int(row["epoch"])), live=True)
