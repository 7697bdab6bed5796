"""Open an artifact and predict, without torch."""

from multipress.runtime.predictor import Prediction, Predictor
from multipress.runtime.tokenizer import Encoding, TextEncoder, batches_by_length, pad_batch

__all__ = ["Encoding", "Prediction", "Predictor", "TextEncoder", "batches_by_length", "pad_batch"]
