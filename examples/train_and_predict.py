"""Train a small pruned and quantized classifier on banking77 and predict with what was stored.

Usage: python examples/train_and_predict.py FOLDER [ROWS]

All 10,003 rows take some minutes; ROWS takes a sample of them.
"""

import sys
from pathlib import Path

import multipress
from multipress.engines.execute import Places, train_to_folder
from multipress.spec import DataSpec, MethodSpec, RunSpec, TrainingSpec
from multipress.tasks import load_task

QUESTIONS = ["My new card has still not arrived", "How do I top up with cash?"]


def main(folder: Path, max_train_rows: int) -> None:
    spec = RunSpec(
        kind="train",
        model="minilm-l3",
        data=DataSpec(task="banking77", max_train_rows=max_train_rows, max_eval_rows=min(max_train_rows, 3080)),
        training=TrainingSpec(epochs=3, learning_rate=2e-4, max_length=64),
        methods=(MethodSpec("quantization", {"bits": 4}), MethodSpec("pruning", {"sparsity": 0.4})),
    )
    folder.mkdir(parents=True)
    train_to_folder(spec, load_task(spec.data), folder, run_id="", places=Places())

    predictor = multipress.open(folder / "artifact")
    print(f"{predictor.artifact.weights_bytes / 1e6:.2f} MB of weights")
    for question, prediction in zip(QUESTIONS, predictor(QUESTIONS), strict=True):
        print(f"{question} -> {prediction.label} ({prediction.score:.2f})")


# Workers are started anew and import this file, so nothing may run on import.
if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
