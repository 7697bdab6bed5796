"""The frame of a page: one HTML document that holds its styles and its script, and asks for nothing from anywhere.

The content security policy lets only the page's own style and its one script run, by their hashes: a text
that got past the escaping would still do nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources

from multipress.report.text import escaped

__all__ = ["document"]


def document(title: str, body: str, styles: Sequence[str], scripts: Sequence[str] = ()) -> str:
    """A whole page as HTML.

    Args:
        title: Its title, as text.
        body: What is in it, as HTML.
        styles: Files of this package, in order; later ones have the last word.
        scripts: Files of this package that run as one script after the body; none: no script may run.
    """
    style, script = "".join(map(_read, styles)), "".join(map(_read, scripts))
    allowed = f"style-src '{_hash(style)}'; " + (f"script-src '{_hash(script)}'; " if script else "")
    policy = f"default-src 'none'; {allowed}img-src data:; base-uri 'none'; form-action 'none'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n<meta name="color-scheme" content="light dark">\n'
        f'<link rel="icon" href="data:,">\n<title>{escaped(title)}</title>\n<style>{style}</style>\n</head>\n'
        f"<body>\n{body}{f'<script>{script}</script>' if script else ''}\n</body>\n</html>\n"
    )


def _read(name: str) -> str:
    return resources.files("multipress.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
