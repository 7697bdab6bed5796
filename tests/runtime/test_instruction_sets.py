"""The same labels on a processor that has fewer instructions: emulated, because no runtime can be told to use fewer."""

import json
import platform
import shutil
import subprocess
import sys

import numpy as np
import pytest

from multipress.runtime import Predictor

EMULATOR = shutil.which("qemu-x86_64")
TEXTS = ["w1 w2 w3", "", "w9 " * 12, "w4 w5 unknown", "w7 w8 w30 w2"]
PREDICT = (
    "import json, sys; from multipress.runtime import Predictor; folder, texts = json.load(sys.stdin); "
    "print(json.dumps([Predictor(folder, precision=p).logits(texts).tolist() for p in ('fp32', 'int8')]))"
)


@pytest.mark.slow  # twenty seconds: every instruction is translated
@pytest.mark.skipif(EMULATOR is None or platform.machine() != "x86_64", reason="needs qemu-x86_64, on x86-64")
def test_a_processor_without_avx_gives_the_same_labels_and_logits(write_tiny, tmp_path):
    artifact = write_tiny(tmp_path / "codes", bits=8, sparsity=0.4)
    done = subprocess.run(
        [EMULATOR, "-cpu", "Nehalem", sys.executable, "-c", PREDICT],
        input=json.dumps([str(artifact.folder), TEXTS]),
        capture_output=True,
        text=True,
        check=True,
    )
    for precision, found in zip(("fp32", "int8"), json.loads(done.stdout), strict=True):
        expected = Predictor(artifact, precision=precision).logits(TEXTS)
        assert np.array_equal(np.argmax(found, axis=1), expected.argmax(axis=1))
        np.testing.assert_allclose(found, expected, atol=1e-5)
