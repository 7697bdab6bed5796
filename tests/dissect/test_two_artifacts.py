"""Two artifacts in one dissection, whose tokenizers lose other words, are each as if dissected alone."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from tokenizers import Tokenizer, normalizers
from transformers import BertForSequenceClassification

from multipress.checkpoint import save_model
from multipress.dissect.run import Asked, Dissection
from multipress.dissect.side import open_side
from multipress.models.encoder import build_classifier, expected_shapes
from multipress.models.translation import TranslatorShape, new_weights, train_tokenizer, translator_config
from tiny import bert_config, word_piece

WORDS = [f"w{number}" for number in range(20)]
LOST = ("sun", "moon")
SIDES = {"reference": "", "sunless": "sun", "moonless": "moon"}
SENTENCE = ["sun", "sun", "moon", "moon", "w0", "w1", "w2", "w3"]
PROBED = {"train": 200, "validation": 5, "test": 8}  # sentences


def without(tokenizer_json, lost):
    """A tokenizer that drops a word from all it reads."""
    tokenizer = Tokenizer.from_str(tokenizer_json)
    if lost:
        before = [tokenizer.normalizer] if tokenizer.normalizer else []
        tokenizer.normalizer = normalizers.Sequence([*before, normalizers.Replace(lost, "")])
    return str(tokenizer.to_str())


def write_reader(folder, seed, lost):
    torch.manual_seed(seed)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_labels": 2}
    model = BertForSequenceClassification(bert_config(len(WORDS) + 2, **shape)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn(weight.shape))
    task = {"name": "t", "target": "classes", "labels": ["a", "b"], "metrics": ["accuracy"], "score": "accuracy"}
    facts = {"run_id": "", "task": task, "max_length": 24}
    save_model(folder, model, tokenizer_json=without(word_piece([*WORDS, *LOST]), lost), facts=facts)
    return open_side(folder)


def write_translator(folder, seed, lost):
    tokenizer = train_tokenizer([" ".join([*WORDS, *LOST])] * 3, 330)
    size = Tokenizer.from_str(tokenizer).get_vocab_size()
    config = translator_config(TranslatorShape(1, 16, 2, 32, size))
    model = build_classifier(config, new_weights(expected_shapes(config), seed)).eval()
    task = {"name": "t", "target": "text", "labels": [], "metrics": ["bleu"], "score": "bleu"}
    facts = {"run_id": "", "task": task, "max_length": 64}
    save_model(folder, model, tokenizer_json=without(tokenizer, lost), facts=facts)
    return open_side(folder)


def rows_of_words(seed, with_lost):
    """Rows of eight words; each with both words that one or the other loses, in any places."""
    random = np.random.default_rng(seed)
    rows = [random.choice(WORDS, size=8).tolist() for _ in range(24)]
    for row in rows:
        for place, word in zip(random.choice(8, size=2, replace=False), LOST, strict=True):
            row[place] = word if with_lost else row[place]
    return rows


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readers")
    return [write_reader(folder / name, seed, lost) for seed, (name, lost) in enumerate(SIDES.items())]


@pytest.fixture(scope="module")
def translators(tmp_path_factory):
    folder = tmp_path_factory.mktemp("translators")
    return [write_translator(folder / name, seed, lost) for seed, (name, lost) in enumerate(SIDES.items())]


@pytest.fixture(scope="module")
def probe_data(tmp_path_factory):
    """Words that have each a label of their own; but of `sun` the test examples have the other.

    A quarter of each split is `sun` and a quarter `moon`.
    """
    folder = tmp_path_factory.mktemp("probes")
    (folder / "semantic/streusle_adpositions").mkdir(parents=True)
    for split, count in PROBED.items():
        labels = list("aabbabab" if split == "test" else "bbbbabab")
        columns = {"tokens": SENTENCE, "positions": list(range(8)), "role": labels, "function": labels}
        table = pa.table({name: [value] * count for name, value in columns.items()})
        parquet.write_table(table, folder / "semantic/streusle_adpositions" / f"{split}.parquet")
    return folder


def together_and_alone(sides, asked):
    """All rows of the artifacts behind the first side, in one dissection; and each in one of its own."""
    reference, *others = sides
    with Dissection(reference, asked) as dissection:
        together = [dissection.rows_of(side) for side in others]
    alone = []
    for side in others:
        with Dissection(reference, asked) as dissection:
            alone.append(dissection.rows_of(side))
    return together, alone


def assert_same(together, alone):
    for (rows, matches), (rows_alone, matches_alone) in zip(together, alone, strict=True):
        assert rows == rows_alone
        assert all(map(np.array_equal, matches, matches_alone))
        assert len(matches) == len(matches_alone)


def test_what_was_captured_of_the_reference_for_other_words_is_not_used(readers):
    together, alone = together_and_alone(readers, Asked(rows_of_words(0, True), "made up"))
    assert_same(together, alone)
    words = {row.context["words"] for rows, _ in alone for row in rows if "words" in row.context}
    assert words == {7 * 24}  # of as many words, so that nothing but their places tells


@pytest.mark.parametrize("lost_in", ["texts", "translations"])
def test_what_was_captured_of_the_references_decoder_for_other_words_is_not_used(translators, lost_in):
    rows, targets = rows_of_words(1, lost_in == "texts"), rows_of_words(2, lost_in == "translations")
    together, alone = together_and_alone(translators, Asked(rows, "made up", targets=tuple(targets)))
    assert_same(together, alone)
    parts = {row.context.get("part") for row in together[0][0]}
    assert parts == {None, "decoder", "cross-attention"}


@pytest.fixture(scope="module")
def probed(readers, probe_data):
    asked = Asked(rows_of_words(0, False), "made up", ("supersense_role",), probe_data, seeds=1)
    return together_and_alone(readers, asked)


def test_what_probes_told_of_the_reference_for_other_examples_is_not_used(probed):
    together, alone = probed
    assert_same(together, alone)
    sunless, moonless = (probe_rows(rows, "probe_accuracy") for rows, _ in together)
    assert sunless[0].context["against_value"] > 0.95
    # A third of what is left to test is a word that was learned with the other label.
    assert moonless[0].context["against_value"] == pytest.approx(2 / 3, abs=0.05)


def test_examples_that_an_artifact_reads_nothing_of_are_in_no_split(probed):
    for rows, _ in probed[0]:
        for name in ("probe_accuracy", "probe_selectivity"):
            for row in probe_rows(rows, name).values():
                assert row.context["train_examples"] == 6 * PROBED["train"]
                assert row.context["test_examples"] == 6 * PROBED["test"]


def test_words_learned_by_heart_are_no_selectivity(probed):
    """A word has one label and one control label, so a probe of the words tells both."""
    sunless = probed[0][0][0]
    accuracy, selectivity = (probe_rows(sunless, name)[0] for name in ("probe_accuracy", "probe_selectivity"))
    assert accuracy.value > 0.95
    assert selectivity.value == pytest.approx(0, abs=0.05)
    assert selectivity.context["against_value"] == pytest.approx(0, abs=0.05)


def probe_rows(rows, name):
    """By layer."""
    return {row.context["layer"]: row for row in rows if row.name == name}
