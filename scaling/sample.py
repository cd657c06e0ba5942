"""Pictures of a trained generator, by class: what `tokenlaw sample` writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from results.errors import UsageError
from results.store import atomic
from scaling.generator.numbered import NumberedImages
from scaling.generator.stored import check_guidance, load_generator
from scaling.preview import sample_sheet, save_sheet
from scaling.specification.sampling import SamplingSpec
from scaling.specification.spec import GeneratorRun
from scaling.tokenizer.model import Tokenizer
from scaling.training.distributed import connected

SHEET = "sheet.png"


@dataclass(frozen=True)
class Request:
    """What to draw: `n` images of a run, its classes in turn, image i by (seed, i) alone.

    generator, tokenizer   files of weights
    classes                numbers; () for all of the data's
    """

    run: GeneratorRun
    generator: Path
    tokenizer: Path
    out: Path
    classes: tuple[int, ...] = ()
    n: int = 64
    guidance: float = 1.0
    seed: int = 0
    sampling: SamplingSpec = field(default_factory=SamplingSpec)


def check(request: Request) -> None:
    """Raise UsageError for a class that is not there, guidance without a null class, a number of images below 1, and
    an --out that is a file: before anything is read."""
    run, known = request.run, request.run.tokenizer.data.classes
    if wrong := [label for label in request.classes if not 0 <= label < known]:
        raise UsageError(f"classes = {wrong[0]} is not a class of {run.tokenizer.data.name}; allowed: 0 to {known - 1}")
    check_guidance(run, request.guidance)
    if request.n < 1:
        raise UsageError(f"n = {request.n} is not allowed; allowed: 1 or more")
    if request.out.exists() and not request.out.is_dir():
        raise UsageError(f"out = {str(request.out)!r} is a file; allowed: a folder, which is created")


def write_samples(request: Request, report: Callable[[str], None] = print) -> list[Path]:
    """Write the images as PNG, named by number and class, and a sheet of them; their paths, the sheet's last.

    Raises UsageError (see check), DataError for weights that cannot be read, StoreError for a folder that cannot be
    written.
    """
    check(request)
    run, n = request.run, request.n
    atomic.make_folder(request.out)
    labels = torch.tensor(request.classes or range(run.tokenizer.data.classes))
    images = NumberedImages(request.sampling, request.seed, labels)
    paths, shown = [], []
    digits = len(str(n - 1))
    with connected(None, run.threads) as ranks, torch.inference_mode():
        model = load_generator(run, request.generator).to(ranks.device)
        tokenizer = Tokenizer.load(run.tokenizer, request.tokenizer).to(ranks.device)
        for microbatch in images.microbatches(n):
            numbers = images.numbers(microbatch)
            pixels = tokenizer.pixels_of(images.tokens(model, microbatch, request.guidance)).cpu()
            for number, image, label in zip(numbers, pixels, images.labels_of(numbers).tolist(), strict=True):
                if number < n:
                    paths.append(request.out / f"{number:0{digits}d}-class{label}.png")
                    save_sheet(paths[-1], [image[None]])
                    shown.append(image)
            report(f"{min(numbers.stop, n):,} of {n:,} images")
    sample_sheet(request.out / SHEET, torch.stack(shown), images.labels_of(range(n)), run.tokenizer.data.classes)
    return [*paths, request.out / SHEET]
