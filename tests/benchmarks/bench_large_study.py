"""Time and memory of frames, fits and optimum of a synthetic study of 10,000 generator runs.

    python tests/benchmarks/bench_large_study.py [RUNS=10000]

Tokenizer families of 12 codebooks, 4 lengths and 2 regularisers, 5 generator sizes, seeds to fill; each generator run
has five budgets. The fits are the laws of all pairs, and of the fronts of six tokenizers.
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np
import pandas as pd

from analysis.tokenizers.compute_law import compute_law
from analysis.tokenizers.frames import from_tables
from analysis.tokenizers.pairs import best_pairs, default_budgets
from results.schema import COLUMNS

SIZES = {"XS": (32, 1, 1e4), "S": (64, 2, 9e4), "M": (96, 4, 4.2e5), "L": (160, 6, 2e6), "XL": (256, 8, 8e6)}
IMAGES = 2 ** np.arange(14, 19)
PROTOCOL = '{"crop":"pad32","extractor":"f","extractor_hash":"a","guidance":%s,"metric":"%s","n":10000,"reference":"t"}'


def synthetic_tables(count: int) -> dict[str, pd.DataFrame]:
    random = np.random.default_rng(0)
    families = [(k, t, w) for k in 2 ** np.arange(4, 16) for t in (16, 64, 144, 256) for w in (0.0, 0.5)]
    seeds = -(-count // (len(families) * len(SIZES)))
    runs, rows = [], []
    for f, (codes, tokens, weight) in enumerate(families):
        for s in range(seeds):
            luck = random.normal(0, 0.06)
            tokenizer = {
                "tokenizer": f"K{codes}-T{tokens}", "tokenizer_family": f"f{f}", "tokenizer_seed": s, "seed": s,
                "data": "d", "data_fingerprint": "x", "image_size": 32, "downsampling": 8, "quantizer": "vq",
                "codebook_size": int(codes), "tokens_per_image": tokens, "regulariser_weight": weight,
                "regulariser": "causal" if weight else None, "tokenizer_flops": 2e12, "attempt": 1, "status": "done",
                "spec": "{}", "provenance": "{}", "finished_at": "2027-01-01",
            }  # fmt: skip
            parent, floor = f"t{f}-{s}", 20 / np.log2(codes * tokens) * np.exp(luck)
            runs.append(tokenizer | {"run_id": parent, "stage": "tokenizer", "label": parent})
            rows.append((parent, "trunk", 1, 1, 2e12, "rfid_floor", floor, None))
            for size, (width, layers, other) in SIZES.items():
                if len(runs) > count + len(families) * seeds:
                    break
                each = 6.0 * tokens * (other + width * codes)
                run_id = f"g{f}-{s}-{size}"
                own = {"run_id": run_id, "stage": "generator", "label": run_id, "parent": parent, "generator": size}
                own |= {"generator_family": size, "width": width, "layers": layers, "parameters_other": int(other)}
                runs.append(tokenizer | own | {"flops_per_image": each, "parameters_embedding": 2 * width * int(codes)})
                gfid = (floor + 40 * other**-0.1 + 3e3 * tokens**0.3 * IMAGES**-0.6) * np.exp(
                    luck + random.normal(0, 0.03, len(IMAGES))
                )
                for images, value in zip(IMAGES.tolist(), gfid.tolist(), strict=True):
                    rows.append((run_id, f"decay@{images}", images // 64, images, each * images, "gfid", value, 1.0))
    names = ["run_id", "branch", "step", "images", "path_flops", "metric", "value", "guidance"]
    evaluations = pd.DataFrame(rows, columns=names).assign(attempt=1, split="train", n=10_000, flag=None)
    evaluations["protocol_json"] = [
        PROTOCOL % ("null" if pd.isna(g) else 1.0, m)
        for g, m in zip(evaluations["guidance"], evaluations["metric"], strict=True)
    ]
    evaluations["protocol"] = evaluations["metric"]
    tables = {"runs": pd.DataFrame(runs), "evaluations": evaluations, "curves": pd.DataFrame()}
    return {name: table.reindex(columns=[c.name for c in COLUMNS[name]]) for name, table in tables.items()}


def main() -> None:
    """Print seconds of each part and the peak of memory."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    tables = synthetic_tables(count)
    start = time.perf_counter()

    def lap(what: str) -> None:
        print(f"{what:<28} {time.perf_counter() - start:6.1f} s since the start", flush=True)

    frames = from_tables(tables)
    points = frames.ranked
    lap(f"frames ({len(frames.runs):,} runs)")
    laws = [pair.law for pair in frames.curves_of_pairs]
    lap(f"laws of {len(laws)} pairs")
    fits = [law for family in frames.families["family"][:6] for law in compute_law(points, family).laws]
    lap(f"{len(fits)} laws of fronts")
    for flops in default_budgets(points):
        best = best_pairs(points, flops, curves=frames.curves_of_pairs)
        lap(f"optimum of {len(best.pairs)} pairs")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.2f} GiB")


if __name__ == "__main__":
    main()
