"""Open the page in headless Chromium and compare its logits with Python's; ends with 1 if they differ.

Usage: python examples/browser/check.py EXPORTED ARTIFACT [TEXT...]

EXPORTED is a folder that `multipress export ARTIFACT --to onnx --precision int8` wrote. Needs `npm install` in this
folder, and Chromium. Writes `page.png` beside what it was called from.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

import multipress

HERE = Path(__file__).parent
LIMIT = 0.05  # of the largest logit: a few steps of an 8-bit activation
TEXTS = [
    "a thoughtful, moving film",
    "",
    "awful " * 300,
    "Café, naïve — 日本語 🙂",
    "don't; can't ... it's 3.5/10",
    "\tx\n y ",
]


class Handler(SimpleHTTPRequestHandler):
    """Serves the page, the model and the texts, and takes the answers."""

    def __init__(self, *arguments, model, texts, answers, **settings):
        self.model, self.texts, self.answers = model, texts, answers
        super().__init__(*arguments, directory=str(HERE), **settings)

    def translate_path(self, path):
        """The model's files lie elsewhere."""
        if path.startswith("/model/"):
            return str(self.model / path.removeprefix("/model/").split("?")[0])
        return super().translate_path(path)

    def do_GET(self):
        """Texts, or a file."""
        if self.path.startswith("/texts.json"):
            data = json.dumps(self.texts).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        else:
            super().do_GET()

    def do_POST(self):
        """Takes the answers."""
        self.answers.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()
        self.server.answered.set()

    def log_message(self, *arguments):
        """Says nothing."""


def browse(address: str, answered: threading.Event) -> None:
    """Opens the page until it has answered, then once more for its picture."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("There is no Chromium to open the page with.")
    with tempfile.TemporaryDirectory() as profile:
        common = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        common += [f"--user-data-dir={profile}", "--window-size=800,600", "--hide-scrollbars"]
        page = subprocess.Popen(
            [*common, "--remote-debugging-port=0", f"{address}/index.html?check=1"], stderr=subprocess.DEVNULL
        )
        try:
            if not answered.wait(300):
                sys.exit("The page did not answer within 300 s.")
        finally:
            page.terminate()
            page.wait()
        picture = [*common, "--virtual-time-budget=60000", "--screenshot=page.png", f"{address}/index.html"]
        subprocess.run(picture, check=True, stderr=subprocess.DEVNULL, timeout=300)


def main(exported: Path, artifact: Path, texts: list[str]) -> None:
    answers: list = []
    handler = partial(Handler, model=exported.resolve(), texts=texts, answers=answers)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.answered = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    browse(f"http://127.0.0.1:{server.server_port}", server.answered)
    server.shutdown()
    if isinstance(answers[0], str):
        sys.exit(f"The page failed: {answers[0]}")
    found = np.array(answers[0])
    predictor = multipress.open(artifact, precision="int8")
    expected = predictor.logits(texts)
    difference = np.abs(found - expected).max()
    agreement = np.mean(found.argmax(axis=1) == expected.argmax(axis=1))
    print(f"{len(texts)} texts: {agreement:.2%} of the labels agree, logits differ by at most {difference:.2g}")
    # Two libraries add floats in another order; what lies at the border of two codes may fall to either side.
    sys.exit(int(agreement < 1 or difference > LIMIT * np.abs(expected).max()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:] or TEXTS)
