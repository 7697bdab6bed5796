"""Open an artifact and predict, without torch."""

from multipress.runtime.predictor import Prediction, Predictor, Translation, open_predictor
from multipress.runtime.tokenizer import Encoding, TextEncoder, batches_by_length, pad_batch

__all__ = [
    "Encoding",
    "Prediction",
    "Predictor",
    "TextEncoder",
    "Translation",
    "batches_by_length",
    "open_predictor",
    "pad_batch",
]
