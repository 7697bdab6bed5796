"""Tokens a second of training a translator: our loop against a plain PyTorch loop over `nn.Transformer`.

The rival is what tutorials write: the same shape, rows in random order, each batch padded to its longest row, a loss
over all places, Adam. Both have one thread and as many rows a step on average. Steps are timed in turns, in processor
time; tokens are those of the rows, padding not counted.

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


def plain_steps(rows, config, steps, seed=0):
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
        logits = model(batch["input_ids"], batch["decoder_input_ids"])
        loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100, label_smoothing=0.1)
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
    rates = {"plain": [], "ours": []}
    for part in range(2):  # in turns, so that a slow spell meets both
        for name, steps in (
            ("plain", list(plain_steps(rows, config, asked.steps + WARM_UP, part))),
            ("ours", our_steps(rows, config, asked.steps + WARM_UP)),
        ):
            seconds, tokens = np.array(steps[WARM_UP:]).T
            rates[name].append(tokens.sum() / seconds.sum())
    ours, plain = (float(np.mean(rates[name])) for name in ("ours", "plain"))
    print(f"{asked.model}: ours {ours:,.0f} tokens/s, nn.Transformer {plain:,.0f} tokens/s, ratio {ours / plain:.2f}")


if __name__ == "__main__":
    main()
