import json

from multipress.report import provenance
from multipress.store import Store


def test_different_versions_and_computers_are_counted_and_unreadable_ones_too(tmp_path):
    store = Store(tmp_path / "runs")
    texts = [json.dumps({"facts": {"versions": {"torch": version}}}) for version in "112"]
    texts += ["{", '{"facts": []}']
    ids = [f"{number:012x}" for number in range(7)]
    for run_id, text in zip(ids, texts, strict=False):
        store.register(run_id, {})
        attempt = store.claim(run_id)
        (attempt.folder / "artifact").mkdir()
        (attempt.folder / "artifact" / "manifest.json").write_text(text)
        (attempt.folder / "circumstances.json").write_text('{"computer": {"cores": 2}}')
        row = {"run_id": run_id, "name": "score", "value": 1.0, "unit": "share"}
        (attempt.folder / "measurements.jsonl").write_text(json.dumps(row))
        attempt.commit()
    store.save_study("s", {"cells": ids, "spec": {}})
    found = provenance(store, store.cells())
    assert found["versions"] == [
        {"cells": 2, "facts": {"torch": "1"}},
        {"cells": 2, "facts": {}},
        {"cells": 1, "facts": {"torch": "2"}},
    ]
    assert [one["cells"] for one in found["computer"]] == [3, 2]
