"""What exporters of goldens share: a search is written down only if rounding cannot decide it.

Processors add in different orders, so the same search ends with other tokens wherever two hypotheses score alike. A search is settled if it
finds the same tokens in f64 and under every one of some draws of noise up to NOISE on all logits, which is hundreds of times what f32
rounds away.
"""

from contextlib import contextmanager
from unittest import mock

import torch

NOISE, DRAWS = 1e-4, 12


@contextmanager
def double(model):
    """Computes in f64, although `generate` and norms ask for f32 by name."""
    with mock.patch.multiple(torch, float32=torch.float64, float=torch.float64):
        yield model.double()
    model.to(torch.float32)


@contextmanager
def noisy(writer, seed):
    """Every logit that the module `writer` gives is off by another number."""
    generator = torch.Generator().manual_seed(seed)

    def shake(_module, _inputs, output):
        output.logits = output.logits + (2 * torch.rand(output.logits.shape, generator=generator) - 1) * NOISE

    hook = writer.register_forward_hook(shake)
    yield
    hook.remove()


def settled(model, writer, search, tokens, draws=DRAWS):
    """Whether `search()`, which runs `model`, whose part `writer` gives the logits, finds `tokens` whatever rounding does."""
    with double(model):
        if search() != tokens:
            return False
    for draw in range(draws):
        with noisy(writer, draw):
            if search() != tokens:
                return False
    return True
