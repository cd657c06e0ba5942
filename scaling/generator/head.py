"""Heads: from states to the distribution of the next code. All codes at once, or a code in two halves."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from scaling.networks import in_batches

from .loss import linear_cross_entropy, negative_log_likelihood, slice_rows


class FullHead(nn.Linear):
    """One matrix [K, width] of all codes."""

    def __init__(self, width: int, codebook_size: int) -> None:
        super().__init__(width, codebook_size, bias=False)

    def start_at_zero(self) -> None:
        """Make all codes equally likely."""
        nn.init.zeros_(self.weight)

    def logits_into(self, hidden: Tensor, memory: Tensor | None) -> Tensor:
        """Logits [m, K] of states [m, width] without gradient, in the memory of earlier ones where there are any: what
        is freed goes back to the system, which hands it out page by page."""
        return self(hidden) if memory is None else torch.mm(hidden, self.weight.t(), out=memory)

    def cross_entropy(self, hidden: Tensor, targets: Tensor, z_weight: float = 0.0) -> Tensor:
        """Mean over m states [m, width] of -log p(target), plus the z-loss; see linear_cross_entropy."""
        return linear_cross_entropy(hidden, self.weight, targets, z_weight)

    def negative_log_likelihood(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """-log p(target) of each state: [m]."""
        return negative_log_likelihood(hidden, self.weight, targets)


class FactorisedHead(nn.Module):
    """A code as high x low_size + low: p(code) = p(high) p(low | high), for codebooks whose matrix would be the model.

    low_size is ceil(sqrt(K)). The low half is predicted from the state after the high one is known to it:
    x + mix(silu(x + embedding[high])), one matrix of the width. Codes that do not exist (K no product of the two
    sizes) have no probability. The likelihood is exact: probabilities of all K codes sum to 1.
    """

    def __init__(self, width: int, codebook_size: int) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.low_size = math.isqrt(codebook_size - 1) + 1
        self.high_size = -(-codebook_size // self.low_size)
        self.high = nn.Linear(width, self.high_size, bias=False)
        self.high_embedding = nn.Embedding(self.high_size, width)
        self.mix = nn.Linear(width, width, bias=False)
        self.low = nn.Linear(width, self.low_size, bias=False)

    def start_at_zero(self) -> None:
        """Make all codes equally likely, but for those that share the last, incomplete high half."""
        nn.init.zeros_(self.high.weight)
        nn.init.zeros_(self.low.weight)

    def cross_entropy(self, hidden: Tensor, targets: Tensor, z_weight: float = 0.0) -> Tensor:
        """Mean over m states [m, width] of -log p(target), plus the z-loss of either half."""
        high, low = targets // self.low_size, targets % self.low_size
        states = self._low_states(hidden, self.high_embedding(high))
        if self.complete:
            conditional = linear_cross_entropy(states, self.low.weight, low, z_weight)
        else:
            logits = self._low_logits(states, high)
            log_z = logits.logsumexp(1)
            conditional = (log_z - logits.gather(1, low[:, None])[:, 0] + z_weight * log_z.square()).mean()
        return linear_cross_entropy(hidden, self.high.weight, high, z_weight) + conditional

    def negative_log_likelihood(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """-log p(target) of each state: [m]."""
        high, low = targets // self.low_size, targets % self.low_size

        def losses(x: Tensor, high: Tensor, low: Tensor) -> Tensor:
            states = self._low_states(x.float(), self.high_embedding(high))
            logits = self._low_logits(states, high)
            return torch.logsumexp(logits, 1) - logits.gather(1, low[:, None])[:, 0]

        with torch.no_grad():
            conditional = in_batches(losses, hidden, high, low, batch=slice_rows(self.low_size, hidden.device))
        return negative_log_likelihood(hidden, self.high.weight, high) + conditional

    def forward(self, hidden: Tensor) -> Tensor:
        """Log-probabilities [..., K] of all codes: as logits, since these are free up to a constant.

        They cost as many FLOPs as the full matrix; what is saved are its parameters, and training.
        """
        flat = hidden.flatten(0, -2)
        every = torch.arange(self.high_size, device=hidden.device)
        states = self._low_states(flat[:, None], self.high_embedding.weight)
        low = self._low_logits(states.flatten(0, 1), every.repeat(len(flat))).log_softmax(-1)
        joint = self.high(flat).float().log_softmax(-1)[..., None] + low.view(len(flat), self.high_size, -1)
        return joint.flatten(1)[:, : self.codebook_size].view(*hidden.shape[:-1], -1)

    def logits_into(self, hidden: Tensor, memory: Tensor | None) -> Tensor:
        """What `forward` gives; it takes no memory over."""
        return self(hidden)

    @property
    def complete(self) -> bool:
        """Whether every pair of halves is a code."""
        return self.high_size * self.low_size == self.codebook_size

    def _low_states(self, x: Tensor, embedded: Tensor) -> Tensor:
        return x + self.mix(functional.silu(x + embedded))

    def _low_logits(self, states: Tensor, high: Tensor) -> Tensor:
        """Logits [m, low_size] in float32, -inf for codes that do not exist."""
        logits = self.low(states).float()
        if self.complete:
            return logits
        codes = high[:, None] * self.low_size + torch.arange(self.low_size, device=high.device)
        return logits.masked_fill(codes >= self.codebook_size, -math.inf)
