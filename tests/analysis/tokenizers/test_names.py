"""Words that tell configurations apart: short, unique, of every field in which they differ."""

from __future__ import annotations

import pytest

from results.settings import told_apart


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ({"losses.perceptual_weight": 0.0}, {"losses.perceptual_weight": 1.0}, ("perceptual0", "perceptual1")),
        ({"optimiser.learning_rate": 3e-4}, {"optimiser.learning_rate": 0.001}, ("lr0.0003", "lr0.001")),
        ({"autoencoder.width": 16}, {"autoencoder.width": 32}, ("width16", "width32")),
        ({"input_size": None}, {"input_size": 64}, ("", "input64")),
        ({"quantizer.kind": "vq", "quantizer.dim": 8}, {"quantizer.kind": "fsq"}, ("vq", "fsq")),
        ({"regulariser": None}, {"regulariser.kind": "causal", "regulariser.layers": 2}, ("", "causal")),
        ({"normalised": True}, {"normalised": False}, ("normalised", "no-normalised")),
        ({"network": "vgg"}, {"network": "own"}, ("network.vgg", "network.own")),
        ({"levels": [8, 5]}, {"levels": [7, 5]}, ("levels8.5", "levels7.5")),
        ({"levels": [8, 5], "steps": 1}, {"levels": [7, 5], "steps": 2}, ("steps1", "steps2")),
        ({"a.width": 1, "b.width": 2}, {"a.width": 3, "b.width": 4}, ("a.width1 b.width2", "a.width3 b.width4")),
        ({"same": 1}, {"same": 1}, ("", "")),
    ],
)
def test_each_of_two_configurations_gets_its_words(first, second, words):
    assert tuple(map(" ".join, told_apart([first, second]))) == words


def test_a_grid_of_two_fields_names_both():
    grid = [{"losses.perceptual_weight": p, "batch_size": b} for p in (0.0, 1.0) for b in (64, 128)]
    names = list(map("-".join, told_apart(grid)))
    assert names == ["batch64-perceptual0", "batch128-perceptual0", "batch64-perceptual1", "batch128-perceptual1"]
    assert told_apart([]) == []
