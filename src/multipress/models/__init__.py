"""Encoders: where they come from, how they are read, and their graph for the runtime."""

from multipress.models.catalogue import list_models
from multipress.models.encoder import read_first_token_only
from multipress.models.pretrained import PretrainedModel, load_pretrained

__all__ = ["PretrainedModel", "list_models", "load_pretrained", "read_first_token_only"]
