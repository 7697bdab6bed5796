"""Reading models: strict, pickle-free, and named in the error where something does not fit."""

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from transformers import BertConfig, BertForPreTraining, BertForSequenceClassification, BertModel

from multipress.errors import ModelError, SettingError
from multipress.models import load_pretrained, read_first_token_only
from multipress.models.catalogue import BERT_SIZES, EMBEDDED_BLOCKS, SHRUNK_NAMES, list_models
from multipress.models.pretrained import identify
from multipress.models.translation import NAMED

SHAPE = {
    "vocab_size": 20,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 16,
}
LABELS = ("bad", "good", "none")


def write(folder, model, **config):
    """Write a model as transformers would, with a tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{i}" for i in range(12))]
    Tokenizer(WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]")).save(
        str(folder / "tokenizer.json")
    )
    if config:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    return write(tmp_path / "model", BertModel(BertConfig(**SHAPE)))


def change(folder, function):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    function(tensors)
    save_file(tensors, path)


def load(folder, labels=LABELS, seed=0):
    return load_pretrained(str(folder), label_names=labels, seed=seed)


def test_a_plain_encoder_is_read_exactly_and_gets_a_new_head(folder):
    loaded = load(folder)
    stored = load_file(folder / "model.safetensors")
    state = loaded.model.state_dict()
    assert loaded.new_head
    assert all(torch.equal(state[f"bert.{name}"], tensor) for name, tensor in stored.items())
    assert state["classifier.weight"].shape == (3, 32)
    assert loaded.model.config.id2label == dict(enumerate(LABELS))


def test_the_new_head_depends_on_the_seed_alone(folder):
    torch.manual_seed(123)
    first = load(folder, seed=5).model.classifier.weight
    torch.manual_seed(321)
    assert torch.equal(load(folder, seed=5).model.classifier.weight, first)
    assert not torch.equal(load(folder, seed=6).model.classifier.weight, first)


def test_a_number_gets_one_output(folder):
    assert load(folder, labels=()).model.classifier.out_features == 1


def test_transformers_reads_the_same_logits_from_the_same_folder(tmp_path):
    torch.manual_seed(0)
    config = BertConfig(**SHAPE, num_labels=3, id2label=dict(enumerate(LABELS)))
    folder = write(tmp_path / "classifier", BertForSequenceClassification(config))
    reference = BertForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    ours = load(folder)
    assert not ours.new_head
    ids = torch.tensor([[2, 5, 6, 7, 3], [2, 9, 3, 0, 0]])
    mask = (ids != 0).long()
    with torch.no_grad():
        expected = reference(input_ids=ids, attention_mask=mask).logits
        torch.testing.assert_close(ours.model.eval()(input_ids=ids, attention_mask=mask).logits, expected)


@pytest.mark.parametrize("labels", [("good", "bad", "none"), ("bad", "good"), ("a", "b", "c")])
def test_a_head_with_other_labels_or_another_order_is_never_kept(tmp_path, labels):
    config = BertConfig(**SHAPE, num_labels=3, id2label=dict(enumerate(LABELS)))
    folder = write(tmp_path / "classifier", BertForSequenceClassification(config))
    loaded = load(folder, labels=labels)
    assert loaded.new_head
    assert "bad, good, none" in loaded.note


def test_the_first_token_shortcut_changes_neither_logits_nor_gradients(folder):
    ids = torch.tensor([[2, 5, 6, 7, 3], [2, 9, 3, 0, 0]])
    mask = (ids != 0).long()
    models = [load(folder).model.eval(), read_first_token_only(load(folder).model.eval())]
    for model in models:
        model(input_ids=ids, attention_mask=mask).logits.square().sum().backward()
    for (name, one), (_, other) in zip(models[0].named_parameters(), models[1].named_parameters(), strict=True):
        expected = torch.zeros_like(one) if one.grad is None else one.grad
        torch.testing.assert_close(other.grad, expected, atol=1e-5, rtol=1e-4, msg=name)


def test_old_names_and_heads_of_pretraining_are_understood(tmp_path):
    torch.manual_seed(0)
    folder = write(tmp_path / "old", BertForPreTraining(BertConfig(**SHAPE)))
    stored = load_file(folder / "model.safetensors")

    def rename(tensors):
        for name in list(tensors):
            new = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            tensors[new] = tensors.pop(name)

    change(folder, rename)
    state = load(folder).model.state_dict()
    assert torch.equal(state["bert.embeddings.LayerNorm.weight"], stored["bert.embeddings.LayerNorm.weight"])


def test_half_precision_files_are_read_as_float32(folder):
    change(folder, lambda tensors: tensors.update({name: value.half() for name, value in tensors.items()}))
    assert {p.dtype for p in load(folder).model.parameters()} == {torch.float32}


def test_a_file_with_fewer_layers_than_the_config_says_is_refused(folder):
    change(folder, lambda t: [t.pop(name) for name in list(t) if "layer.1." in name or "layer.2." in name])
    with pytest.raises(ModelError, match=r"missing: bert\.encoder\.layer\.1\.attention"):
        load(folder)


def test_every_single_missing_tensor_is_named(folder):
    tensors = load_file(folder / "model.safetensors")
    for name in tensors:
        save_file({k: v for k, v in tensors.items() if k != name}, folder / "model.safetensors")
        with pytest.raises(ModelError, match=name.replace(".", r"\.")):
            load(folder)


def test_a_model_without_a_pooler_is_refused(folder):
    change(folder, lambda tensors: [tensors.pop(f"pooler.dense.{part}") for part in ("weight", "bias")])
    with pytest.raises(ModelError, match=r"bert\.pooler\.dense\.bias"):
        load(folder)


def test_a_head_of_one_output_is_kept_for_a_number(tmp_path):
    folder = write(tmp_path / "regressor", BertForSequenceClassification(BertConfig(**SHAPE, num_labels=1)))
    loaded = load(folder, labels=())
    assert not loaded.new_head
    stored = load_file(folder / "model.safetensors")["classifier.weight"]
    assert torch.equal(loaded.model.classifier.weight, stored)
    assert load(folder, labels=("a", "b")).new_head


def test_more_tokens_than_positions_are_refused(folder):
    identify(str(folder)).check_length(16)
    with pytest.raises(SettingError, match="at most 16"):
        identify(str(folder)).check_length(17)


def test_an_unexpected_tensor_is_named(folder):
    change(folder, lambda tensors: tensors.update({"encoder.layer.7.extra": torch.zeros(2)}))
    with pytest.raises(ModelError, match=r"unexpected: encoder\.layer\.7\.extra"):
        load(folder)


def test_every_transposed_or_cast_tensor_is_named(folder):
    original = load_file(folder / "model.safetensors")
    for name, tensor in original.items():
        wrong = tensor.t().contiguous() if tensor.ndim == 2 and len(set(tensor.shape)) == 2 else tensor.to(torch.int32)
        save_file({**original, name: wrong}, folder / "model.safetensors")
        with pytest.raises(ModelError, match=rf"mismatched: {name}".replace(".", r"\.")):
            load(folder)


def test_a_value_that_is_not_a_number_is_refused(folder):
    change(folder, lambda tensors: tensors["embeddings.word_embeddings.weight"][3].fill_(float("nan")))
    with pytest.raises(ModelError, match="NaN"):
        load(folder)


def test_two_names_for_one_weight_are_refused(folder):
    change(
        folder,
        lambda tensors: tensors.update({"bert.pooler.dense.bias": tensors["pooler.dense.bias"].clone()}),
    )
    with pytest.raises(ModelError, match="two tensors"):
        load(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.ckpt"])
def test_a_folder_with_only_a_pickle_is_refused_and_nothing_of_it_runs(folder, name, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ModelError, match=name.replace(".", r"\.")):
        load(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [pickle.dumps({"a": 1}), b"PK\x03\x04rest"])
def test_a_pickle_named_safetensors_is_refused_by_its_content(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="pickle or zip"):
        load(folder)


def test_every_truncation_of_the_weights_is_refused(folder):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    for size in [0, 4, 8, 100, len(data) // 2, len(data) - 1]:
        path.write_bytes(data[:size])
        with pytest.raises(ModelError):
            load(folder)


@pytest.mark.parametrize(
    ("change_of_config", "message"),
    [
        ({"model_type": "gpt2"}, "gpt2"),
        ({"auto_map": {"AutoModel": "evil.Model"}}, "code of its own"),
        ({"is_decoder": True}, "decoder"),
        ({"hidden_size": 10**9}, "hidden_size"),
        ({"num_hidden_layers": -1}, "num_hidden_layers"),
        ({"num_hidden_layers": "3"}, "num_hidden_layers"),
        ({"hidden_size": 48}, "mismatched"),
        ({"vocab_size": 4}, "mismatched"),
        ({"hidden_act": "__import__('os')"}, "hidden_act"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"num_attention_heads": 3}, "multiple"),
        ({"layer_norm_eps": "small"}, "layer_norm_eps"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(folder, change_of_config, message):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change_of_config))
    with pytest.raises(ModelError, match=message):
        load(folder)


def test_a_config_that_is_no_json_or_missing_is_refused(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not JSON"):
        load(folder)
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(ModelError, match="not JSON"):
        load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        load(folder)


def test_a_tokenizer_that_is_missing_damaged_or_too_large_for_the_model_is_refused(folder):
    words = {f"w{i}": i for i in range(50)} | {"[UNK]": 50}
    Tokenizer(WordPiece(words, unk_token="[UNK]")).save(str(folder / "tokenizer.json"))
    with pytest.raises(ModelError, match="51 words"):
        load(folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="not a tokenizer"):
        load(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="no tokenizer"):
        load(folder)


def test_a_vocabulary_file_alone_makes_a_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\nworld\n")
    tokenizer = Tokenizer.from_str(load(folder).tokenizer_json)
    assert tokenizer.encode("hello World").tokens == ["[CLS]", "hello", "world", "[SEP]"]


def test_a_link_out_of_the_folder_is_refused(folder, tmp_path):
    (folder / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (folder / "model.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(ModelError, match="leads out"):
        load(folder)


def test_weights_of_ninety_gigabytes_by_config_allocate_nothing(folder):
    path = folder / "config.json"
    large = {
        "hidden_size": 8192,
        "intermediate_size": 65536,
        "num_hidden_layers": 96,
        "vocab_size": 1_000_000,
    }
    path.write_text(json.dumps(json.loads(path.read_text()) | large))
    with pytest.raises(ModelError, match="mismatched"):
        load(folder)


@pytest.mark.parametrize("name", ["no-such-model", "no_such/folder/at/all"])
def test_a_model_that_is_not_there_says_what_was_looked_for(name):
    with pytest.raises(ModelError, match="minilm-l6"):
        load_pretrained(name, label_names=LABELS, seed=0)


def test_a_hub_id_without_a_network_says_how_to_go_on():
    with pytest.raises(ModelError, match="--models-dir"):
        load_pretrained("nobody/nothing", label_names=LABELS, seed=0)


def test_models_dir_is_looked_at_before_the_hub(folder):
    assert load_pretrained("model", label_names=LABELS, seed=0, models_dir=folder.parent).new_head


@pytest.mark.parametrize("name", EMBEDDED_BLOCKS)
def test_the_embedded_encoder_is_cut_to_the_blocks_chosen(name):
    whole = load_pretrained("minilm-l6", label_names=LABELS, seed=0).model
    cut = load_pretrained(name, label_names=LABELS, seed=0).model
    blocks = EMBEDDED_BLOCKS[name]
    assert cut.config.num_hidden_layers == len(blocks)
    for new, old in enumerate(blocks):
        ours, theirs = cut.bert.encoder.layer[new].state_dict(), whole.bert.encoder.layer[old].state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert {row["name"] for row in list_models()} == {*EMBEDDED_BLOCKS, *SHRUNK_NAMES, *BERT_SIZES, *NAMED}


def test_identity_follows_weights_config_and_blocks(folder):
    first = identify(str(folder)).sha256
    assert identify(str(folder)).sha256 == first
    change(folder, lambda tensors: tensors["pooler.dense.bias"].add_(1))
    assert identify(str(folder)).sha256 != first
    assert len({identify(name).sha256 for name in EMBEDDED_BLOCKS}) == len(EMBEDDED_BLOCKS)


@pytest.mark.parametrize("where", ["bert-tiny", "google/bert_uncased_L-2_H-128_A-2"])
def test_the_papers_sizes_are_found_by_their_names_and_by_their_hub_ids(tmp_path, where):
    shape = {"num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 512}
    write(tmp_path / where, BertModel(BertConfig(**SHAPE | shape)))
    loaded = load_pretrained("bert-tiny", label_names=LABELS, seed=0, models_dir=tmp_path)
    assert loaded.model.config.num_hidden_layers == 2


def test_another_size_in_the_folder_of_a_size_is_refused(tmp_path):
    write(tmp_path / "bert-tiny", BertModel(BertConfig(**SHAPE)))
    with pytest.raises(ModelError, match=r"bert-tiny has 2 layers and hidden 128, but .* holds a model of 3 layers"):
        identify("bert-tiny", tmp_path)
    identify(str(tmp_path / "bert-tiny"))  # by its path it is whatever it is


def test_a_model_of_several_labels_a_text_is_refused(tmp_path):
    write(tmp_path / "toxic", BertModel(BertConfig(**SHAPE)))
    change = json.loads((tmp_path / "toxic" / "config.json").read_text())
    for values, message in (
        ({"problem_type": "multi_label_classification"}, "several labels a text"),
        ({"model_type": None}, "has no model_type. Write the one it is of into it: bert"),
    ):
        (tmp_path / "toxic" / "config.json").write_text(json.dumps(change | values))
        with pytest.raises(ModelError, match=message):
            identify(str(tmp_path / "toxic"))


def test_a_hub_model_that_is_only_a_pickle_names_the_command_that_converts_it(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, allow_patterns, local_files_only: tmp_path)
    with pytest.raises(ModelError, match="multipress convert google/bert_uncased_L-2_H-128_A-2 -o"):
        identify("bert-tiny")


def test_the_prototypes_of_other_widths_are_read(models_dir):
    for folder in sorted(models_dir.glob("minilm-derived-*")):
        loaded = load_pretrained(folder.name, label_names=LABELS, seed=0, models_dir=models_dir)
        assert (
            sum(p.numel() for p in loaded.model.bert.parameters())
            == {
                "minilm-derived-L3-H192": 7_330_944,
                "minilm-derived-L2-H128": 4_385_920,
                "minilm-derived-L2-H64": 2_090_560,
            }[folder.name]
        )
