"""Parameters and FLOPs of the discriminator; conventions as in `flops`. No torch."""

from __future__ import annotations

from .. import feature_networks
from ..spec import TokenizerRun
from .autoencoder_flops import Layer, autoencoder_layers


def discriminator_layers(run: TokenizerRun) -> list[Layer]:
    """Parameters and forward FLOPs on one image of each convolution with its norm; none without a discriminator."""
    spec = run.adversarial
    if spec is None:
        return []
    layers: list[Layer] = []
    incoming, side = run.data.channels, run.encoded_size
    for number, outgoing in enumerate([*spec.widths, 1]):
        halves, ends = number < spec.layers, number > spec.layers
        # Kernels of 4 with a margin of 1: a side of s becomes s // 2, or s - 1.
        side = side // 2 if halves else side - 1
        weights = 16 * incoming * outgoing
        # The first and the last convolution have a bias, the others a norm with gain and bias.
        extra = outgoing if number == 0 or ends else 2 * outgoing
        layers.append(Layer(weights + extra, 2 * weights * side**2))
        incoming = outgoing
    return layers


def discriminator_training_flops(run: TokenizerRun) -> float:
    """Forward and backward FLOPs of one image, the mean over a training: none before the discriminator takes part.

    The tokenizer's step goes forward and back to the reconstruction; the discriminator's own goes over the image and
    the reconstruction, of which neither needs a gradient. An adaptive weight goes back to the reconstruction once more
    through discriminator and loss network, and to the weights of the decoder's last layer twice.
    """
    spec = run.adversarial
    if spec is None:
        return 0.0
    costs = [layer.flops for layer in discriminator_layers(run)]
    flops: float = 2 * sum(costs) + 2 * (3 * sum(costs) - costs[0])
    if spec.adaptive:
        compared = run.data.channels if run.losses.perceptual_weight else 0
        flops += sum(costs) + 2 * [layer.flops for layer in autoencoder_layers(run)][-1]
        flops += compared * feature_networks.forward_flops("perceptual", run.encoded_size)
    return flops * spec.active_share(run.train_images, run.batch_size)
