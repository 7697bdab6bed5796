"""The loop: its batches, its learning rate, a plain reference, and resuming only from what is whole."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import BertForSequenceClassification, get_linear_schedule_with_warmup

from multipress.batches import POOL_BATCHES, epoch_batches
from multipress.errors import CheckpointError, DivergedError
from multipress.methods import Context
from multipress.recipe import Recipe
from multipress.reproducibility import seed_for
from multipress.runtime.tokenizer import Encoding
from multipress.spec import TrainingSpec
from multipress.train import Rows, Saving, _label_loss, num_steps, rate_factor, train
from tiny import bert_config

TRAINING = TrainingSpec(epochs=2, learning_rate=5e-3, batch_size=4, max_length=12, dropout=0.0)


def model():
    config = bert_config(25, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    torch.manual_seed(0)
    return BertForSequenceClassification(config)


def rows(count=22, target="classes"):
    random = np.random.default_rng(1)
    encodings = []
    for _ in range(count):
        length = int(random.integers(2, 9))
        encodings.append(Encoding([2, *random.integers(4, 30, length).tolist(), 3], [0] * (length + 2)))
    labels = np.array([row.ids[1] % 2 for row in encodings])
    return Rows(encodings, labels.astype(np.int64 if target == "classes" else np.float32), pad_id=0)


@given(
    lengths=st.lists(st.integers(3, 64), min_size=1, max_size=400),
    batch_size=st.integers(1, 9),
    seed=st.integers(0, 2**63 - 1),
)
def test_an_epoch_covers_every_row_once(lengths, batch_size, seed):
    batches = epoch_batches(np.array(lengths), batch_size, seed)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert all(0 < len(batch) <= batch_size for batch in batches)


@given(count=st.integers(1, 2000), batch_size=st.integers(1, 64))
def test_the_number_of_batches_does_not_depend_on_the_lengths(count, batch_size):
    training = TrainingSpec(epochs=1, batch_size=batch_size)
    assert len(epoch_batches(np.ones(count), batch_size, 0)) == num_steps(np.ones((count, 1)), training)


def test_pools_cut_the_padding_to_a_tenth():
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(2.5, 0.6, 20_000), 3, 64).astype(int)
    batches = epoch_batches(lengths, 32, 0)
    padded = sum(lengths[batch].max() * len(batch) for batch in batches)
    plain = sum(lengths[i : i + 32].max() * len(lengths[i : i + 32]) for i in range(0, len(lengths), 32))
    assert padded < 1.1 * lengths.sum()
    assert plain > 1.5 * lengths.sum()
    assert len(lengths) > POOL_BATCHES * 32


def test_epochs_differ_and_repeat_with_the_seed():
    lengths = np.arange(50)
    first, again, other = (np.concatenate(epoch_batches(lengths, 4, seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5])
def test_the_rate_follows_the_schedule_of_transformers_one_step_ahead(warmup):
    total = 200
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = get_linear_schedule_with_warmup(optimizer, round(warmup * total), total)
    for step in range(total):
        # Theirs starts at a rate of 0, which wastes the first step; ours starts one step later on the same line.
        assert rate_factor(step, total, warmup) == pytest.approx(
            reference.get_last_lr()[0], abs=1.1 / (warmup * total + 1)
        )
        optimizer.step()
        reference.step()


@pytest.mark.usefixtures("in_floats")
@pytest.mark.parametrize("target", ["classes", "number"])
def test_the_loop_equals_a_plain_loop_written_out(target):
    data = rows(target=target)
    net = model() if target == "classes" else _one_output()
    trained = train(net, data, Recipe([]), TRAINING, Context(target=target))
    plain = model() if target == "classes" else _one_output()
    mean, spread = (data.labels.mean(), data.labels.std()) if target == "number" else (0.0, 1.0)
    with torch.no_grad():  # numbers are learned with a mean of 0 and a spread of 1, which the output layer carries
        plain.classifier.weight /= float(spread)
        plain.classifier.bias.copy_((plain.classifier.bias - float(mean)) / float(spread))
    matrices = [p for p in plain.parameters() if p.ndim > 1]
    vectors = [p for p in plain.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=5e-3, foreach=False)
    total, step = 12, 0
    for epoch in range(2):
        lengths = np.array([len(row.ids) for row in data.encodings])
        for batch in epoch_batches(lengths, 4, seed_for(0, "order", epoch)):
            loss = 0
            for index in batch:  # row by row: no padding and no mask
                logits = plain(input_ids=torch.tensor([data.encodings[index].ids])).logits
                if target == "classes":
                    loss = loss + functional.cross_entropy(logits, torch.tensor([int(data.labels[index])]))
                else:
                    loss = loss + (logits[0, 0] - float((data.labels[index] - mean) / spread)) ** 2
            (loss / len(batch)).backward()
            norm = torch.sqrt(sum(p.grad.square().sum() for p in plain.parameters() if p.grad is not None))
            for p in plain.parameters():
                if p.grad is not None and norm > 1:
                    p.grad /= norm
            for group in optimizer.param_groups:
                group["lr"] = 5e-3 * rate_factor(step, total, 0.1)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
    assert step == total
    with torch.no_grad():
        plain.classifier.weight *= float(spread)
        plain.classifier.bias.copy_(plain.classifier.bias * float(spread) + float(mean))
    for (name, ours), (_, theirs) in zip(trained.named_parameters(), plain.named_parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0, msg=name)


def _one_output():
    net = model()
    config = net.config
    config.num_labels = 1
    torch.manual_seed(0)
    return BertForSequenceClassification(config)


def test_a_loss_that_is_no_number_ends_the_run_with_its_step():
    net = model()
    with torch.no_grad():
        net.classifier.weight.fill_(float("inf"))
    with pytest.raises(DivergedError, match="step 0"):
        train(net, rows(), Recipe([]), TRAINING, Context())


def interrupted(tmp_path, identity="run"):
    saving = Saving(tmp_path / "checkpoint.safetensors", identity, every_steps=5)

    def stop(done, total, loss):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model(), rows(), Recipe([]), TRAINING, Context(), saving=saving, on_step=stop)
    return saving


@pytest.mark.parametrize(("a_step", "a_save", "between"), [(1.0, 0.19, 10), (1.0, 9.0, 60), (4.0, 0.02, 1)])
def test_checkpoints_take_a_fiftieth_of_the_time_and_are_a_minute_apart_at_most(
    monkeypatch, tmp_path, a_step, a_save, between
):
    """By a clock that only steps and saving advance: so many steps lie between two checkpoints."""
    now, written = [0.0], []

    def write(path, content):
        now[0] += a_save
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        written.append(int(header["__metadata__"]["steps_done"]))

    def step(done, total, loss):
        now[0] += a_step

    monkeypatch.setattr("multipress.train.time.monotonic", lambda: now[0])
    monkeypatch.setattr("multipress.train.write_bytes", write)
    training = replace(TRAINING, epochs=25)  # 150 steps
    saving = Saving(tmp_path / "checkpoint.safetensors", "run")
    train(model(), rows(), Recipe([]), training, Context(), saving=saving, on_step=step)
    gaps = np.diff(written)
    assert written[-1] > 150 - between - 1
    assert set(gaps.tolist()) == {between}


def rewrite(saving, drop):
    with safe_open(saving.path, framework="pt") as file:
        metadata = file.metadata()
    tensors = {key: value for key, value in load_file(saving.path).items() if not key.startswith(drop)}
    save_file(tensors, saving.path, metadata)


@pytest.mark.parametrize("part", ["optimizer.", "optimizer.3.exp_avg", "random", "model.bert.pooler", "model."])
def test_a_checkpoint_that_lacks_a_part_is_refused(tmp_path, part):
    saving = interrupted(tmp_path)
    rewrite(saving, part)
    with pytest.raises(CheckpointError, match="lacks a part"):
        train(model(), rows(), Recipe([]), TRAINING, Context(), saving=saving)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    saving = interrupted(tmp_path)
    with pytest.raises(CheckpointError, match="another run"):
        train(model(), rows(), Recipe([]), TRAINING, Context(), saving=Saving(saving.path, "other"))


def test_a_truncated_checkpoint_is_refused(tmp_path):
    saving = interrupted(tmp_path)
    saving.path.write_bytes(saving.path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        train(model(), rows(), Recipe([]), TRAINING, Context(), saving=saving)


def test_a_whole_checkpoint_goes_on_to_the_same_weights(tmp_path):
    saving = interrupted(tmp_path)
    steps = []
    resumed = train(
        model(),
        rows(),
        Recipe([]),
        TRAINING,
        Context(),
        saving=saving,
        on_step=lambda done, *_: steps.append(done),
    )
    straight = train(model(), rows(), Recipe([]), TRAINING, Context())
    assert steps[0] == 6
    assert all(torch.equal(value, straight.state_dict()[key]) for key, value in resumed.state_dict().items())


def test_rows_made_of_others_have_no_label_loss_and_make_the_training_no_longer():
    """A training with made rows takes the steps of its own rows; a batch of made rows alone moves nothing."""
    own = rows(20)
    more = [Encoding([2, 5, 6, 3], [0] * 4)] * 20
    labels = np.concatenate([own.labels, np.full(20, -1)])
    both = Rows([*own.encodings, *more], labels, 0, num_made=20)
    steps = []
    train(model(), both, Recipe([]), TRAINING, Context(), on_step=lambda done, total, loss: steps.append((done, total)))
    assert steps[-1] == (10, 10)  # two epochs of 20 rows in batches of 4
    alone = Rows(more, np.full(20, -1), 0, num_made=0)
    start = {name: value.clone() for name, value in model().state_dict().items()}
    frozen = TrainingSpec(epochs=1, learning_rate=1e-2, batch_size=4, max_length=12, weight_decay=0.0)
    trained = train(model(), alone, Recipe([]), frozen, Context())
    assert all(torch.equal(value, start[name]) for name, value in trained.state_dict().items())


@pytest.mark.parametrize(("labels", "expected"), [([0, -1, 1], "classes"), ([0.5, float("nan"), 2.0], "number")])
def test_the_loss_is_that_of_the_rows_with_a_label(labels, expected):
    if expected == "classes":
        logits, target = torch.randn(3, 2), torch.tensor(labels)
        reference = functional.cross_entropy(logits[[0, 2]], target[[0, 2]])
    else:
        logits, target = torch.randn(3, 1), torch.tensor(labels)
        reference = functional.mse_loss(logits[[0, 2], 0], target[[0, 2]])
    assert _label_loss(logits, target).item() == pytest.approx(reference.item())
