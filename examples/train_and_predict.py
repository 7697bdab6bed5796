"""Train a small pruned and quantized classifier on banking77 and predict with what was stored.

Usage: python examples/train_and_predict.py FOLDER [ROWS]

FOLDER is made. All 10,003 rows take some minutes; ROWS takes a sample of them.
"""

import sys
from pathlib import Path

import multipress
from multipress.engines.single import train_artifact
from multipress.spec import DataSpec, MethodSpec, RunSpec, TrainingSpec

QUESTIONS = ["My new card has still not arrived", "How do I top up with cash?"]


def main(folder: Path, max_train_rows: int) -> None:
    spec = RunSpec(
        kind="train",
        model="minilm-l3",
        data=DataSpec(task="banking77", max_train_rows=max_train_rows, max_eval_rows=min(max_train_rows, 3080)),
        training=TrainingSpec(epochs=3, learning_rate=2e-4, max_length=64),
        methods=(MethodSpec("quantization", {"bits": 4}), MethodSpec("pruning", {"sparsity": 0.4})),
    )
    trained = train_artifact(spec, folder)
    print(f"{trained.artifact.weights_bytes / 1e6:.2f} MB of weights")

    predictor = multipress.open(folder)  # from here on, no torch is needed
    for question, prediction in zip(QUESTIONS, predictor(QUESTIONS), strict=True):
        print(f"{question} -> {prediction.label} ({prediction.score:.2f})")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
