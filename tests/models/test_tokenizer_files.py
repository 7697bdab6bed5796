"""Folders of Marian checkpoints as the hub has them: two SentencePiece models and a table of ids."""

import json
import subprocess
import sys
import warnings

import pytest
import sentencepiece
import torch
from transformers import MarianMTModel, MarianTokenizer

from multipress.artifact import open_artifact
from multipress.cli.main import main
from multipress.errors import ArtifactError, ModelError
from multipress.models.catalogue import MODEL_FILES
from multipress.models.pretrained import identify, load_pretrained
from multipress.runtime.tokenizer import IDS, TARGET, TextEncoder
from multipress.shrink import shipped_text
from multipress.tasks import DataSpec, load_task
from multipress.translator import Translator

ODD = [
    "",
    "  two   spaces  ",
    "ﬁne ½ Ⅳ \uff46\uff55\uff4c\uff4c",
    "naïve café — “quotes” … ",
    "日本語 テキスト",
    "👨‍👩‍👧 emoji",
    "tab\tand\nnewline",
    "\u200bzero\u200bwidth\u00a0space",
    "a </s> b <unk> <pad>",
    "▁ already",
    ">>deu<< hello",
    "1,234.56 % €",
    " a",
]


def pieces_of(texts, path, **options):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_prefix=str(path.with_suffix("")),
        vocab_size=400,
        normalization_rule_name="nmt_nfkc",
        num_threads=1,
        minloglevel=2,
        hard_vocab_limit=False,
        **options,
    )
    path.with_suffix(".model").rename(path)
    path.with_suffix(".vocab").unlink()


@pytest.fixture(scope="module")
def sides():
    """Texts in place of two languages: questions, and sentences of an encyclopedia."""
    questions = load_task(DataSpec("banking77", max_train_rows=600), None).train.texts
    return {"source": questions, "target": list(shipped_text())[:600]}


@pytest.fixture(scope="module")
def folder(sides, tmp_path_factory):
    """A checkpoint with the config of the OPUS-MT ones; some pieces of its models are not in its table."""
    folder = tmp_path_factory.mktemp("opus-mt")
    seen = {}
    for side, texts in sides.items():
        pieces_of(texts, folder / f"{side}.spm")
        splitter = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{side}.spm"))
        seen |= dict.fromkeys(piece for text in texts[:200] for piece in splitter.encode(text, out_type=str))
    table = ["</s>", "<unk>", *seen, ">>deu<<", "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({piece: index for index, piece in enumerate(table)}))
    (folder / "tokenizer_config.json").write_text('{"source_lang": "eng", "target_lang": "deu"}')
    config = {
        "architectures": ["MarianMTModel"],
        "model_type": "marian",
        "vocab_size": len(table),
        "d_model": 32,
        **{f"{side}_{key}": size for side in ("encoder", "decoder") for key, size in
           (("layers", 1), ("attention_heads", 2), ("ffn_dim", 64))},
        "activation_function": "swish",
        "bad_words_ids": [[len(table) - 1]],
        "decoder_start_token_id": len(table) - 1,
        "pad_token_id": len(table) - 1,
        "eos_token_id": 0,
        "forced_eos_token_id": 0,
        "max_position_embeddings": 128,
        "normalize_before": False,
        "num_beams": 6,
        "scale_embedding": True,
        "static_position_embeddings": True,
    }  # fmt: skip
    torch.manual_seed(0)
    MarianMTModel(MarianMTModel.config_class(**config)).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def reference(folder):
    with warnings.catch_warnings():  # it recommends sacremoses, which changes quotation marks where it is installed
        warnings.simplefilter("ignore", UserWarning)
        return MarianTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("is_target", [False, True])
def test_texts_of_both_sides_have_the_ids_of_transformers(folder, sides, reference, is_target):
    encoder = TextEncoder(identify(str(folder)).tokenizer_json, 4000, is_target=is_target)
    texts = [*ODD, *sides["source"], *sides["target"]]
    found = [row.ids for row in encoder.encode(texts)]
    wanted = reference(text_target=texts) if is_target else reference(texts)
    assert found == wanted["input_ids"]
    unknown = reference.unk_token_id
    assert any(unknown in ids for ids in found[len(ODD) :])  # pieces of the other side, and those not in the table
    assert encoder.pad_id == reference.pad_token_id
    assert encoder.vocab_size == len(reference)


def test_what_is_written_is_read_as_transformers_does(folder, sides, reference):
    encoder = TextEncoder(identify(str(folder)).tokenizer_json, 4000, is_target=True)
    for row in encoder.encode([*ODD, *sides["target"][:200]]):
        assert encoder.decode(row.ids) == reference.decode(row.ids, skip_special_tokens=True).strip()


def test_such_a_translator_is_trained_stored_and_translates(folder, sides, tmp_path, capsys):
    from multipress.huggingface import load_tokenizer

    short = [[" ".join(text.split()[:12]) for text in sides[side]] for side in ("source", "target")]
    rows = [json.dumps({"source": one, "target": other}) + "\n" for one, other in zip(*short, strict=True)]
    (tmp_path / "train.jsonl").write_text("".join(rows[:40]))
    (tmp_path / "dev.jsonl").write_text("".join(rows[40:70]))
    own = ["--train", str(tmp_path / "train.jsonl"), "--dev", str(tmp_path / "dev.jsonl"), "--target", "text"]
    how = ["--epochs", "1", "--max-length", "64", "--method", "quantization"]
    assert main(["train", str(folder), *own, *how, "-o", str(tmp_path / "out")]) == 0
    artifact = open_artifact(tmp_path / "out")
    assert json.loads(artifact.tokenizer_json()) == json.loads(identify(str(folder)).tokenizer_json)
    assert len(Translator(artifact)(["How do I top up?"])) == 1
    with pytest.raises(ArtifactError, match=r"other pieces than it reads.*multipress\.open"):
        load_tokenizer(tmp_path / "out")
    both = [str(tmp_path / "out"), "--against", str(folder)]  # what it was trained from, as it is
    on = ["--data", str(tmp_path / "dev.jsonl"), "--text", "source", "--label", "target"]
    assert main(["dissect", *both, *on, "-o", str(tmp_path / "page.html")]) == 0


def test_its_files_are_taken_from_the_hub():
    assert {"source.spm", "target.spm", "vocab.json"} <= set(MODEL_FILES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "target.spm").unlink(), "target.spm"),
        (lambda folder: (folder / "vocab.json").unlink(), "vocab.json"),
        (lambda folder: (folder / "source.spm").write_bytes(b"\x0a\xff\xff\xff\xff"), "no SentencePiece model"),
        (lambda folder: (folder / "source.spm").write_bytes(b""), "no unigram model"),
        (lambda folder: (folder / "vocab.json").write_text('{"</s>": 0, "<unk>": 2}'), "no table of ids"),
        (lambda folder: (folder / "vocab.json").write_text('["</s>", "<unk>"]'), "no table of ids"),
        (lambda folder: (folder / "vocab.json").write_text('{"</s>": 0, "<pad>": 1}'), "<pad> is not"),
        (lambda folder: pieces_of(["a b c d e f g"] * 9, folder / "source.spm", model_type="bpe"), "no unigram model"),
    ],
)
def test_what_is_damaged_is_named(folder, tmp_path, change, message):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    change(copy)
    with pytest.raises(ModelError, match=message):
        load_pretrained(str(copy), label_names=(), seed=0)


@pytest.mark.parametrize("ids", [[], {"</s>": 0}, {"<unk>": "0"}, {"<unk>": 5}, {"<unk>": False, "a": True}, None])
def test_a_damaged_table_of_ids_is_refused(folder, ids):
    document = json.loads(identify(str(folder)).tokenizer_json) | {IDS: ids}
    with pytest.raises(ArtifactError, match="not a tokenizer"):
        TextEncoder(json.dumps(document), 32)
    del document[IDS]
    assert TARGET in document
    with pytest.raises(ArtifactError, match="not a tokenizer"):
        TextEncoder(json.dumps(document), 32)


def test_ids_that_the_table_lacks_are_not_written_and_a_side_without_decoder_is_refused(folder):
    document = json.loads(identify(str(folder)).tokenizer_json)
    encoder = TextEncoder(json.dumps(document), 32, is_target=True)
    ids = encoder.encode(["The rostrum"])[0].ids
    assert encoder.decode([*ids, 10**6, -1]) == encoder.decode(ids)
    document[TARGET]["decoder"] = None
    with pytest.raises(ArtifactError, match="no decoder"):
        TextEncoder(json.dumps(document), 32, is_target=True)


def test_a_word_named_like_the_member_is_a_word(tiny_folder):
    text = (tiny_folder / "tokenizer.json").read_text()
    document = json.loads(text)
    document["model"]["vocab"][TARGET] = len(document["model"]["vocab"])
    assert TextEncoder(json.dumps(document), 32).vocab_size == TextEncoder(text, 32).vocab_size + 1


def test_without_sentencepiece_its_files_are_read_too(folder):
    """As users have it: transformers brings the description of the files, protobuf reads them."""
    script = (
        "import sys; sys.modules['sentencepiece'] = None\n"
        "import transformers.convert_slow_tokenizer as slow; slow.is_sentencepiece_available = lambda: False\n"
        "from multipress.models.pretrained import identify\n"
        "print(identify(sys.argv[1]).tokenizer_json)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json.loads(identify(str(folder)).tokenizer_json)
