"""One of several processes that draw a generator's samples together and judge them: RANK SIZE PORT FOLDER.

The generator has drawn weights; what is compared is what the first process would record. Writes FOLDER/RANK.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from scaling import randomness
from scaling.evaluation.fid import frechet_estimate
from scaling.evaluation.measuring.sampled import Sampler
from scaling.evaluation.networks.features import load_network
from scaling.evaluation.set_figures import compare
from scaling.evaluation.sets.moments import Moments
from scaling.generator.transformer import build_generator
from scaling.ranks import Place
from scaling.specification.evaluation import EvaluationSpec
from scaling.specification.ladder import transformer
from scaling.specification.spec import GeneratorRun, OptimiserSpec, TokenizerRun
from scaling.tokenizer.model import Tokenizer
from scaling.training.distributed import connected

SAMPLES, REFERENCES = 300, 400
RUN = GeneratorRun(
    tokenizer=TokenizerRun(), transformer=transformer("XS"), train_images=(64,), schedule="cosine",
    optimiser=OptimiserSpec(learning_rate=1e-3, warmup_images=0),
    evaluation=EvaluationSpec.model_validate(
        {"samples": SAMPLES, "tuned_guidance": (1.5, 2.0), "sampling": {"microbatch": 16}}
    ),
)  # fmt: skip


def judged(place: Place) -> dict[str, float]:
    """All figures of the samples, as this process would record them."""
    with connected(place, 1) as ranks:
        randomness.seed_modules(0, "generator weights")
        generator = build_generator(RUN).eval()
        torch.nn.init.normal_(generator.head.weight, std=0.5)
        decoder = Tokenizer(RUN.tokenizer).eval()
        network = load_network("fid")
        source = torch.Generator().manual_seed(9)
        with torch.inference_mode():
            pictures = torch.rand(REFERENCES, 1, 32, 32, generator=source) * 2 - 1
            references = network(pictures)
            sampler = Sampler(RUN, decoder, [network], torch.arange(10), ranks, lambda detail: None)
            sampler.tuning = Moments.of(references) if ranks.first else None
            samples = sampler.all(generator, shown=20)
    features = samples.by_scale[1.0].spaces[0]
    assert samples.at_chosen is not None and samples.chosen is not None
    figures = {figure.stem: figure.value for name in ("kid", "precision-recall", "mind")
               for figure in compare(name, features, references, 0)}  # fmt: skip
    moments = Moments.of(references)
    return figures | {
        "FID": frechet_estimate(features, moments, 0).value,
        "chosen": samples.chosen,
        "FID at the chosen scale": frechet_estimate(samples.at_chosen.spaces[0], moments, 0).value,
        "pixels": float(samples.by_scale[1.0].pixels.double().mean()),
    }


if __name__ == "__main__":
    rank, size, port, out = sys.argv[1:]
    place = Place(int(rank), int(size), int(rank), "127.0.0.1", int(port), "test")
    (Path(out) / f"{rank}.json").write_text(json.dumps(judged(place)))
