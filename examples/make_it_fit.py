"""Make a fine-tuned classifier fit into so many megabytes, and look at what that cost.

Usage: python examples/make_it_fit.py FOLDER MB [ROWS [MINUTES]]

FOLDER is made: the files of rows and the classifier as a user would have them, and the small model. The rows are
banking77's; ROWS of them are trained on (2,000; at least 560, so that each class has one), and the search takes about
MINUTES (10).
"""

import csv
import sys
from pathlib import Path

import multipress
from multipress.engines.single import train_artifact
from multipress.spec import DataSpec, RunSpec, TrainingSpec
from multipress.tasks import load_task

QUESTION = "My new card has still not arrived"


def main(folder: Path, max_mb: float, rows: int, minutes: float) -> None:
    data = DataSpec(task="banking77", max_train_rows=rows, max_eval_rows=min(3080, 2 * rows))
    training = TrainingSpec(epochs=6, learning_rate=1e-3, max_length=64)
    classifier = train_artifact(RunSpec("train", "minilm-l3", data, training), folder / "classifier").artifact
    files = write_rows(data, folder)

    small = multipress.compress(
        str(classifier.folder), **files, max_mb=max_mb, max_length=64, minutes=minutes, out=folder / "small"
    )
    print(f"{classifier.package_bytes / 1e6:.2f} MB before, {small.package_bytes / 1e6:.2f} MB after")
    print((folder / "small" / "README.md").read_text(encoding="utf-8").split("\n## ")[0])

    (prediction,) = multipress.open(folder / "small")([QUESTION])  # no torch is needed for this
    print(f"{QUESTION} -> {prediction.label} ({prediction.score:.2f})")


def write_rows(data: DataSpec, folder: Path) -> dict[str, str]:
    """Write `train.csv` and `dev.csv`, and give their paths by these names."""
    loaded = load_task(data)
    files = {}
    for name, split in (("train", loaded.train), ("dev", loaded.dev)):
        files[name] = str(folder / f"{name}.csv")
        with open(files[name], "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            labels = [loaded.task.labels[index] for index in split.labels]
            writer.writerows(zip(split.texts, labels, strict=True))
    return files


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        float(sys.argv[2]),
        int(sys.argv[3]) if len(sys.argv) > 3 else 2000,
        float(sys.argv[4]) if len(sys.argv) > 4 else 10.0,
    )
