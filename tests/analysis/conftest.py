import pytest

SETTINGS = {"pruning": "sparsity", "quantization": "bits", "distillation": "temperature"}


@pytest.fixture
def row():
    """Builds a row as `Store.cells` gives it; every row gets its own id."""
    made = []

    def build(model="m", task="t", levels=None, seed=0, score=0.9, size=100.0, state="done", **more):
        levels = levels or {}
        made.append(None)
        done = state == "done"
        return {
            "run_id": f"{len(made):012x}",
            "studies": ["s"],
            "model": model,
            "task": task,
            "methods": sorted(levels),
            "settings": {name: {SETTINGS[name]: value} for name, value in levels.items()},
            "seed": seed,
            "learning_rate": 1e-4,
            "data": {"task": task},
            "training": {"learning_rate": 1e-4, "epochs": 3},
            "state": state,
            "why": "" if done else "stub",
            "score": score if done else None,
            "metrics": {},
            "ideal_bytes": size if done else None,
            "weights_bytes": size * 1.1 if done else None,
            "package_bytes": size * 1.2 if done else None,
            "dense_bytes": 400.0 if done else None,
            **more,
        }

    return build
