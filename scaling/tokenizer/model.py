"""A tokenizer: encoder, projection, quantizer, decoder; images to tokens and tokens to images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from scaling.data.images import resize, to_float, to_pixels
from scaling.networks import channels_last, device_of, in_batches
from scaling.specification.models.autoencoders import AutoencoderSpec
from scaling.specification.spec import TokenizerRun
from scaling.stored_weights import load_weights

from .autoencoder import Decoder, Encoder
from .quantizers import Quantised, build_quantizer
from .vqgan import VqganDecoder, VqganEncoder


@dataclass
class Encoded:
    """One pass through the encoder: `encoder` latents before the projection, `projected` after it, `prepared` as the
    quantizer compares them, and what the quantizer made of them."""

    encoder: Tensor
    projected: Tensor
    prepared: Tensor
    quantised: Quantised


class Tokenizer(nn.Module):
    """Stage 1's model. Images are float32 [n, c, S, S] in [-1, 1]; S is spec.encoded_size."""

    def __init__(self, spec: TokenizerRun) -> None:
        super().__init__()
        self.spec = spec
        autoencoder, channels = spec.autoencoder, spec.data.channels
        latent, dim = autoencoder.latent_channels, spec.quantizer.code_dim
        # Initial weights are drawn in this order.
        self.encoder = (
            Encoder(autoencoder, channels)
            if isinstance(autoencoder, AutoencoderSpec)
            else VqganEncoder(autoencoder, channels)
        )
        self.project = nn.Conv2d(latent, dim, 1)
        self.quantizer = build_quantizer(spec.quantizer)
        self.expand = nn.Conv2d(dim, latent, 1)
        self.decoder = (
            Decoder(autoencoder, channels)
            if isinstance(autoencoder, AutoencoderSpec)
            else VqganDecoder(autoencoder, channels)
        )
        # Similarities of unit vectors differ by less than bfloat16 resolves. The small autoencoder's stored runs were
        # searched in the precision of their training, and stay what they are.
        self.searched_as_trained = isinstance(autoencoder, AutoencoderSpec)
        self.layout = torch.contiguous_format
        if autoencoder.memory_layout == "channels-last":
            self.layout = torch.channels_last
            channels_last(self.encoder)
            channels_last(self.decoder)

    def encode(self, images: Tensor) -> Encoded:
        """All that lies between image and codes."""
        latents = self.encoder(images.contiguous(memory_format=self.layout))
        projected = self.project(latents).float()
        with nullcontext() if self.searched_as_trained else torch.autocast(images.device.type, enabled=False):
            prepared = self.quantizer.prepare(projected)
            return Encoded(latents, projected, prepared, self.quantizer(prepared))

    def decode(self, codes: Tensor) -> Tensor:
        """Codes [n, code_dim, h, w] to images [n, c, S, S], not clamped."""
        return self.decoder(self.expand(codes)).float()

    # --- whole data sets, on pixels, in batches ---

    @torch.inference_mode()
    def tokens_of(self, pixels: Tensor, batch: int = 250) -> Tensor:
        """Tokens int32 [n, T] of uint8 pixels [n, c, data.image_size, data.image_size], on the pixels' device."""
        device = device_of(self)

        def encode(chunk: Tensor) -> Tensor:
            images = resize(to_float(chunk.to(device)), self.spec.encoded_size)
            return self.encode(images).quantised.tokens.int().to(pixels.device)

        return in_batches(encode, pixels, batch=batch)

    @torch.inference_mode()
    def pixels_of(self, tokens: Tensor, batch: int = 250, step: Callable[[], None] = lambda: None) -> Tensor:
        """uint8 pixels [n, c, data.image_size, data.image_size] of tokens [n, T], on the tokens' device; the reverse
        of tokens_of.

        `step` is called before each batch, and may raise to stop.
        """
        device = device_of(self)

        def decode(chunk: Tensor) -> Tensor:
            images = self.decode(self.quantizer.decode(chunk.to(device).long(), self.spec.grid_size))
            return to_pixels(resize(images, self.spec.data.image_size)).to(tokens.device)

        return in_batches(decode, tokens, batch=batch, step=step)

    def save(self, path: Path) -> None:
        """Write the weights as safetensors."""
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous() for k, v in self.state_dict().items()}, path)

    @classmethod
    def load(cls, spec: TokenizerRun, path: Path) -> Tokenizer:
        """A tokenizer in evaluation mode from what `save` wrote. Raises DataError where it does not fit the spec."""
        model = cls(spec)
        load_weights(model, spec, path)
        return model.eval()
