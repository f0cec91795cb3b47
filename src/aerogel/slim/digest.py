"""Name a model by its weights."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from aerogel.slim.families.family import find_family


def digest_model(model: nn.Module) -> str:
    """Hash the weights of a model, their names and types, and how its blocks use them: SHA-256.

    Raises:
        DataError: no family knows the model.
    """
    sites = find_family(model).locate(model)
    digest = hashlib.sha256()
    for block in sites.blocks:
        digest.update(f"{block.heads} heads in windows of {block.window};".encode())
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name} {parameter.dtype} {list(parameter.shape)};".encode())
        raw = parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()
