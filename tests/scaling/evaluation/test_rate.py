"""Rates and the token cache: cross-entropies against direct sums, files that do not fit refused, previews readable."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from scaling import preview
from scaling.data.tokens import TokenRows
from scaling.evaluation import rate
from scaling.generator.transformer import Generator
from scaling.specification.spec import TransformerSpec


def test_rate_is_the_mean_cross_entropy_in_all_units() -> None:
    torch.manual_seed(0)
    model = Generator(TransformerSpec(width=32, layers=1, head_dim=16), codebook_size=64, grid=4, classes=10)
    torch.nn.init.normal_(model.head.weight)
    tokens, labels = torch.randint(64, (300, 16)).int(), torch.randint(10, (300,))
    found = rate.measure(model.eval(), tokens, labels, unigram=4.0, pixels=1024)
    with torch.inference_mode():
        logits = model(tokens.long(), labels)
    each = functional.cross_entropy(logits.flatten(0, 1), tokens.long().flatten(), reduction="none").view(300, 16)
    assert found.nats_per_token == pytest.approx(each.mean().item(), rel=1e-5)
    assert found.nats_per_image == pytest.approx(each.sum(1).mean().item(), rel=1e-5)
    assert found.bits_per_pixel == pytest.approx(each.sum(1).mean().item() / math.log(2) / 1024, rel=1e-5)
    assert found.unigram_normalised == pytest.approx(found.nats_per_token - 4.0)
    assert found.by_position == pytest.approx(each.mean(0).tolist(), rel=1e-5)
    assert found.standard_error == pytest.approx(each.mean(1).std().item() / 300**0.5, rel=1e-4)


def test_unigram_cross_entropy_is_finite_for_codes_never_seen_and_exact_for_plenty() -> None:
    uniform = torch.arange(8).repeat(10_000)[:, None].numpy()
    assert rate.unigram_cross_entropy(TokenRows([uniform]), TokenRows([uniform[:80]]), 8) == pytest.approx(
        math.log(8), rel=1e-6
    )
    zeros, ones = (TokenRows([np.full((count, 1), code)]) for count, code in ((10, 0), (3, 1)))
    unseen = rate.unigram_cross_entropy(zeros, ones, 2)
    assert unseen == pytest.approx(math.log(12))  # add-one: 11 and 1 of 12


def test_an_untrained_model_is_at_ln_k() -> None:
    model = Generator(TransformerSpec(width=32, layers=1, head_dim=16), codebook_size=64, grid=4, classes=10)
    tokens = torch.randint(64, (20, 16)).int()
    found = rate.measure(model.eval(), tokens, torch.zeros(20, dtype=torch.int64), unigram=0.0, pixels=1024)
    assert found.nats_per_token == pytest.approx(math.log(64), rel=1e-6)


def test_sheets_lay_images_out_in_rows(tmp_path: Path) -> None:
    rows = [torch.full((3, 1, 4, 4), value, dtype=torch.uint8) for value in (10, 200)]
    picture = preview.sheet(rows)
    assert picture.shape == (8, 12)
    assert set(picture[:4].flatten()) == {10}
    samples = torch.randint(256, (100, 1, 8, 8), dtype=torch.uint8)
    preview.sample_sheet(tmp_path / "a.png", samples, torch.arange(100) % 10, classes=10)
    from matplotlib.image import imread

    assert imread(tmp_path / "a.png").shape[:2] == (5 * 8, 20 * 8)


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_written_value_for_value(tmp_path: Path, channels: int) -> None:
    image = torch.arange(256 * channels).remainder(256).to(torch.uint8).reshape(1, channels, 16, 16)
    preview.save_sheet(tmp_path / "a.png", [image])
    with Image.open(tmp_path / "a.png") as written:
        assert (
            np.array_equal(np.asarray(written), preview.sheet([image]))
            and written.mode == ("L", "", "RGB")[channels - 1]
        )
