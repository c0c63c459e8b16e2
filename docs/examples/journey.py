"""The journey of knee3d in Python, from a table of knees to a report. `make lint` checks its types strictly.

Run it on a made-up cohort: python docs/examples/journey.py runs/journey
"""

import sys
from pathlib import Path

import pandas as pd

import knee3d


def journey(table: Path, out: Path, config: knee3d.TrainConfig) -> pd.DataFrame:
    """Prepare, train, fuse, score, and measure one knee.

    Args:
        table: knees.csv, with masks.
        out: The folder of all results.
        config: The settings of the training.

    Returns:
        The measurements of the first test knee: case, tissue, region, measure, unit and value.
    """
    data = knee3d.prepare(table, out / "dataset", scheme="compartments", split=(0.5, 0.25, 0.25))
    model = knee3d.train(data, out / "models", config=config, resume=True)
    model.fit_fusion(data.val)
    print(model.evaluate(data.test, surfaces=False))  # noqa: T201

    image = knee3d.read(table.parent / data.test.cases[0].name / "dicom")
    result = model.segment(image)
    result.save(out / "labels.nii.gz")
    result.make_report(out / "report.html")
    return result.measure().to_frame()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    cohort = knee3d.make_phantom(folder / "cohort", knees=8, shape=(64, 64, 48))
    quick = knee3d.TrainConfig().with_options(epochs=2, batch_size=4, limit_slices=64, learning_rate=1e-3)
    print(journey(cohort, folder, quick))  # noqa: T201
