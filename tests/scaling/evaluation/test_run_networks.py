"""What the shipped networks are shown of colour pictures: grey of 32 pixels for distances, channels for the loss."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from scaling.evaluation.fid import reference_hash
from scaling.evaluation.measuring.measure_generator import labels_in_proportion
from scaling.evaluation.networks.features import PerceptualLoss, extract_features, load_network
from scaling.evaluation.networks.run_networks import grey, judges, perceptual_loss
from scaling.specification.feature_networks import forward_flops
from scaling.specification.pictures import PicturesSpec
from scaling.specification.spec import DataSpec, EvaluationSpec, TokenizerRun

CPU, EVALUATION = torch.device("cpu"), EvaluationSpec()


def pictures(**changes: object) -> PicturesSpec:
    facts = {"fingerprint": "a" * 64, "classes": 3, "train_images": 90, "validation_images": 40, "image_size": 64}
    return PicturesSpec(**facts | changes)  # type: ignore[arg-type]


def judged(data: DataSpec | PicturesSpec) -> tuple[str, str]:
    (judge,) = judges(data, EVALUATION, CPU)
    return judge.name, judge.sha256


def test_only_what_the_shipped_network_knows_is_called_fid() -> None:
    shipped = EVALUATION.fid_network
    for data in (DataSpec(), DataSpec(image_size=40), pictures(channels=1, image_size=32)):
        assert judged(data) == ("fid", shipped)
    for data in (pictures(), pictures(image_size=32), pictures(channels=1)):
        assert judged(data) == ("fid-grey32", shipped)


def test_colour_pictures_are_judged_by_their_grey_version_of_32_pixels() -> None:
    network = judges(pictures(), EVALUATION, CPU)[0].network
    flat = torch.tensor([10, 200, 90], dtype=torch.uint8)[:, None, None].expand(1, 3, 64, 64)
    level = 0.299 * 10 + 0.587 * 200 + 0.114 * 90
    wanted = load_network("fid")(torch.full((1, 1, 32, 32), level / 127.5 - 1))
    torch.testing.assert_close(extract_features(network, flat), wanted, rtol=1e-3, atol=1e-4)
    image = torch.rand(2, 1, 8, 8)
    assert grey(image) is image
    torch.testing.assert_close(grey(image.expand(-1, 3, -1, -1)), image)


def test_the_loss_of_colour_is_that_of_its_channels_and_has_their_gradient() -> None:
    run = TokenizerRun(data=pictures())
    loss, alone = perceptual_loss(run, CPU), PerceptualLoss()
    a, b = torch.rand(2, 2, 3, 64, 64).mul(2).sub(1)
    a.requires_grad_()
    value = loss(a, b)
    each = [alone(a[:, i : i + 1], b[:, i : i + 1]) for i in range(3)]
    torch.testing.assert_close(value, torch.stack(each).mean())
    value.backward()
    assert a.grad is not None and a.grad.flatten(2).abs().sum(2).min() > 0
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        loss.loss.network(b.flatten(0, 1)[:, None])  # type: ignore[union-attr]
    assert counter.get_total_flops() == 2 * 3 * forward_flops("perceptual", 64)


def test_references_differ_by_content_channels_and_side() -> None:
    specs = (pictures(), pictures(channels=1), pictures(image_size=32), pictures(fingerprint="b" * 64), DataSpec())
    assert len({reference_hash(data, "train") for data in specs}) == len(specs)
    # What a run draws of a picture in training does not change what it is measured against.
    assert reference_hash(pictures(crop="random", flip=True), "train") == reference_hash(pictures(), "train")


@pytest.mark.parametrize("n", [7, 12, 100])
def test_classes_are_sampled_as_often_as_they_are_trained_on(n: int) -> None:
    assert torch.equal(labels_in_proportion(torch.arange(3).repeat(5), 3, n), torch.arange(n) % 3)
    train = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    drawn = labels_in_proportion(train, 3, n)
    counts = torch.bincount(drawn, minlength=3)
    assert len(drawn) == n and (counts - torch.tensor([0.6, 0.3, 0.1]) * n).abs().max() < 1
    if n == 100:
        half = torch.bincount(drawn[:50], minlength=3)
        assert half.tolist() == [30, 15, 5]
