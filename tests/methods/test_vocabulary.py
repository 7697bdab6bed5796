"""Dropping words: which stay, that nothing changes for those, and what happens to the others."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import BertForSequenceClassification, PreTrainedTokenizerFast

from multipress.artifact import open_artifact
from multipress.checkpoint import save_model
from multipress.engines.job import Places
from multipress.engines.single import train_artifact
from multipress.errors import SettingError, SpecError
from multipress.methods import Context
from multipress.methods.vocabulary import Vocabulary
from multipress.models.pretrained import identify
from multipress.models.vocabulary import shrink_tokenizer, words_to_keep
from multipress.packing import entropy_bound_bytes
from multipress.plan import expand_chains
from multipress.recipe import Recipe
from multipress.runtime import Predictor
from multipress.runtime.tokenizer import TextEncoder
from multipress.spec import DataSpec, MethodSpec, RunSpec, StudySpec, TrainingSpec
from multipress.tasks import load_task
from tiny import bert_config, word_piece

LETTERS = "abcdefgh"
PIECES = [
    *LETTERS,
    *(f"##{c}" for c in LETTERS),
    "abc",
    "##def",
    "bad",
    "head",
    "##ed",
    "feed",
    "cab",
    "é",
    "##é",
    "字",
]
TOKENIZER = word_piece(PIECES)
FACTS = {
    "run_id": "0" * 12,
    "task": {"name": "t", "target": "classes", "labels": ["x", "y"], "metrics": ["accuracy"], "score": "accuracy"},
    "max_length": 16,
}
texts = st.lists(st.text(alphabet=LETTERS + "é字 ,", max_size=20), min_size=1, max_size=5)


def kept_after(rows, general=()):
    encodings = TextEncoder(TOKENIZER, 64).encode(rows)
    return words_to_keep(TOKENIZER, encodings, general)


def strings(tokenizer_json, rows, pairs=None):
    return TextEncoder(tokenizer_json, 64).tokens(rows, pairs)


@given(rows=texts, others=texts, general=texts)
def test_rows_are_read_as_before_and_no_word_of_known_characters_becomes_unknown(rows, others, general):
    small = shrink_tokenizer(TOKENIZER, kept_after(rows, general))
    assert strings(small, rows) == strings(TOKENIZER, rows)
    assert strings(small, general) == strings(TOKENIZER, general)
    plain = [text.replace("é", "a").replace("字", "b") for text in others]
    for tokens, before in zip(strings(small, plain), strings(TOKENIZER, plain), strict=True):
        assert tokens.count("[UNK]") == before.count("[UNK]")
        assert "".join(tokens).replace("##", "") == "".join(before).replace("##", "")


def test_the_small_tokenizer_is_one_for_transformers_too(tmp_path):
    rows, pairs = ["bad cab", "feed abcdef"], ["head", "a b c"]
    kept = kept_after([*rows, *pairs])
    small = shrink_tokenizer(TOKENIZER, kept)
    (tmp_path / "tokenizer.json").write_text(small)
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    ours = TextEncoder(small, 64).encode(rows, pairs)
    assert theirs(rows, pairs)["input_ids"] == [row.ids for row in ours]
    place = {old: new for new, old in enumerate(kept.tolist())}
    before = TextEncoder(TOKENIZER, 64).encode(rows, pairs)
    assert [[place[index] for index in row.ids] for row in before] == [row.ids for row in ours]
    assert Tokenizer.from_str(small).get_vocab_size() == len(kept) < Tokenizer.from_str(TOKENIZER).get_vocab_size()


@pytest.mark.parametrize("processor", ["BertProcessing", "RobertaProcessing", "Sequence"])
def test_ids_in_every_kind_of_post_processor_follow(processor):
    document = json.loads(TOKENIZER)
    named = {
        "type": processor,
        "sep": ["[SEP]", 3],
        "cls": ["[CLS]", 2],
        "trim_offsets": True,
        "add_prefix_space": False,
    }
    document["post_processor"] = (
        {"type": "Sequence", "processors": [document["post_processor"]]} if processor == "Sequence" else named
    )
    # The special tokens come last here, so that their ids change.
    size = len(document["model"]["vocab"])
    moved = {index: (index - 5) % size for index in range(size)}
    document["model"]["vocab"] = {piece: moved[index] for piece, index in document["model"]["vocab"].items()}
    for token in document["added_tokens"]:
        token["id"] = moved[token["id"]]
    text = json.dumps(document)
    for index in sorted(moved):
        text = text.replace(f'"ids": [{index}]', f'"ids": [ {moved[index]}]')
    text = text.replace('["[SEP]", 3]', f'["[SEP]", {moved[3]}]').replace('["[CLS]", 2]', f'["[CLS]", {moved[2]}]')
    rows = ["bad cab"]
    encodings = TextEncoder(text, 64).encode(rows)
    small = shrink_tokenizer(text, words_to_keep(text, encodings))
    assert strings(small, rows) == strings(text, rows) == [["[CLS]", "bad", "cab", "[SEP]"]]


def test_what_stands_behind_the_cut_of_a_text_is_kept_too():
    rows = ["bad bad bad bad feed"]
    cut = TextEncoder(TOKENIZER, 5).encode(rows)
    pieces = json.loads(TOKENIZER)["model"]["vocab"]
    assert pieces["feed"] not in words_to_keep(TOKENIZER, cut).tolist()
    assert pieces["feed"] in words_to_keep(TOKENIZER, cut, rows).tolist()


def tiny(**changes):
    torch.manual_seed(0)
    return BertForSequenceClassification(bert_config(len(PIECES), num_labels=2, **changes)).eval()


def test_logits_of_rows_with_known_words_stay_and_other_rows_get_an_answer(tmp_path):
    rows = ["bad cab", "feed", "abcdef"]
    whole = save_model(tmp_path / "whole", tiny(), tokenizer_json=TOKENIZER, facts=FACTS)
    model, method = tiny(), Vocabulary(general=False)
    method.convert(method.prepare(model, Context(words=lambda general: kept_after(rows))))
    small = save_model(tmp_path / "small", model, tokenizer_json=TOKENIZER, facts=FACTS)
    np.testing.assert_allclose(Predictor(small.folder).logits(rows), Predictor(whole.folder).logits(rows), atol=1e-6)
    assert np.isfinite(Predictor(small.folder).logits(["head 字 é", "", "head of the unknown"])).all()
    names = "bert.embeddings.word_embeddings.weight"
    assert small.manifest["tensors"][names]["shape"][0] == small.config["vocab_size"] == len(kept_after(rows))
    assert small.package_bytes < whole.package_bytes


def test_what_cannot_be_dropped_is_refused():
    with pytest.raises(SettingError, match="needs a tokenizer"):
        Vocabulary().prepare(tiny(), Context())
    with pytest.raises(SettingError, match="nothing to drop"):
        Vocabulary().prepare(tiny(), Context(words=lambda general: torch.arange(len(PIECES) + 5)))
    document = json.loads(TOKENIZER)
    document["model"] = {"type": "BPE", "vocab": {}, "merges": []}
    with pytest.raises(SettingError, match="WordPiece tokenizer, but this model has BPE"):
        words_to_keep(json.dumps(document), [])
    tied = tiny()
    tied.bert.pooler.dense.weight = tied.get_input_embeddings().weight
    with pytest.raises(SettingError, match="output layer"):
        Vocabulary().prepare(tied, Context(words=lambda general: kept_after(["bad"])))
    grid = StudySpec("s", ("m",), (DataSpec("t"),), subsets=((("vocabulary",), ("quantization",)),))
    with pytest.raises(SpecError, match="Drop words in the last stage"):
        expand_chains(grid)


def test_a_rate_is_that_of_the_rows_that_are_stored():
    """The words that go are nearly all 0: cheap, but not stored, so that they do not make room for the others."""
    torch.manual_seed(0)
    model = BertForSequenceClassification(bert_config(600, hidden_size=32, intermediate_size=64))
    words = model.bert.embeddings.word_embeddings.weight
    kept = torch.cat([torch.arange(len(words) // 4), torch.tensor([len(words) - 1])])
    with torch.no_grad():
        words[len(words) // 4 : -1] *= 1e-3
    specs = (MethodSpec("vocabulary", {"general": False}), MethodSpec("quantization", {"rate": 1.0, "steps": "tensor"}))
    recipe = Recipe.from_specs(specs)
    trained = recipe.prepare(model, Context(words=lambda general: kept))
    recipe.on_step_end(trained, 1.0)
    stored = recipe.convert(trained)
    assert len(stored.bert.embeddings.word_embeddings.weight) == len(kept)
    codes = [module.weight_codes for module in stored.modules() if hasattr(module, "weight_codes")]
    bits = sum(8 * entropy_bound_bytes(one.numpy()) for one in codes)
    assert 0.97 < bits / sum(one.numel() for one in codes) < 1.005


@pytest.mark.parametrize("rate_weight", [0.0, 0.1])
def test_by_the_command_a_small_model_comes_out_and_rows_with_dropped_words_have_a_score(tmp_path, rate_weight):
    data = DataSpec(task="banking77", max_train_rows=40, max_eval_rows=60)
    training = TrainingSpec(epochs=1, learning_rate=1e-3, batch_size=8, max_length=24)
    quantization = {"rate_weight": rate_weight, "steps": "tensor"} if rate_weight else {}
    methods = (MethodSpec("quantization", quantization), MethodSpec("vocabulary", {"general": False}))
    spec = RunSpec("train", "minilm-l3", data, training, methods)
    trained = train_artifact(spec, tmp_path / "out", places=Places(None, None))
    (row,) = [row for row in trained.measurements if row.name == "score_dropped_words"]
    assert 0 < row.context["rows"] <= row.context["of"] == 60
    artifact = open_artifact(tmp_path / "out")
    # A word is lost where the old tokenizer has it whole and the new one does not.
    dev = load_task(data).dev
    whole = identify("minilm-l3", None).tokenizer_json
    before, after = (TextEncoder(text, 24) for text in (whole, artifact.tokenizer_json()))
    lost = [before.tokens([t], None)[0] != after.tokens([t], None)[0] for t in dev.texts]
    found = [one.label for one in Predictor(tmp_path / "out")(dev.texts)]
    right = [label == artifact.facts["task"]["labels"][n] for label, n in zip(found, dev.labels, strict=True)]
    assert row.context["rows"] == sum(lost)
    assert row.value == pytest.approx(np.mean([r for r, is_lost in zip(right, lost, strict=True) if is_lost]))
    assert (
        f"on the {sum(lost)} rows with words that were dropped | {row.value:.4f} |"
        in (tmp_path / "out" / "README.md").read_text()
    )
    again = train_artifact(spec, tmp_path / "out", places=Places(None, None))
    assert [one.to_json() for one in again.measurements] == [one.to_json() for one in trained.measurements]
    words = artifact.manifest["tensors"]["bert.embeddings.word_embeddings.weight"]
    assert 300 < words["shape"][0] < 2000
    assert artifact.facts["task"]["name"] == "banking77"
    assert len(Predictor(tmp_path / "out")(["My card has not arrived", "xylophones and zithers 字"])) == 2
