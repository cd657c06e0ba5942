"""Training steps of the generator beside transformers' LlamaForCausalLM and LlamaGen's GPT, by turns in one process.

Usage: python tests/benchmarks/bench_generator.py [small] [middle] [large] [111M] [--steps N] [--threads 1,2]
       [--precisions float32,bfloat16] [--compile] [--device cuda] [--profile ours|transformers|llamagen]

Needs `transformers` (any throwaway environment: pip install transformers); LlamaGen's is llamagen_peer.py. All sides
take a whole training step on batches of one size: forward, cross-entropy over all positions, backward, clipping to
norm 1, fused AdamW. The peers have SDPA attention and no QK-norm, transformers' 1-D positions. Sides take turns and a
time is the least of its steps: other load then slows all alike, and the least is what the code needs. With one thread
it is processor time, which other load hardly touches; with more, wall time. `share` is the share of the machine's
matrix products (measured at 1,024^3 in the same precision just before, 8,192^3 on a GPU) that our step's model FLOPs
reach. With --compile all three are compiled by torch; ours stands beside as it is without.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from llamagen_peer import LlamaGen  # Beside this script.
from torch import Tensor, nn
from torch.nn import functional

from scaling.data.tokens import TokenSplit
from scaling.ranks import Place
from scaling.specification.costs import flops
from scaling.specification.spec import GeneratorRun, OptimiserSpec, TokenizerRun, TransformerSpec, VectorQuantizerSpec
from scaling.training.distributed import Ranks
from scaling.training.generator import GeneratorTraining
from scaling.training.peak import peak_flops
from scaling.training.schedule import segments

SHAPES = {
    # width, layers, head_dim, tokens a side, codes, batch, steps
    "small": (64, 2, 32, 4, 4096, 64, 12),
    "middle": (384, 6, 64, 8, 1024, 16, 5),
    "large": (768, 12, 64, 16, 16384, 4, 3),
    "111M": (768, 12, 64, 16, 16384, 64, 20),
}
DEVICE = torch.device("cpu")


def run_of(shape: str, precision: str, threads: int) -> GeneratorRun:
    """The specification of a shape."""
    width, layers, head_dim, side, codes, batch, _ = SHAPES[shape]
    multiple = 256 if width >= 384 else 32
    return GeneratorRun(
        tokenizer=TokenizerRun(input_size=8 * max(side, 4), quantizer=VectorQuantizerSpec(codebook_size=codes)),
        transformer=TransformerSpec(width=width, layers=layers, head_dim=head_dim, hidden_multiple=multiple),
        optimiser=OptimiserSpec(learning_rate=1e-4, warmup_images=0, weight_decay=0.05), batch_size=batch,
        train_images=(batch * 1000,), precision=precision, threads=threads,
    )  # fmt: skip


def ours(run: GeneratorRun, compiled: bool = False) -> Callable[[], float]:
    """A step of this package's training, batches and class dropout included; its loss."""
    source = torch.Generator().manual_seed(0)
    length, codes = run.tokenizer.tokens_per_image, run.tokenizer.codebook_size
    tokens = torch.randint(codes, (1024, length), generator=source)
    split = TokenSplit(tokens, torch.arange(1024) % 10)
    training = GeneratorTraining(run, split, None, Ranks(Place(), DEVICE))
    if compiled:
        training.compile()
    segment, done = segments(run)[0], [0]

    def step() -> float:
        done[0] += run.batch_size
        return float(training.step(segment, done[0])["loss"])

    return step


def transformers_peer(run: GeneratorRun, compiled: bool = False) -> Callable[[], float]:
    """A step of LlamaForCausalLM of the same shape; its loss."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape, codes, length = run.transformer, run.tokenizer.codebook_size, run.tokenizer.tokens_per_image
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=codes, hidden_size=shape.width, intermediate_size=shape.hidden, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.heads, head_dim=shape.head_dim,
        max_position_embeddings=length, tie_word_embeddings=False, attn_implementation="sdpa", use_cache=False,
    )).train().to(DEVICE)  # fmt: skip
    if compiled:
        model.model.compile()

    def loss(tokens: Tensor) -> Tensor:
        inputs = torch.cat([tokens.new_zeros(run.batch_size, 1), tokens[:, :-1]], 1)
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=run.precision == "bfloat16"):
            logits = model(input_ids=inputs).logits
        return functional.cross_entropy(logits.float().flatten(0, 1), tokens.flatten())

    return trained(model, loss, run)


def llamagen_peer(run: GeneratorRun, compiled: bool = False) -> Callable[[], float]:
    """A step of LlamaGen's GPT of the same shape; its loss."""
    shape, tokenizer = run.transformer, run.tokenizer
    model = LlamaGen(
        width=shape.width, layers=shape.layers, heads=shape.heads, hidden=shape.hidden,
        codes=tokenizer.codebook_size, grid=tokenizer.grid_size, classes=10,
    ).to(DEVICE)  # fmt: skip
    if compiled:
        model.compile()
    labels = torch.arange(run.batch_size, device=DEVICE) % 10

    def loss(tokens: Tensor) -> Tensor:
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=run.precision == "bfloat16"):
            return model(tokens, labels)  # type: ignore[no-any-return]

    return trained(model, loss, run)


def trained(model: nn.Module, loss_of: Callable[[Tensor], Tensor], run: GeneratorRun) -> Callable[[], float]:
    """A peer's training step on random tokens; its loss."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    source = torch.Generator().manual_seed(0)
    codes, length = run.tokenizer.codebook_size, run.tokenizer.tokens_per_image

    def step() -> float:
        loss = loss_of(torch.randint(codes, (run.batch_size, length), generator=source).to(DEVICE))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        return float(loss.detach())

    return step


CONTENDERS = {"ours": ours, "transformers": transformers_peer, "llamagen": llamagen_peer}


def timed(step: Callable[[], object]) -> float:
    """Seconds of one call: of the processor with one thread, else, and on a GPU, of the clock."""
    clock = time.process_time if DEVICE.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    finished()
    begun = clock()
    step()
    finished()
    return clock() - begun


def finished() -> None:
    """All that a GPU was given is done."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def matmul_speed(precision: str) -> float:
    """FLOPs a second of a product of 1,024^3 on a CPU, of 8,192^3 on a GPU, the best of five."""
    side = 1024 if DEVICE.type == "cpu" else 8192
    a = torch.randn(side, side, dtype=getattr(torch, precision), device=DEVICE)
    return 2 * side**3 / min(timed(lambda: a @ a) for _ in range(5))


def compare(shape: str, precision: str, threads: int, steps: int | None, compiled: bool) -> str:
    """One line of the table."""
    torch.set_num_threads(threads)
    run = run_of(shape, precision, threads)
    speed = matmul_speed(precision)
    contenders = {name: build(run, compiled) for name, build in CONTENDERS.items()}
    if compiled:
        contenders["uncompiled"] = ours(run)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for step in contenders.values():
        step()
    for _ in range(steps or SHAPES[shape][-1]):
        for name, step in contenders.items():
            times[name].append(timed(step))
    least = {name: min(taken) for name, taken in times.items()}
    median = {name: statistics.median(taken) for name, taken in times.items()}
    share = flops.generator_training_flops(run, run.batch_size) / least["ours"] / speed
    ratios = "".join(
        f" {least[name] / least['ours']:7.2f} {median[name] / median['ours']:6.2f}" for name in list(contenders)[1:]
    )
    known = peak_flops(DEVICE, precision) if DEVICE.type == "cuda" else None
    of_peak = f" {100 * share * speed / known:4.0f}% of the device's peak" if known else ""
    return f"{shape:7} {precision:9} {threads:7} {1e3 * least['ours']:9.1f}{ratios} {100 * share:6.0f}%{of_peak}"


def profile(shape: str, precision: str, contender: str) -> str:
    """Where a step's time goes, by operation: milliseconds of its own, share, calls."""
    step = CONTENDERS[contender](run_of(shape, precision, torch.get_num_threads()))
    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        step()
    events = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    lines = [
        f"{event.self_cpu_time_total / 1e3:9.1f} ms {100 * event.self_cpu_time_total / total:5.1f}% {event.count:5} "
        f"{event.key}"
        for event in events[:20]
    ]
    return "\n".join([f"{contender}, {shape}, {precision}: {total / 1e3:.1f} ms", *lines])


def main() -> None:
    """Print the table, or profiles."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=f"of {', '.join(SHAPES)}; all unless given")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--precisions", default="float32,bfloat16")
    parser.add_argument("--compile", action="store_true", help="all sides compiled by torch")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--profile", choices=CONTENDERS)
    given = parser.parse_args()
    global DEVICE
    DEVICE = torch.device(given.device)
    if unknown := set(given.shapes) - set(SHAPES):
        parser.error(f"SHAPE = {min(unknown)!r} is unknown; allowed: {', '.join(SHAPES)}")
    shapes, precisions = given.shapes or list(SHAPES), given.precisions.split(",")
    if given.profile:
        torch.set_num_threads(int(given.threads.split(",")[0]))
        print(*(profile(shape, precision, given.profile) for shape in shapes for precision in precisions), sep="\n")
        return
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}")
    names = [*list(CONTENDERS)[1:], *(["uncompiled"] if given.compile else [])]
    print(f"times as fast as: {'':17}" + "".join(f"{name:>15}" for name in names))
    print("shape   precision threads   ours ms" + "   least median" * len(names) + "   share")
    for shape in shapes:
        for precision in precisions:
            for threads in map(int, given.threads.split(",")):
                print(compare(shape, precision, threads, given.steps, given.compile), flush=True)


if __name__ == "__main__":
    main()
