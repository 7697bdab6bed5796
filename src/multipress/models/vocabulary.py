"""A smaller vocabulary for a WordPiece tokenizer: which words must stay, and the tokenizer without the others.

A piece that occurs in no row can be taken away without a change to any row: WordPiece takes the longest piece that
fits, and takes the same ones when others are gone. Another text may hold a word that is gone; it is then split into
shorter pieces, down to single characters, which stay.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from multipress.errors import SettingError
from multipress.runtime.tokenizer import Encoding

__all__ = ["shrink_tokenizer", "words_to_keep"]

_NAMED_PAIRS = ("sep", "cls")  # of the post-processors BertProcessing and RobertaProcessing


def words_to_keep(tokenizer_json: str, encodings: Sequence[Encoding], texts: Iterable[str] = ()) -> Tensor:
    """Ids of the pieces that must stay, added tokens first, then in the order of the alphabet: (n,) int64.

    Those of the rows and of the texts, added tokens, ASCII characters, and the characters of which the pieces
    that stay are made, both at the begin of a word and inside.

    Args:
        tokenizer_json: Content of a `tokenizer.json`.
        encodings: Rows that must be encoded as before.
        texts: Further texts that must be, however long.

    Raises:
        SettingError: the tokenizer is not WordPiece.
    """
    from tokenizers import Tokenizer

    document = json.loads(tokenizer_json)
    model = document["model"]
    if model.get("type") != "WordPiece":
        raise SettingError(f"vocabulary needs a WordPiece tokenizer, but this model has {model.get('type')}.")
    vocabulary: dict[str, int] = model["vocab"]
    prefix: str = model["continuing_subword_prefix"]
    kept = {token["id"] for token in document["added_tokens"]} | {vocabulary[model["unk_token"]]}
    kept.update(*(row.ids for row in encodings))
    tokenizer = Tokenizer.from_str(tokenizer_json)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    for text in texts:
        kept.update(tokenizer.encode(text, add_special_tokens=False).ids)
    pieces = {index: piece for piece, index in vocabulary.items()}
    characters = {chr(code) for code in range(128)}
    characters.update(*(pieces[index].removeprefix(prefix) for index in kept if index in pieces))
    kept.update(vocabulary[form] for c in characters for form in (c, prefix + c) if form in vocabulary)
    # In this order the tokenizer packs smallest, see `multipress.packing.tokenizer`.
    added = sorted(token["id"] for token in document["added_tokens"])
    others = sorted(kept.difference(added), key=lambda index: pieces[index].encode())
    return torch.tensor(added + others, dtype=torch.int64)


def shrink_tokenizer(tokenizer_json: str, kept: Tensor) -> str:
    """The tokenizer with these pieces alone; the i-th of them has the id i.

    Args:
        tokenizer_json: Content of the `tokenizer.json` of a WordPiece tokenizer.
        kept: (n,), ids in the old vocabulary; as `words_to_keep` gives them.
    """
    document = json.loads(tokenizer_json)
    place = {old: new for new, old in enumerate(kept.tolist())}
    model = document["model"]
    model["vocab"] = {piece: place[old] for piece, old in model["vocab"].items() if old in place}
    for token in document["added_tokens"]:
        token["id"] = place[token["id"]]
    _renumber(document.get("post_processor"), place)
    document["padding"] = document["truncation"] = None
    return json.dumps(document, ensure_ascii=False)


def _renumber(processor: dict[str, Any] | None, place: dict[int, int]) -> None:
    """Gives the ids in a post-processor, and in those that it holds, their new numbers."""
    if processor is None:
        return
    for inner in processor.get("processors", []):
        _renumber(inner, place)
    for token in processor.get("special_tokens", {}).values():
        token["ids"] = [place[old] for old in token["ids"]]
    for name in _NAMED_PAIRS:
        if name in processor:
            processor[name][1] = place[processor[name][1]]
