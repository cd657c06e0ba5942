"""Guided sampling beside transformers' generate() on models of one shape, by turns in one process.

Usage: python tests/benchmarks/bench_sampling.py [small] [middle] [large] [111M] [--repeats N] [--threads 1,2]
       [--precisions float32,bfloat16] [--device cuda] [--profile]

Needs `transformers` (any throwaway environment: pip install transformers). Both sides draw all tokens of the same
number of images with guidance 2, without truncation, from random weights. The peer's guidance is its own (a second pass
without the prompt, `guidance_scale`), its cache the default one. Ours is applied to logits (`ours`) and, as a study may
ask, to the states before the head (`states`). Models are in the precision named. Sides take turns; a time is the least
of its repeats, with one thread processor time, else wall time. The last columns are bounds of ours, each measured in
the same run: reading all weights once a token, the matrix products, and the head with the draw.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import bench_generator  # Beside this script.
import torch
from bench_generator import run_of, timed
from torch import nn

from scaling.generator.sampling import draw, sample
from scaling.generator.transformer import Generator, build_generator
from scaling.specification.sampling import Guided
from scaling.specification.spec import GeneratorRun

IMAGES = {"small": (500, 5), "middle": (32, 3), "large": (8, 2), "111M": (128, 3)}
"""Images of a call, and repeats."""
GUIDANCE = 2.0


def ours(run: GeneratorRun, images: int, guided: Guided = "logits") -> tuple[Generator, Callable[[], object]]:
    """This package's sampling."""
    torch.manual_seed(0)
    model = build_generator(run).eval().to(bench_generator.DEVICE)
    for parameter in model.parameters():  # Not the complex table of rotary positions.
        parameter.data = parameter.data.to(getattr(torch, run.precision))
    nn.init.normal_(model.head.weight, std=0.02)  # type: ignore[arg-type]
    uniforms = torch.rand(images, run.tokenizer.tokens_per_image)
    labels = torch.arange(images, device=bench_generator.DEVICE) % 10
    return model, lambda: sample(model, labels, uniforms, guidance=GUIDANCE, guided=guided)


def peer(run: GeneratorRun, images: int) -> Callable[[], object]:
    """generate() of LlamaForCausalLM of the same shape."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape, codes, length = run.transformer, run.tokenizer.codebook_size, run.tokenizer.tokens_per_image
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=codes, hidden_size=shape.width, intermediate_size=shape.hidden, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.heads, head_dim=shape.head_dim,
        max_position_embeddings=length + 1, tie_word_embeddings=False, attn_implementation="sdpa",
        bos_token_id=0, eos_token_id=None, pad_token_id=0,
    )).eval().to(bench_generator.DEVICE, getattr(torch, run.precision))  # fmt: skip
    prompts = torch.arange(images, device=bench_generator.DEVICE)[:, None] % 10
    nothing = torch.full_like(prompts, 10)

    def call() -> object:
        return model.generate(
            prompts, attention_mask=torch.ones_like(prompts), do_sample=True, top_k=0, max_new_tokens=length,
            min_new_tokens=length, guidance_scale=GUIDANCE, negative_prompt_ids=nothing,
            negative_prompt_attention_mask=torch.ones_like(nothing),
        )  # fmt: skip

    return call


def compare(shape: str, precision: str, threads: int, repeats: int | None) -> str:
    """One line of the table."""
    torch.set_num_threads(threads)
    images, usual = IMAGES[shape]
    run = run_of(shape, precision, threads)
    model, own = ours(run, images)
    contenders = {"ours": own, "states": ours(run, images, "states")[1], "peer": peer(run, images)}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats or usual):
        for name, call in contenders.items():
            times[name].append(timed(call))
    least = {name: min(taken) for name, taken in times.items()}
    length = run.tokenizer.tokens_per_image
    weights = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    one = torch.zeros(2 * images, run.transformer.width, dtype=weights[0].dtype, device=bench_generator.DEVICE)
    uniforms = torch.rand(images, device=bench_generator.DEVICE)
    with torch.inference_mode():
        read = min(timed(lambda: [weight.sum() for weight in model.trunk.parameters()]) for _ in range(3))
        products = min(timed(lambda: _products(model)(2 * images)) for _ in range(3))
        head = min(timed(lambda: draw(model.head(one)[:images].float(), uniforms)) for _ in range(3))
    parts = (100 * length * part / least["ours"] for part in (read, products, head))
    return (
        f"{shape:7} {precision:9} {threads:7} {1e3 * least['ours']:9.1f} {images / least['ours']:8.1f} "
        f"{1e3 * least['peer']:9.1f} "
        f"{least['peer'] / least['ours']:6.2f} {least['peer'] / least['states']:6.2f}"
        + "".join(f" {part:7.0f}%" for part in parts)
    )


def _products(model: Generator) -> Callable[[int], None]:
    """All matrix products of the blocks for so many rows."""
    matrices = [parameter for parameter in model.trunk.parameters() if parameter.ndim == 2]

    def call(rows: int) -> None:
        for matrix in matrices:
            matrix.new_zeros(rows, matrix.shape[1]) @ matrix.t()

    return call


def profile(shape: str, precision: str) -> str:
    """Where our sampling's time goes, by operation: milliseconds of its own, share, calls."""
    own = ours(run_of(shape, precision, torch.get_num_threads()), IMAGES[shape][0])[1]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        own()
    events = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    lines = [
        f"{event.self_cpu_time_total / 1e3:9.1f} ms {100 * event.self_cpu_time_total / total:5.1f}% {event.count:6} "
        f"{event.key}"
        for event in events[:14]
    ]
    return "\n".join([f"sampling, {shape}, {precision}: {total / 1e3:.1f} ms", *lines])


def main() -> None:
    """Print the table, or profiles."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=f"of {', '.join(IMAGES)}; all unless given")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--precisions", default="float32,bfloat16")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    bench_generator.DEVICE = torch.device(given.device)
    if unknown := set(given.shapes) - set(IMAGES):
        parser.error(f"SHAPE = {min(unknown)!r} is unknown; allowed: {', '.join(IMAGES)}")
    shapes, precisions = given.shapes or list(IMAGES), given.precisions.split(",")
    if given.profile:
        torch.set_num_threads(int(given.threads.split(",")[0]))
        print(*(profile(shape, precision) for shape in shapes for precision in precisions), sep="\n")
        return
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}")
    print("shape   precision threads   ours ms images/s   peer ms   ours states  weights products head+draw")
    for shape in shapes:
        for precision in precisions:
            for threads in map(int, given.threads.split(",")):
                print(compare(shape, precision, threads, given.repeats), flush=True)


if __name__ == "__main__":
    main()
