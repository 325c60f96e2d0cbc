"""Say how many steps a run can make in a given time, by the speed that a short trial of it logged.

    python gpu/steps_in_time.py TRIAL MINUTES

The rate of training falls to 0 at `training.num_steps`: a run that its time ends before that is the worse for it.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

from divid.recipes import load_recipe
from divid.training.metrics import read_metrics

SHARE = 0.93
"""Of the time that steps take; the rest is for validation, checkpoints and the export."""
SPEED = "speed/clips_per_second"


def steps_in_time(trial: Path, minutes: float) -> int:
    """Give the number of steps.

    Args:
        trial: Run folder of a short trial with the same recipe on the same machine.
        minutes: Time for training.

    Raises:
        ValueError: The trial logged too little to tell a speed.
    """
    speeds = [row[SPEED] for row in read_metrics(trial / "metrics.csv") if SPEED in row]
    late = speeds[len(speeds) // 2 :]
    if len(late) < 2:
        raise ValueError(f"{trial} logged {len(speeds)} speeds: too few, give the trial more time")
    batch_size = load_recipe(trial / "recipe.yaml").training.batch_size
    return max(1, int(SHARE * minutes * 60 * statistics.median(late) / batch_size))


if __name__ == "__main__":
    print(steps_in_time(Path(sys.argv[1]), float(sys.argv[2])))
