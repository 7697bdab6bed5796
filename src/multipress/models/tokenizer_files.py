"""The tokenizer of a model's folder, as the content of one `tokenizer.json`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedConfig

from multipress.artifact import MAX_TOKENIZER_BYTES
from multipress.errors import ModelError
from multipress.runtime.tokenizer import IDS, PADDING, TARGET, UNKNOWN, table_of_ids

__all__ = ["inside", "read_tokenizer"]

_SPACE = "▁"  # how SentencePiece writes a space
_LANGUAGE = re.compile(r">>\S+<<")  # begins a text where a translator writes several languages


def inside(folder: Path, name: str) -> Path:
    """The path of a file that must not lead out of the folder; the hub's cache links to its own `blobs`."""
    path = folder / name
    if path.is_symlink():
        target = path.resolve()
        in_hub_cache = target.parent.name == "blobs" and target.parent.parent in folder.resolve().parents
        if not in_hub_cache and not target.is_relative_to(folder.resolve()):
            raise ModelError(f"{path} is a link that leads out of its folder. Put the file itself there.")
    return path


def read_tokenizer(folder: Path, config: PreTrainedConfig, name: str) -> str:
    """What a model reads and writes its tokens with, without truncation and padding.

    Args:
        folder: The model.
        config: Of the model.
        name: Of the model, for messages.

    Returns:
        The content of a `tokenizer.json`; of a translator with two SentencePiece models, which go before a
        `tokenizer.json` beside them, that of its source, with the target's as a further member, see `TextEncoder`.

    Raises:
        ModelError: there is none that is read, it is damaged, too large, or knows more words than the model.
    """
    if config.model_type == "marian" and inside(folder, "source.spm").is_file():
        text = _of_two_sides(folder, config, name)
    else:
        tokenizer = _of_one(folder, config)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        if tokenizer.get_vocab_size() > config.vocab_size:
            knows = f"its tokenizer knows {tokenizer.get_vocab_size()} words, but the model has {config.vocab_size}"
            raise ModelError(f"{name}: {knows}.")
        text = tokenizer.to_str()
    if len(text.encode()) > MAX_TOKENIZER_BYTES:
        raise ModelError(f"{name}: its tokenizer has more than {MAX_TOKENIZER_BYTES} bytes.")
    return text


def _of_one(folder: Path, config: PreTrainedConfig) -> Tokenizer:
    path = inside(folder, "tokenizer.json")
    if path.is_file():
        data = _bounded(path)
        try:
            return Tokenizer.from_str(data.decode())
        except Exception as error:  # noqa: BLE001 - the tokenizers library raises plain Exception
            raise ModelError(f"{path} is not a tokenizer: {error}.") from None
    if inside(folder, "vocab.txt").is_file() and config.model_type in ("bert", "distilbert", "electra"):
        from transformers import BertTokenizerFast

        return BertTokenizerFast.from_pretrained(str(folder), local_files_only=True).backend_tokenizer
    if inside(folder, "vocab.json").is_file() and inside(folder, "merges.txt").is_file():
        from transformers import RobertaTokenizerFast

        return RobertaTokenizerFast.from_pretrained(str(folder), local_files_only=True).backend_tokenizer
    raise ModelError(
        f"{folder} has no tokenizer that is read: no tokenizer.json, no vocab.txt of word pieces, no vocab.json and "
        "merges.txt, no source.spm and target.spm of a translator. Where transformers reads it, "
        "AutoTokenizer.from_pretrained(...).save_pretrained(...) writes tokenizer.json."
    )


def _of_two_sides(folder: Path, config: PreTrainedConfig, name: str) -> str:
    """Marian's: a SentencePiece model for each language, and one table of ids for the pieces of both."""
    path = inside(folder, "vocab.json")
    if not path.is_file():
        raise ModelError(f"{name}: beside its source.spm there is no vocab.json, which says the ids of the pieces.")
    no_table = f"{path} is no table of ids from 0 to at most {config.vocab_size - 1} with {UNKNOWN} in it."
    try:
        ids = table_of_ids(json.loads(_bounded(path)))
    except (ValueError, AttributeError, TypeError):
        raise ModelError(no_table) from None
    end = config.eos_token_id
    if ids.get(PADDING) != config.pad_token_id:
        raise ModelError(f"{path}: {PADDING} is not {config.pad_token_id}, as config.json says (pad_token_id).")
    if UNKNOWN not in ids or len(ids) > config.vocab_size:
        raise ModelError(no_table)
    ends = [piece for piece, index in ids.items() if index == end]
    if not ends:
        raise ModelError(f"{path} has no piece for {end}, with which a text ends (eos_token_id in config.json).")
    source, target = (_of_pieces(inside(folder, f"{side}.spm"), ids, ends[0]) for side in ("source", "target"))
    return json.dumps({**source, TARGET: target, IDS: ids}, ensure_ascii=False)


def _of_pieces(path: Path, ids: dict[str, int], end: str) -> dict[str, Any]:
    """One side as the document of a `tokenizer.json`; its ids are those of SentencePiece, not the table's.

    A language code (`>>deu<<`) that the table has is one token wherever it stands; transformers takes it for one at the
    beginning of a text alone, and there a code that the table lacks for one unknown token.
    """
    model = _sentencepiece_model(path)
    tokenizer = Tokenizer(
        models.Unigram([(piece.piece, piece.score) for piece in model.pieces], unk_id=model.trainer_spec.unk_id)
    )
    special = [piece for piece in (end, UNKNOWN, PADDING) if piece in ids]
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False) for piece in special])
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in ids if _LANGUAGE.fullmatch(piece)])
    steps = [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if model.normalizer_spec.precompiled_charsmap:
        steps.insert(0, normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap))
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement=_SPACE, prepend_scheme="always")
    ends = [(end, tokenizer.token_to_id(end))]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=ends)
    return dict(json.loads(tokenizer.to_str()))


def _sentencepiece_model(path: Path) -> Any:
    """A SentencePiece model file, parsed.

    Raises:
        ModelError: it is missing or damaged, or splits texts in another way than a unigram model.
    """
    from transformers.convert_slow_tokenizer import import_protobuf

    if not path.is_file():
        raise ModelError(f"There is no {path}: a translator has a SentencePiece model for each language.")
    model, data = import_protobuf().ModelProto(), _bounded(path)
    try:
        model.ParseFromString(data)
    except Exception as error:  # noqa: BLE001 - protobuf's own class moves between its versions
        raise ModelError(f"{path} is no SentencePiece model: {error}.") from None
    if not model.pieces or model.trainer_spec.model_type != 1:
        raise ModelError(f"{path} is no unigram model of SentencePiece; only such are read.")
    how = model.normalizer_spec
    usual = how.add_dummy_prefix and how.remove_extra_whitespaces and how.escape_whitespaces
    if not usual or model.trainer_spec.byte_fallback or model.trainer_spec.treat_whitespace_as_suffix:
        raise ModelError(f"{path} treats blanks or unknown characters in another way than Marian's models do.")
    return model


def _bounded(path: Path) -> bytes:
    if path.stat().st_size > MAX_TOKENIZER_BYTES:
        raise ModelError(f"{path} has {path.stat().st_size} bytes; at most {MAX_TOKENIZER_BYTES} are read.")
    return path.read_bytes()
