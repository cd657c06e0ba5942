"""The output head's share of training FLOPs in reports: that of the exact counts, for both kinds of head."""

from __future__ import annotations

from typing import Any, Literal

import pandas as pd
import pytest

from analysis.tokenizers.compute import head_shares
from scaling.specification.costs.generator_counts import token_flops
from scaling.specification.ladder import transformer
from scaling.specification.run_columns import run_facts
from scaling.specification.spec import GeneratorRun, OptimiserSpec, TokenizerRun, VectorQuantizerSpec


def _run(size: str, codebook_size: int, head: Literal["full", "factorised"]) -> GeneratorRun:
    return GeneratorRun(
        tokenizer=TokenizerRun(quantizer=VectorQuantizerSpec(codebook_size=codebook_size)),
        transformer=transformer(size).model_copy(update={"head": head}),
        optimiser=OptimiserSpec(learning_rate=1e-3, warmup_images=0),
        train_images=(640,),
    )


def _rows(runs: dict[str, GeneratorRun]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = [
        run_facts(run) | {"run_id": run.run_id, "family": f"K{run.tokenizer.codebook_size}", "size": size}
        for size, run in runs.items()
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("codebook_size", [64, 1000, 4096, 16385])
def test_a_factorised_head_costs_its_two_halves_and_its_matrix(codebook_size: int) -> None:
    runs = {f"S {head}": _run("S", codebook_size, head) for head in ("full", "factorised")}
    rows = _rows(runs)
    shares = head_shares(rows, rows)
    for size, run in runs.items():
        assert shares[f"K{codebook_size}", size] == pytest.approx(token_flops(run).head_share, rel=1e-12)


def test_a_full_heads_share_is_6_t_d_k_to_the_bit() -> None:
    runs = {size: _run(size, 1000, "full") for size in ("XS", "S", "M")}
    rows = _rows(runs)
    for size, run in runs.items():
        wanted = 6 * 16.0 * float(run.transformer.width) * 1000 / run_facts(run)["flops_per_image"]
        assert head_shares(rows, rows)["K1000", size] == wanted
