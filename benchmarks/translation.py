"""Tokens a second of training a translator: our loop against a plain PyTorch loop over `nn.Transformer`.

The rival is what tutorials write: the same shape, rows in random order, each batch padded to its longest row, a loss
over all places, Adam. It runs twice: in float32, as written, and with products in what our loop chooses on this
processor (bfloat16 where that is faster). All have one thread and as many rows a step on average. Steps are timed in
turns, in processor time; tokens are those of the rows, padding not counted.

    MULTIPRESS_DATA=DATA python benchmarks/translation.py [--model transformer-tiny] [--steps 20]
"""

import argparse
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from multipress.batches import Rows, collate, token_batches
from multipress.methods import Context
from multipress.models.encoder import build_classifier, expected_shapes
from multipress.models.translation import new_weights, train_tokenizer, translator_config, translator_shape
from multipress.precision import autocast, route
from multipress.recipe import Recipe
from multipress.runtime.tokenizer import TextEncoder
from multipress.spec import DataSpec, TrainingSpec
from multipress.tasks import load_task
from multipress.train import train

WARM_UP = 3


class Plain(nn.Module):
    """A translator of `nn.Transformer`, its words shared with the output."""

    def __init__(self, config):
        super().__init__()
        self.words = nn.Embedding(config.vocab_size, config.d_model, padding_idx=0)
        self.places = nn.Embedding(512, config.d_model)
        self.body = nn.Transformer(
            config.d_model,
            config.encoder_attention_heads,
            config.encoder_layers,
            config.decoder_layers,
            config.encoder_ffn_dim,
            config.dropout,
            batch_first=True,
        )

    def embed(self, ids):
        return self.words(ids) * self.words.embedding_dim**0.5 + self.places(torch.arange(ids.shape[1]))

    def forward(self, read, written):
        causal = nn.Transformer.generate_square_subsequent_mask(written.shape[1])
        unread = torch.zeros(read.shape).masked_fill(read == 0, -torch.inf)
        out = self.body(
            self.embed(read),
            self.embed(written),
            tgt_mask=causal,
            src_key_padding_mask=unread,
            memory_key_padding_mask=unread,
        )
        return out @ self.words.weight.T


def plain_steps(rows, config, steps, seed, precision):
    """Processor seconds and tokens of each step of the plain loop."""
    torch.manual_seed(seed)
    model = Plain(config).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.98))
    size = max(1, round(len(rows.encodings) / len(token_batches(rows.lengths, BATCH_TOKENS, 0))))
    order = np.random.default_rng(seed).permutation(len(rows.encodings))
    for step in range(steps):
        chosen = order[step * size : (step + 1) * size]
        started = time.process_time()
        batch = collate(rows, chosen)
        labels = batch["labels"]
        with autocast(precision):
            logits = model(batch["input_ids"], batch["decoder_input_ids"]).flatten(0, 1)
            loss = functional.cross_entropy(logits, labels.flatten(), ignore_index=-100, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield time.process_time() - started, int(rows.lengths[chosen].sum())


def our_steps(rows, config, steps):
    """Processor seconds of each step of our loop; a step's tokens are the mean."""
    training = TrainingSpec(learning_rate=1e-3, batch_tokens=BATCH_TOKENS, label_smoothing=0.1, adam_beta2=0.98)
    model = build_classifier(config, new_weights(expected_shapes(config), 0))
    ends = [time.process_time()]

    class EnoughError(Exception):
        pass

    def on_step(done, total, loss):
        ends.append(time.process_time())
        if done == steps:
            raise EnoughError

    try:
        train(model, rows, Recipe([]), training, Context("text"), on_step=on_step)
    except EnoughError:
        pass
    mean = rows.lengths.sum() / len(token_batches(rows.lengths, BATCH_TOKENS, 0))
    return [(seconds, mean) for seconds in np.diff(ends)]


BATCH_TOKENS = 2048


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="transformer-tiny")
    parser.add_argument("--steps", type=int, default=20)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    data = load_task(DataSpec(task="multi30k"))
    shape = translator_shape(asked.model)
    encoder = TextEncoder(train_tokenizer(data.written_texts, shape.words), 128)
    targets = [row.ids for row in encoder.encode(data.train.labels.tolist())]
    rows = Rows(encoder.encode(data.train.texts), None, encoder.pad_id, targets=targets)
    config = translator_config(shape)
    config.dropout, config._attn_implementation = 0.1, "eager"
    precision, steps = route(), asked.steps + WARM_UP
    loops = {
        "ours": lambda part: our_steps(rows, config, steps),
        "nn.Transformer, float32": lambda part: list(plain_steps(rows, config, steps, part, "float32")),
        f"nn.Transformer, {precision}": lambda part: list(plain_steps(rows, config, steps, part, precision)),
    }
    rates = {name: [] for name in loops}
    for part in range(2):  # in turns, so that a slow spell meets all
        for name, run in loops.items():
            seconds, tokens = np.array(run(part)[WARM_UP:]).T
            rates[name].append(tokens.sum() / seconds.sum())
    ours = float(np.mean(rates["ours"]))
    for name, own in rates.items():
        rate = float(np.mean(own))
        print(f"{asked.model}, {name}: {rate:,.0f} tokens/s; ours is {ours / rate:.2f} times as fast")


if __name__ == "__main__":
    main()
