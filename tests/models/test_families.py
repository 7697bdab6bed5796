"""Every family of encoders: read as transformers reads it, trained under every method, stored, and predicted with."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from multipress.artifact import max_tokens
from multipress.checkpoint import load_model, save_model
from multipress.cli.main import main
from multipress.engines.job import Places
from multipress.engines.single import train_artifact
from multipress.errors import ModelError, SettingError
from multipress.measure import measure_size, measure_speed
from multipress.methods import Context, list_methods
from multipress.methods.distillation import Distillation
from multipress.models import load_pretrained, read_first_token_only
from multipress.models.catalogue import Shape, find_model
from multipress.models.encoder import drop_positions, encoder_linears, model_inputs
from multipress.models.families import FAMILIES, config_values, family_of, read_config
from multipress.models.pretrained import identify
from multipress.models.states import hidden_layers, text_vectors, write_text_states
from multipress.recipe import Recipe
from multipress.runtime import Predictor
from multipress.runtime.tokenizer import TextEncoder
from multipress.shrink import shrink_encoder
from multipress.spec import DataSpec, MethodSpec, RunSpec, TrainingSpec
from multipress.train import Rows, collate, train
from tiny import SPECIAL, family_config, word_piece

WORDS = ["the", "a", "is", "not", "my", "card", "it", "to", "of", "and"]
TEXTS = ["my card is not the card", "it", "the card of the card and the card and it is a card to it and not to my card"]
LABELS = ("bad", "good")
ALL = sorted(FAMILIES)


def write(folder, model):
    """What a hub would hold of a model, with our small vocabulary; its weights are not those of a new model."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(word_piece(WORDS))
    return str(folder)


def make(name, folder, of=AutoModel, **changes):
    torch.manual_seed(0)
    return write(folder, of.from_config(family_config(name, len(WORDS), **changes)))


def encoded(max_length=40):
    encoder = TextEncoder(word_piece(WORDS), max_length)
    return Rows(encoder.encode(TEXTS), None, encoder.pad_id)


def plain(rows):
    """The rows as transformers' own models take them: padded, with a plain mask."""
    batch = collate(rows, np.arange(len(rows.encodings)))
    return {"input_ids": batch["input_ids"], "attention_mask": (batch["attention_mask"][:, 0, 0] == 0).long()}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("first_token", [False, True])
def test_a_fine_tuned_classifier_gives_the_logits_that_transformers_gives(name, first_token, tmp_path):
    labels = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    folder = make(name, tmp_path / "model", AutoModelForSequenceClassification, **labels)
    theirs = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="sdpa").eval()
    loaded = load_pretrained(folder, label_names=LABELS, seed=1)
    assert not loaded.new_head
    ours = read_first_token_only(loaded.model.eval()) if first_token else loaded.model.eval()
    rows = encoded()
    batch = collate(rows, np.arange(3))
    with torch.no_grad():
        expected = theirs(**plain(rows)).logits
        found = ours(**model_inputs(ours, batch)).logits
        alone = [ours(**model_inputs(ours, collate(rows, np.array([row])))).logits[0] for row in range(3)]
    assert expected.std() > 0.01
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(torch.stack(alone), expected, atol=1e-5)  # what is padded changes nothing


@pytest.mark.parametrize("name", ALL)
def test_positions_that_no_row_reaches_are_dropped_and_no_logit_changes(name, tmp_path):
    labels = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    folder = make(name, tmp_path / "model", AutoModelForSequenceClassification, **labels)
    rows = encoded()
    longest = max(len(row.ids) for row in rows.encodings)  # a row that fills all positions left
    whole, short = (load_pretrained(folder, label_names=LABELS, seed=1).model.eval() for _ in range(2))
    drop_positions(short, longest)
    assert max_tokens(short.config.to_dict()) == (longest if name != "modernbert" else 40)
    gone = sum(p.numel() for p in whole.parameters()) - sum(p.numel() for p in short.parameters())
    assert gone == getattr(short, "num_dropped", 0)
    assert (gone > 0) == (name != "modernbert")
    batch = collate(rows, np.arange(3))
    with torch.no_grad():
        assert torch.equal(short(**model_inputs(short, batch)).logits, whole(**model_inputs(whole, batch)).logits)
    task = {"name": "t", "target": "classes", "labels": list(LABELS), "metrics": ["accuracy"], "score": "accuracy"}
    facts = {"run_id": "0" * 12, "max_length": longest, "task": task}
    artifacts = [
        save_model(tmp_path / place, model, tokenizer_json=word_piece(WORDS), facts=facts)
        for place, model in (("whole", whole), ("short", short))
    ]
    # A text of more tokens is cut, by both alike.
    found = [Predictor(artifact.folder).logits([*TEXTS, "the card " * 30]) for artifact in artifacts]
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)
    sizes = [{row.name: row.value for row in measure_size(artifact)} for artifact in artifacts]
    assert sizes[0]["dense_bytes"] == sizes[1]["dense_bytes"]
    assert sizes[0]["num_parameters"] - sizes[1]["num_parameters"] == gone
    again = getattr(drop_positions(short, longest), "num_dropped", 0)
    assert again == gone


@pytest.mark.parametrize(
    ("name", "of"),
    [
        *((name, of) for name in ALL for of in (AutoModel, AutoModelForMaskedLM)),
        ("bert", AutoModelForPreTraining),
        ("electra", AutoModelForPreTraining),
    ],
)
def test_a_pre_trained_file_gives_its_encoder_and_a_new_head(name, of, tmp_path):
    folder = make(name, tmp_path / "model", of)
    if name == "bert" and of is AutoModelForMaskedLM:
        with pytest.raises(ModelError, match="pooler"):  # a classifier needs it, and nothing is drawn unasked
            load_pretrained(folder, label_names=LABELS, seed=1)
        return
    theirs = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    loaded = load_pretrained(folder, label_names=LABELS, seed=1)
    ours = family_of(loaded.model).encoder(loaded.model.eval())
    assert loaded.new_head
    with torch.no_grad():
        expected, found = (model(**plain(encoded())).last_hidden_state for model in (theirs, ours))
    real = plain(encoded())["attention_mask"].bool()
    assert torch.allclose(found[real], expected[real], atol=1e-5)
    assert expected[real].std() > 0.1
    again = load_pretrained(folder, label_names=LABELS, seed=1).model.state_dict()
    other = load_pretrained(folder, label_names=LABELS, seed=2).model.state_dict()
    assert all(torch.equal(value, again[key]) for key, value in loaded.model.state_dict().items())
    differing = {key for key, value in other.items() if not torch.equal(value, again[key])}
    assert differing
    assert all(key.startswith(FAMILIES[name].drawn) for key in differing)


@pytest.mark.parametrize("name", ALL)
def test_every_family_trains_under_all_methods_that_fit_it_and_predicts_what_torch_computes(name, tmp_path):
    folder = make(name, tmp_path / "model")
    methods = [MethodSpec(method) for method in list_methods() if method == "quantization"]
    methods += [MethodSpec("pruning", {"sparsity": 0.5, "embeddings": True})]
    methods += [MethodSpec("distillation", {"hidden": 1.0, "augment": 1})]
    data = DataSpec(task="banking77", max_train_rows=32, max_eval_rows=20)
    training = TrainingSpec(epochs=1, learning_rate=1e-3, batch_size=8, max_length=24, dropout=0.1)
    spec = RunSpec("train", folder, data, training, tuple(methods))
    trained = train_artifact(spec, tmp_path / "out", places=Places(None, None))
    values = {row.name: row.value for row in trained.measurements}
    assert 0 <= values["score"] <= 1
    model = load_model(tmp_path / "out")
    assert type(model) is FAMILIES[name].classifier
    linears = encoder_linears(model)
    assert len(linears) == {"modernbert": 4}.get(name, 6) * 3
    words = model.get_input_embeddings().weight
    zeros = sum(int((module.weight == 0).sum()) for module in linears.values()) + int((words == 0).sum())
    weights = sum(module.weight.numel() for module in linears.values()) + words.numel()
    assert zeros >= round(0.5 * weights)
    predictor = Predictor(tmp_path / "out")
    rows = Rows(predictor._encoder.encode(TEXTS), None, predictor._encoder.pad_id)
    with torch.no_grad():
        expected = model(**model_inputs(model, collate(rows, np.arange(3)))).logits.numpy()
    assert np.abs(predictor.logits(TEXTS) - expected).max() < 1e-4
    assert AutoConfig.for_model(**json.loads((tmp_path / "out" / "config.json").read_text())).model_type == name


def bpe(folder):
    """A byte-level BPE tokenizer with RoBERTa's special tokens, padding with id 1, for texts and pairs."""
    from tokenizers import ByteLevelBPETokenizer, processors

    tokenizer = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator([*TEXTS, *WORDS] * 3, vocab_size=300, special_tokens=special, show_progress=False)
    tokenizer._tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    (folder / "tokenizer.json").write_text(tokenizer._tokenizer.to_str())
    return tokenizer._tokenizer.get_vocab_size()


@pytest.mark.parametrize(
    ("name", "target", "changes"),
    [
        ("roberta", "classes", {"pad_token_id": 1}),
        ("xlm-roberta", "number", {"pad_token_id": 1}),
        ("distilbert", "number", {}),
        ("electra", "number", {"embedding_size": 32}),
        ("modernbert", "classes", {"classifier_pooling": "cls", "norm_bias": True, "attention_bias": True}),
        ("modernbert", "number", {"mlp_bias": True, "classifier_bias": True, "num_hidden_layers": 4}),
    ],
)
def test_pairs_numbers_and_byte_level_words_train_and_predict(name, target, changes, tmp_path):
    texts = [f"{WORDS[row % 7]} {' card' * (row % 40)} {WORDS[row % 3]}" for row in range(48)]
    labels = [str(row % 3) if target == "classes" else row / 10 for row in range(48)]
    for split, more in (("train", " of"), ("dev", " to")):
        lines = ["text,pair,label", *(f"{text},{texts[-row]}{more},{labels[row]}" for row, text in enumerate(texts))]
        (tmp_path / f"{split}.csv").write_text("\n".join(lines))
    folder = tmp_path / "model"
    folder.mkdir()
    num_words = bpe(folder) - len(SPECIAL)
    torch.manual_seed(0)
    AutoModel.from_config(family_config(name, num_words, **changes)).save_pretrained(folder)
    train, dev = (str(tmp_path / f"{split}.csv") for split in ("train", "dev"))
    data = DataSpec(train=train, dev=dev, text=("text", "pair"), label="label", target=target)
    most = identify(str(folder)).max_length
    training = TrainingSpec(epochs=1, learning_rate=1e-3, batch_size=8, max_length=most)
    methods = (MethodSpec("quantization", {"activation_bits": 8}), MethodSpec("pruning"))
    train_artifact(RunSpec("train", str(folder), data, training, methods), tmp_path / "out")
    predictor, model = Predictor(tmp_path / "out"), load_model(tmp_path / "out")
    encodings = predictor._encoder.encode(texts, texts[::-1])
    assert max(len(row.ids) for row in encodings) == most
    with torch.no_grad():
        batch = collate(Rows(encodings, None, predictor._encoder.pad_id), np.arange(48))
        expected = model(**model_inputs(model, batch)).logits.numpy()
    assert np.abs(predictor.logits(texts, texts[::-1]) - expected).max() < 1e-3
    # What is shipped is also a tokenizer to transformers, which pads with the same id.
    import multipress.huggingface  # noqa: F401 - it opens the packed file

    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")(texts, texts[::-1], padding=True, truncation=True)
    assert theirs["input_ids"] == batch["input_ids"].tolist()
    for size in (most, 512):
        assert measure_speed(predictor.artifact, [(1, size)], repeats=1)[0].value > 0


@pytest.mark.parametrize("name", ALL)
def test_a_new_head_is_drawn_as_transformers_draws_it(name, tmp_path):
    config = family_config(name, len(WORDS), num_labels=2) if name == "bert" else family_config(name, len(WORDS))
    torch.manual_seed(0)
    theirs = [FAMILIES[name].classifier(config).state_dict() for _ in range(40)]
    folder = make(name, tmp_path / "model")
    ours = [load_pretrained(folder, label_names=LABELS, seed=seed).model.state_dict() for seed in range(40)]
    for key in (key for key in ours[0] if key.startswith(FAMILIES[name].drawn)):
        expected, found = (torch.stack([weights[key] for weights in many]) for many in (theirs, ours))
        assert found.std().item() == pytest.approx(expected.std().item(), rel=0.1), key
        assert found.mean().item() == pytest.approx(expected.mean().item(), abs=0.02), key
        assert found.abs().max().item() == pytest.approx(expected.abs().max().item(), rel=0.35), key


@pytest.mark.parametrize("name", ["bert", "distilbert", "modernbert"])
def test_a_head_for_tokens_is_not_taken_for_one_for_texts(name, tmp_path):
    labels = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    if name == "modernbert":
        folder = make(name, tmp_path / "model", AutoModelForTokenClassification, **labels)
    else:
        folder = make(name, tmp_path / "model", AutoModelForSequenceClassification, **labels)
        config = tmp_path / "model" / "config.json"
        config.write_text(config.read_text().replace("ForSequenceClassification", "ForTokenClassification"))
    loaded = load_pretrained(folder, label_names=LABELS, seed=1)
    assert loaded.new_head
    assert "another kind of task" in loaded.note


@pytest.mark.slow
def test_the_graph_does_not_depend_on_the_order_of_a_set(tmp_path):
    code = (
        "import hashlib; from tiny import family_config; from multipress.models.families import FAMILIES;"
        "from multipress.models.graph import trace_graph;"
        "model = FAMILIES['modernbert'].classifier(family_config('modernbert', 5));"
        "print(hashlib.sha256(trace_graph(model)).hexdigest())"
    )
    hashes = set()
    for seed in range(3):  # two of any three orders of a set of two are unlike for some of these seeds
        environment = os.environ | {"PYTHONHASHSEED": str(seed), "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-W", "ignore", "-c", code]
        hashes.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(hashes) == 1


@pytest.mark.usefixtures("both_products")
@pytest.mark.parametrize("teacher", ALL)
def test_any_family_learns_the_hidden_states_of_any_other(teacher, tmp_path):
    model = load_pretrained(
        make(teacher, tmp_path / "teacher", **({"dim": 48} if teacher == "distilbert" else {"hidden_size": 48})),
        label_names=LABELS,
        seed=0,
    ).model
    rows = Rows(encoded().encodings * 8, np.array([0, 1, 1] * 8), 0)
    for student in ALL:
        losses = []
        folder = make(student, tmp_path / student)
        train(
            read_first_token_only(load_pretrained(folder, label_names=LABELS, seed=0).model),
            rows,
            Recipe([Distillation(alpha=0.0, hidden=1.0, states="token")]),
            TrainingSpec(epochs=8, learning_rate=3e-3, batch_size=12, max_length=40),
            Context("classes", teacher_model=model),
            on_step=lambda done, total, loss, losses=losses: losses.append(loss),
        )
        assert np.mean(losses[-4:]) < 0.9 * np.mean(losses[:4]), student
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("name", ALL)
def test_hidden_states_are_those_that_transformers_reports(name, tmp_path):
    model = load_pretrained(make(name, tmp_path / "model"), label_names=LABELS, seed=0).model.eval()
    seen = []
    hooks = [
        layer.register_forward_hook(lambda *args: seen.append(args[2][0] if isinstance(args[2], tuple) else args[2]))
        for layer in hidden_layers(model)
    ]
    with torch.no_grad():
        expected = model(**plain(encoded()), output_hidden_states=True).hidden_states
    assert len(seen) == len(hooks) == len(expected) == 4
    last = -1 if name == "modernbert" else None  # transformers reports its last one after the final norm
    assert all(torch.equal(a, b) for a, b in zip(seen[:last], expected[:last], strict=True))


@pytest.mark.usefixtures("in_floats")
@pytest.mark.parametrize("name", ALL)
def test_vectors_of_texts_are_means_of_the_hidden_states_that_transformers_reports(name, tmp_path):
    model = load_pretrained(make(name, tmp_path / "model"), label_names=LABELS, seed=0).model
    rows = encoded()
    with torch.no_grad():
        states = model.eval()(**plain(rows), output_hidden_states=True).hidden_states
    many = Rows(rows.encodings * 30, None, rows.pad_id)  # more than one batch, in another order
    write_text_states(tmp_path / "states", read_first_token_only(model), many.encodings, many.pad_id)
    found = load_file(tmp_path / "states")["states"].numpy()
    assert found.shape == (90, 4, 32)
    assert found.dtype == np.float16
    for row, encoding in enumerate(rows.encodings):
        real = [layer[row, : len(encoding.ids)] for layer in states]
        expected = torch.stack([*(layer.mean(0) for layer in real[:-1]), real[-1][0]])
        layers = 3 if name == "modernbert" else 4  # transformers reports its last one after the final norm
        assert found[row::3, :layers] == pytest.approx(np.stack([expected[:layers]] * 30), abs=2e-3)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_last_vector_of_a_modernbert_is_what_its_head_reads(pooling, tmp_path):
    folder = make("modernbert", tmp_path / "model", classifier_pooling=pooling)
    model = load_pretrained(folder, label_names=LABELS, seed=0).model
    layers = [torch.randn(2, 5, 32) for _ in range(4)]
    real = torch.tensor([[1.0] * 5, [1, 1, 1, 0, 0]])[:, :, None]
    found = text_vectors(model, layers, real)
    means = [torch.stack([layer[0].mean(0), layer[1, :3].mean(0)]) for layer in layers]
    expected = means if pooling == "mean" else [*means[:-1], layers[-1][:, 0]]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_vectors_too_large_for_half_precision_are_kept_in_single(tmp_path):
    model = load_pretrained(make("bert", tmp_path / "model"), label_names=LABELS, seed=0).model
    with torch.no_grad():
        model.bert.embeddings.LayerNorm.bias += 1e5
    write_text_states(tmp_path / "states", model, encoded().encodings, 0)
    found = load_file(tmp_path / "states")["states"].numpy()
    assert found.dtype == np.float32
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", ALL)
def test_a_config_is_read_and_written_whole(name):
    config = family_config(name, len(WORDS))
    values = json.loads(json.dumps(config_values(read_config(config.to_dict(), "it"))))
    assert config_values(read_config(values, "it")) == values
    for key, value in values.items():
        assert getattr(config, key) == value or key == "rope_parameters"


def test_a_published_modernbert_config_is_read_in_its_old_words():
    # The keys of answerdotai/ModernBERT-base (Apache-2.0), in sizes of our own.
    values = {
        "model_type": "modernbert", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 5, "num_attention_heads": 2, "max_position_embeddings": 64, "hidden_activation": "gelu",
        "global_attn_every_n_layers": 3, "local_attention": 16, "global_rope_theta": 160000.0,
        "local_rope_theta": 5000.0, "norm_bias": False, "attention_bias": False, "mlp_bias": False,
        "classifier_bias": False, "classifier_pooling": "mean", "classifier_activation": "gelu", "norm_eps": 1e-05,
        "pad_token_id": 0, "position_embedding_type": "sans_pos", "layer_types": None, "rope_scaling": None,
    }  # fmt: skip
    config = read_config(values, "it")
    full, sliding = "full_attention", "sliding_attention"
    assert config.layer_types == [full, sliding, sliding, full, sliding]
    assert {kind: rope["rope_theta"] for kind, rope in config.rope_parameters.items()} == {full: 160000, sliding: 5000}


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("roberta", {"pad_token_id": 64}, "pad_token_id"),
        ("roberta", {"max_position_embeddings": 1}, "leave none"),
        ("distilbert", {"dim": 33}, "no multiple"),
        ("distilbert", {"n_layers": 10**9}, "n_layers"),
        ("electra", {"embedding_size": 10**9}, "embedding_size"),
        ("modernbert", {"layer_types": ["full_attention"]}, "layer_types"),
        ("modernbert", {"layer_types": ["full_attention", [], "global"]}, "layer_types"),
        ("modernbert", {"norm_bias": 3}, "norm_bias"),
        ("modernbert", {"classifier_pooling": "max"}, "classifier_pooling"),
        ("modernbert", {"local_attention": 0}, "local_attention"),
        ("modernbert", {"rope_scaling": {"rope_type": "yarn"}}, "rope_scaling"),
        ("modernbert", {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "rope_parameters"),
        ("modernbert", {"rope_parameters": {"full_attention": {"rope_theta": "x"}}}, "rope_theta"),
        ("modernbert", {"global_rope_theta": 0, "rope_parameters": None}, "at least 1"),
        ("modernbert", {"hidden_size": 6}, "odd size"),
        ("bert", {"position_embedding_type": "relative_key"}, "absolute"),
    ],
)
def test_a_config_that_cannot_be_used_says_which_key(name, changes, message):
    values = config_values(family_config(name, len(WORDS))) | changes
    with pytest.raises(ModelError, match=message):
        read_config(values, "it")


@pytest.mark.parametrize("kind", ["t5", "gpt2", None, 7, ["bert"]])
def test_another_kind_of_model_is_refused_and_the_known_ones_are_named(kind):
    with pytest.raises(ModelError, match="modernbert"):
        read_config({"model_type": kind}, "it")


def test_roberta_counts_positions_after_its_padding(tmp_path):
    checked = identify(make("roberta", tmp_path / "model", pad_token_id=1))
    checked.check_length(38)
    with pytest.raises(SettingError, match="38 positions"):
        checked.check_length(39)


def test_a_tokenizer_that_pads_by_another_name_is_known():
    words = json.loads(word_piece(WORDS).replace('"[PAD]"', '"<pad>"'))
    assert TextEncoder(json.dumps(words), 8).pad_id == SPECIAL.index("[PAD]")
    moved = json.loads(word_piece(WORDS).replace('"[PAD]"', '"x"').replace('"[MASK]"', '"<pad>"'))
    assert TextEncoder(json.dumps(moved), 8).pad_id == SPECIAL.index("[MASK]")


@pytest.mark.parametrize("name", ALL)
def test_a_file_that_lacks_a_weight_of_the_encoder_is_refused(name, tmp_path):
    folder = tmp_path / "model"
    make(name, folder)
    weights = load_file(folder / "model.safetensors")
    gone = sorted(key for key in weights if key.endswith(("word_embeddings.weight", "tok_embeddings.weight")))[0]
    save_file({key: value for key, value in weights.items() if key != gone}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"missing: .*embeddings\.weight"):
        identify(str(folder))


@pytest.mark.parametrize("name", sorted(set(ALL) - {"bert"}))
def test_another_family_is_not_shrunk(name, tmp_path, capsys):
    folder = make(name, tmp_path / "model")
    with pytest.raises(ModelError, match="only BERT encoders"):
        shrink_encoder(folder, Shape(1, 16, 1, 32), tmp_path / "out", texts=TEXTS * 200, steps=0)
    assert main(["shrink", folder, "--layers", "1", "-o", str(tmp_path / "out")]) != 0
    assert "only BERT encoders" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_vocabulary_of_another_kind_is_refused(tmp_path):
    folder = make("roberta", tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").unlink()
    (tmp_path / "model" / "vocab.txt").write_text("the 100\nis 90")  # fairseq's dictionary, as PhoBERT has it
    with pytest.raises(ModelError, match="no tokenizer that is read"):
        identify(folder)


def test_the_two_files_of_a_roberta_tokenizer_are_read(tmp_path):
    folder = make("roberta", tmp_path / "model", pad_token_id=1)
    size = bpe(tmp_path / "model")
    whole = json.loads((tmp_path / "model" / "tokenizer.json").read_text())
    assert size > len(WORDS) + len(SPECIAL)
    make("roberta", tmp_path / "model", pad_token_id=1, vocab_size=size)
    (tmp_path / "model" / "tokenizer.json").unlink()
    (tmp_path / "model" / "vocab.json").write_text(json.dumps(whole["model"]["vocab"]))
    merges = ["#version: 0.2", *(" ".join(pair) for pair in whole["model"]["merges"])]
    (tmp_path / "model" / "merges.txt").write_text("\n".join(merges))
    encoder = TextEncoder(identify(folder).tokenizer_json, 40)
    expected = TextEncoder(json.dumps(whole), 40)
    assert encoder.encode(TEXTS, TEXTS) == expected.encode(TEXTS, TEXTS)
    assert encoder.pad_id == expected.pad_id == 1


@pytest.mark.parametrize(("name", "hub_id"), [("roberta-base", "FacebookAI/roberta-base")])
def test_a_name_from_before_owners_stands_for_its_hub_id(name, hub_id, tmp_path):
    make("roberta", tmp_path / hub_id)
    assert find_model(name, tmp_path).folder == tmp_path / hub_id
