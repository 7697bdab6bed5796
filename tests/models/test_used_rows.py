"""Training only the rows of words that occur gives what training all of them gives."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import BertForSequenceClassification

from multipress.methods import Context
from multipress.methods.pruning import Pruning
from multipress.models.used_rows import UsedRows
from multipress.recipe import Recipe
from multipress.runtime.tokenizer import Encoding
from multipress.spec import TrainingSpec
from multipress.train import Rows, train
from tiny import SPECIAL, bert_config

WORDS = 40
KNOWN = list(range(len(SPECIAL), len(SPECIAL) + 12))  # the words that occur


def model(is_tied=False):
    """Without dropout; if tied, with the word table as its output layer too."""
    torch.manual_seed(0)
    config = bert_config(WORDS, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    classifier = BertForSequenceClassification(config)
    if is_tied:
        classifier.classifier = torch.nn.Linear(32, WORDS + len(SPECIAL), bias=False)
        classifier.classifier.weight = classifier.bert.embeddings.word_embeddings.weight
    return classifier


def rows():
    random = np.random.default_rng(0)
    encodings = [Encoding([2, *random.choice(KNOWN, 4).tolist(), 3], [0] * 6) for _ in range(16)]
    return Rows(encodings, np.array([row.ids[1] % 2 for row in encodings]), pad_id=0)


@pytest.mark.usefixtures("in_floats")
@pytest.mark.parametrize("is_tied", [False, True])
def test_without_weight_decay_a_training_is_that_of_the_whole_table(is_tied):
    """Where the table is the output layer's weight too, every row has a gradient."""
    training = TrainingSpec(epochs=2, learning_rate=5e-3, batch_size=16, max_length=8, warmup=0.0, weight_decay=0.0)
    ours = train(model(is_tied), rows(), Recipe([]), training, Context())
    plain = model(is_tied).train()
    optimizer = torch.optim.AdamW(plain.parameters(), lr=5e-3, weight_decay=0.0)
    data = rows()
    ids, labels = torch.tensor([row.ids for row in data.encodings]), torch.from_numpy(data.labels)
    for rate in (5e-3, 2.5e-3):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        functional.cross_entropy(plain(input_ids=ids).logits, labels).backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
    for (name, one), (_, other) in zip(ours.named_parameters(), plain.named_parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3, msg=name)


def test_words_that_never_occur_stay_as_they_were_and_the_others_learn():
    start = model().bert.embeddings.word_embeddings.weight.detach().clone()
    training = TrainingSpec(epochs=3, learning_rate=1e-2, batch_size=8, max_length=8)
    trained = train(model(), rows(), Recipe([]), training, Context())
    embedding = trained.bert.embeddings.word_embeddings
    changed = (embedding.weight.detach() != start).any(dim=1).nonzero().flatten().tolist()
    assert changed == [2, 3, *KNOWN]  # padding, id 0, has no gradient
    assert embedding.weight.requires_grad
    assert embedding(torch.tensor([30])).equal(start[30:31])  # the table itself looks up again


def test_what_a_method_does_to_the_table_is_what_is_trained_on():
    """Pruning that ranks the embeddings too zeroes rows that occur and rows that do not."""
    method = Pruning(sparsity=0.5, embeddings=True, updates=2)
    training = TrainingSpec(epochs=4, learning_rate=1e-2, batch_size=4, max_length=8)
    weight = train(model(), rows(), Recipe([method]), training, Context()).bert.embeddings.word_embeddings.weight
    others = [index for index in range(len(weight)) if index not in KNOWN]
    assert (weight[KNOWN] == 0).any()
    assert (weight[others] == 0).any()


@pytest.mark.parametrize("padding", [None, 0])
def test_lookups_and_gradients_are_those_of_the_table(padding):
    table = torch.nn.Embedding(9, 4, padding_idx=padding)
    reference = copy.deepcopy(table)
    used = UsedRows(table, torch.tensor([5, 0, 5, 7]))
    ids = torch.tensor([[7, 5, 0], [5, 5, 0]])
    for module in (table, reference):
        module(ids).square().sum().backward()
    assert torch.equal(table(ids), reference(ids))
    assert torch.equal(used.rows.grad, reference.weight.grad[[0, 5, 7]])
    assert table.weight.grad is None
