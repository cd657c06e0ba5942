"""Samples of a generator as features, drawn by number and shared out to processes; and the scale of guidance chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from results.errors import DataError, RunError
from scaling.generator.numbered import NumberedImages
from scaling.generator.transformer import Generator
from scaling.specification.spec import GeneratorRun
from scaling.tokenizer.model import Tokenizer

from ..fid import frechet_estimate
from ..networks.features import extract_features
from ..sets.moments import Moments

TUNING_IMAGES = 50_000
"""Training images against which the scale of guidance is chosen (paper App. A.2)."""
TUNING = "guidance tuning"
"""Purpose of the draws by which it is chosen: others than those that are judged, so that choosing biases nothing."""


class Together(Protocol):
    """The processes that sample together; scaling.training.distributed.Ranks is one."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool: ...
    def sum(self, values: Tensor, /) -> Tensor: ...
    def any(self, flag: bool, /) -> bool: ...
    def told(self, value: Any, /) -> Any: ...


class Drawn(NamedTuple):
    """Features float32 [n, d] of samples in each space, and the pixels uint8 [m, c, S, S] of the first, on the CPU."""

    spaces: tuple[Tensor, ...]
    pixels: Tensor


@dataclass(frozen=True)
class Samples:
    """All that an evaluation needs: samples by scale, and those at the scale that was chosen, if one was."""

    by_scale: dict[float, Drawn]
    chosen: float | None = None
    at_chosen: Drawn | None = None


class Sampler:
    """Draws a run's samples; with several processes, `all` and `draw` are called by each of them together.

    networks  of the feature spaces; the scale is chosen in the first
    labels  int64: the row of classes that images have in turn
    tuning  moments of training images against which the scale is chosen; only the first process needs them
    """

    def __init__(
        self,
        run: GeneratorRun,
        tokenizer: Tokenizer,
        networks: Sequence[nn.Module],
        labels: Tensor,
        ranks: Together,
        step_done: Callable[[str], None],
        tuning: Moments | None = None,
    ) -> None:
        assert run.evaluation.sampling is not None
        self.run, self.tokenizer, self.networks, self.ranks = run, tokenizer, tuple(networks), ranks
        self.labels, self.step_done, self.tuning = labels, step_done, tuning
        self.spec = run.evaluation.sampling

    def images(self, purpose: str = "sampling") -> NumberedImages:
        """The row of images of this run."""
        return NumberedImages(self.spec, self.run.evaluation.seed, self.labels, purpose)

    def draw(self, model: Generator, guidance: float, purpose: str = "sampling", shown: int = 0) -> Drawn:
        """run.evaluation.samples images: features of all in every space (to choose a scale, in the first), pixels of
        the first `shown`; the same in every process.

        Raises RunError in all if one is stopped.
        """
        n, data, ranks = self.run.evaluation.samples, self.run.tokenizer.data, self.ranks
        images, size = self.images(purpose), self.spec.microbatch
        shown = min(shown, n)
        networks = self.networks[:1] if purpose == TUNING else self.networks
        spaces: list[Tensor] = []
        pixels = torch.zeros(shown, data.channels, data.image_size, data.image_size, dtype=torch.uint8)
        stopped: RunError | None = None
        try:
            # A process that is left without a microbatch draws one for the number of its features.
            for number in images.microbatches(n, ranks.rank, ranks.size) or range(1):
                decoded = self.tokenizer.pixels_of(images.tokens(model, number, guidance))
                in_each = [extract_features(network, decoded) for network in networks]
                spaces = spaces or [torch.zeros(n, rows.shape[1]) for rows in in_each]
                if number % ranks.size == ranks.rank:
                    start, kept = number * size, min(size, n - number * size)
                    for features, rows in zip(spaces, in_each, strict=True):
                        features[start : start + kept] = rows[:kept]
                    pixels[start : start + size] = decoded[: max(0, min(size, shown - start))].cpu()
                self.step_done(f"sampling {min((number + 1) * size, n)}/{n}")
        except RunError as error:
            stopped = error
        if ranks.any(stopped is not None):
            raise stopped or RunError("stopped with another process; a checkpoint is kept", "interrupted")
        if ranks.size > 1:
            *spaces, pixels = (ranks.sum(part.to(ranks.device)).cpu() for part in (*spaces, pixels))
        if not all(torch.isfinite(features).all() for features in spaces):
            raise DataError(f"samples of {self.run.label} have features that are not finite")
        return Drawn(tuple(spaces), pixels)

    def all(self, model: Generator, shown: int) -> Samples:
        """Samples at every scale of the run, and at the one that is chosen, `shown` of those without guidance."""
        evaluation = self.run.evaluation
        drawn = {scale: self.draw(model, scale, shown=shown if scale == 1 else 0) for scale in evaluation.guidance}
        if not evaluation.tuned_guidance:
            return Samples(drawn)
        chosen = self._chosen(model)
        return Samples(drawn, chosen, drawn[chosen] if chosen in drawn else self.draw(model, chosen))

    def _chosen(self, model: Generator) -> float:
        """The scale whose samples are nearest to the training images; of equals the smallest."""
        distances: dict[float, float] = {}
        for scale in sorted(self.run.evaluation.tuned_guidance):
            drawn = self.draw(model, scale, TUNING)
            if self.ranks.first:
                assert self.tuning is not None
                distances[scale] = frechet_estimate(drawn.spaces[0], self.tuning, self.run.evaluation.seed).value
        best = min(distances, key=distances.__getitem__) if distances else None
        return float(self.ranks.told(best))
