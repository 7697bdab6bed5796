"""Quantization: weights become small integers, and the training knows it.

What it does:
    In each forward pass weights are rounded to integers times one scale a row, and gradients pass straight through
    the rounding. After the training the integers are stored. All linear layers and embeddings are quantized; biases
    and LayerNorm stay in 16 bits. The grid is symmetric, so zero is always on it.

When to use it:
    First and nearly always: 8 bits cost next to nothing and cut the file to a quarter of 32-bit floats.

Settings:
    bits: Bits a weight: 8 (default, the paper's), 6, 4, 3, or 2 (ternary: -1, 0, 1).
    embedding_bits: Bits of the embeddings; none (default): as `bits`.
    activation_bits: none (default): activations stay floats; 8: the input of each linear layer is rounded too.
    activation_scale: With 8-bit activations `dynamic` (default): a scale for each token, computed as it passes;
        `static`: one for each layer, from the training: predictions in integers are faster (docs/log.md).
    learned_step: Whether the scales are learned (false: computed from the weights at each step).
    group: 0 (default): the weights of a row share one scale; 16, 32, 64 or 128: so many neighbours of a row do, which
        costs 16 bits a group. For 4 bits and below. A row whose length it does not divide keeps one scale.
    start: Share of the training after which rounding begins (0.0).
    step_learning_rate: Learning rate of the logarithm of learned scales; none (default): 0.001, with a `rate` as much
        as it takes to get there in half of the training.
    steps: `row` (default): a learned scale a row; `tensor`: one for all its rows.
    rate: none (default), or the mean bits of a weight that an entropy coder may take, such as 1.5. They are a part of
        the loss, at a price that lets them fall to this number over half of the training, and the scales are learned:
        the training decides which weights may be coarse or zero. So the size is known beforehand. Integers are
        those of 8 bits then.
    rate_weight: 0 (default): none. Above 0 the same bits are a part of the loss at this price: the size follows.

Cost:
    Training time: 3 to 8 %, with 8-bit activations 10 to 20 %. Memory: nothing lasting.

With other methods:
    Acts after pruning: it sees the masked weights, and a zero stays an exact zero. Distillation helps at 4 bits and
    below.

Limits:
    Scales are 16-bit floats: a row whose largest weight is below a hundred-thousandth is stored coarsely or lost.
    Below 4 bits, one scale a row is coarse; `group` gained up to .8 points at 4 and 3 bits for 17 % more bytes, none
    at 2 (docs/log.md; one seed), and does not work with `structured`. In integers what has groups is rounded again, to
    8 bits a row. What is stored in 4 bits is computed in floats: it saves bytes, not time. A static scale is that of
    the rows trained on: of other text larger values are cut off.

Source:
    Jacob et al. 2018 (straight-through training on integers); Zafrir et al. 2019, section 3 (BERT, embeddings
    included; differs: one scale a row, not a matrix); Li et al. 2016 and Max 1960 (scale of low bits from the spread
    of the weights); Esser et al. 2020 (learned step; differs: its logarithm is learned). Movva et al. 2022 use 8 bits.
    Static scales of activations: Jacob et al. 2018, section 3.1 (a moving average of the largest values).
    Bits in the loss: Chou et al. 1989 (entropy-constrained quantization), with prices from a zero-inflated geometric
    distribution that is fitted in each step. Words that no training row holds are stored in as many bits as the others.
"""

from multipress.methods.quantization.activations import activation_scales, quantize_activations
from multipress.methods.quantization.grid import QuantizedWeight, quantize_rows, row_scale
from multipress.methods.quantization.method import Quantization

__all__ = ["Quantization", "QuantizedWeight", "activation_scales", "quantize_activations", "quantize_rows", "row_scale"]
