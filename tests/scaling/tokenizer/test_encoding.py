"""Images become tokens in shards: a stop within a batch, the rest by the next attempt, damage and other weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, load_file, save_file
from torch import Tensor

from results.errors import RunError
from results.recorder import Recorder
from scaling import randomness
from scaling import run as running
from scaling.data import run_images
from scaling.data.images import Images
from scaling.data.tokens import load_tokens, mapped
from scaling.evaluation.measuring import run_reference
from scaling.run import execute
from scaling.specification.spec import AutoencoderSpec, EvaluationSpec, OptimiserSpec, TokenizerRun, VectorQuantizerSpec
from scaling.specification.workspace import Progress, Workspace
from scaling.tokenizer import encoding
from scaling.tokenizer.encoding import BATCH, encode_split
from scaling.tokenizer.model import Tokenizer

SPEC = TokenizerRun(
    autoencoder=AutoencoderSpec(width=4, residual_blocks=(0, 0, 0)),
    quantizer=VectorQuantizerSpec(codebook_size=64),
    train_images=512,
    optimiser=OptimiserSpec(learning_rate=2e-3, warmup_images=128),
    evaluation=EvaluationSpec(samples=256),
)
IMAGES = 13 * BATCH + 57
"""Two shards of 5 batches, and a third one that ends with part of a batch."""


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each batch had that was encoded."""
    counted: list[int] = []
    original = Tokenizer.encode

    def counting(self: Tokenizer, images: Tensor) -> object:
        if torch.is_inference_mode_enabled():
            counted.append(len(images))
        return original(self, images)

    monkeypatch.setattr(Tokenizer, "encode", counting)
    monkeypatch.setattr(encoding, "SHARD", 5 * BATCH)
    return counted


@pytest.fixture(scope="module")
def model() -> Tokenizer:
    """A tokenizer with the weights that it would begin with."""
    randomness.seed_modules(0, "tokenizer weights")
    return Tokenizer(SPEC).eval()


@pytest.fixture(scope="module")
def images() -> Images:
    """Noise: what the images show does not matter here."""
    generator = randomness.generator(0, "noise")
    pixels = torch.randint(0, 256, (IMAGES, 1, 32, 32), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.zeros(IMAGES, dtype=torch.int64))


class StopAt:
    """A step that stops the encoding once so many images are done; None for never. Keeps what it was told."""

    def __init__(self, images: int | None = None) -> None:
        self.images = images
        self.told: list[tuple[int, bool]] = []

    def __call__(self, done: int, speed: float | None) -> None:
        self.told.append((done, speed is not None))
        if self.images is not None and done >= self.images:
            raise RunError("stopped", "interrupted")


def tokens_of(shards: list[Path]) -> Tensor:
    """All tokens of shards."""
    return mapped(shards)[:]


def attempts(folder: Path) -> Iterator[tuple[Path, list[Path]]]:
    """The folders of one attempt after another, own and earlier, newest first."""
    earlier: list[Path] = []
    while True:
        own = folder / str(len(earlier) + 1) / "encoded"
        yield own, list(earlier)
        earlier.insert(0, own)


def test_shards_put_together_are_the_tokens(
    tmp_path: Path, model: Tokenizer, images: Images, encoded: list[int]
) -> None:
    step = StopAt()
    found = tokens_of(encode_split(model, images, "train", tmp_path / "1", [], step))
    assert torch.equal(found, model.tokens_of(images.pixels)) and found.dtype == torch.int32
    assert [done for done, _ in step.told] == [*range(BATCH, IMAGES, BATCH), IMAGES]
    assert [path.name for path in sorted((tmp_path / "1").iterdir())] == [
        "train-000000000-000001250.safetensors",
        "train-000001250-000002500.safetensors",
        "train-000002500-000003307.safetensors",
    ]


@pytest.mark.parametrize("stops", [(1,), (3 * BATCH,), (5 * BATCH,), (7 * BATCH, 8 * BATCH, 13 * BATCH), (IMAGES,)])
def test_a_stop_ends_within_a_batch_and_the_next_attempt_does_the_rest(
    stops: tuple[int, ...], tmp_path: Path, model: Tokenizer, images: Images, encoded: list[int]
) -> None:
    wanted = model.tokens_of(images.pixels)
    places = attempts(tmp_path)
    done = 0
    for stop in stops:
        encoded.clear()
        own, earlier = next(places)
        with pytest.raises(RunError) as error:
            encode_split(model, images, "train", own, earlier, StopAt(stop))
        assert error.value.cause == "interrupted"
        # Not one batch beyond the one during which the request came, and none that was done before.
        until = min(-(-stop // BATCH) * BATCH, IMAGES)
        assert sum(encoded) == until - done
        done = until
    encoded.clear()
    own, earlier = next(places)
    assert torch.equal(tokens_of(encode_split(model, images, "train", own, earlier, StopAt())), wanted)
    assert sum(encoded) == IMAGES - done


def test_after_stops_shards_are_cut_as_in_one_go(
    tmp_path: Path, model: Tokenizer, images: Images, encoded: list[int]
) -> None:
    whole = encode_split(model, images, "train", tmp_path / "whole" / "encoded", [], StopAt())
    places = attempts(tmp_path)
    for stop in (BATCH, 3 * BATCH, 7 * BATCH):
        own, earlier = next(places)
        with pytest.raises(RunError):
            encode_split(model, images, "train", own, earlier, StopAt(stop))
    own, earlier = next(places)
    shards = encode_split(model, images, "train", own, earlier, StopAt())
    assert [path.name for path in shards] == [path.name for path in whole]
    assert [path.read_bytes() for path in shards] == [path.read_bytes() for path in whole]


def test_processes_that_share_the_shards_make_the_same_tokens(
    tmp_path: Path, model: Tokenizer, images: Images, encoded: list[int]
) -> None:
    own = tmp_path / "encoded"
    for rank in range(2):
        shards = encode_split(model, images, "train", own, [], StopAt(), (rank, 2))
        assert len(shards) == (2, 1)[rank]
    assert sum(encoded) == IMAGES
    found = tokens_of(encode_split(model, images, "train", own, [], StopAt()))
    assert sum(encoded) == IMAGES
    assert torch.equal(found, model.tokens_of(images.pixels))


def test_millions_of_images_make_no_more_than_some_hundred_shards() -> None:
    assert encoding.shard_size(60_000) == encoding.SHARD
    size = encoding.shard_size(12_811_670)
    assert size % BATCH == 0 and 12_811_670 / size <= encoding.MOST_SHARDS + 1


def test_a_kill_without_a_word_loses_one_shard_at_most(
    tmp_path: Path, model: Tokenizer, images: Images, encoded: list[int]
) -> None:
    class Killed(BaseException):
        pass

    def kill(done: int, speed: float | None) -> None:
        if done == 9 * BATCH:
            raise Killed

    with pytest.raises(Killed):
        encode_split(model, images, "train", tmp_path / "1", [], kill)
    encoded.clear()
    found = tokens_of(encode_split(model, images, "train", tmp_path / "2", [tmp_path / "1"], StopAt()))
    assert sum(encoded) == IMAGES - 5 * BATCH
    assert torch.equal(found, model.tokens_of(images.pixels))


@pytest.mark.parametrize("damage", ["cut short", "empty", "no file of ours", "another token", "no checksum"])
def test_a_damaged_shard_is_encoded_again(
    damage: str,
    tmp_path: Path,
    model: Tokenizer,
    images: Images,
    encoded: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second = tmp_path / "1" / "encoded", tmp_path / "2" / "encoded"
    wanted = tokens_of(encode_split(model, images, "train", first, [], StopAt()))
    path = sorted(first.iterdir())[1]
    content = path.read_bytes()
    tokens = load(content)["tokens"]
    match damage:
        case "cut short":
            path.write_bytes(content[: len(content) // 2])
        case "empty":
            path.write_bytes(b"")
        case "no file of ours":
            path.write_bytes(b"\x80\x04" + content)
        case "another token":
            # The last byte but three is of the last token.
            path.write_bytes(content[:-4] + bytes([content[-4] ^ 1]) + content[-3:])
        case "no checksum":
            save_file({"tokens": tokens}, path)
    encoded.clear()
    found = tokens_of(encode_split(model, images, "train", second, [first], StopAt()))
    assert torch.equal(found, wanted)
    assert sum(encoded) == 5 * BATCH
    assert f"{path.name} of attempt 1 is passed over" in capsys.readouterr().out
    assert sorted(other.name for other in second.iterdir()) == sorted(other.name for other in first.iterdir())
    assert torch.equal(load_file(second / path.name)["tokens"], tokens)


def test_shards_of_other_weights_or_another_split_do_not_count(
    tmp_path: Path, model: Tokenizer, images: Images, encoded: list[int]
) -> None:
    encode_split(model, images, "train", tmp_path / "1", [], StopAt())
    randomness.seed_modules(1, "tokenizer weights")
    other = Tokenizer(SPEC).eval()
    encoded.clear()
    found = tokens_of(encode_split(other, images, "train", tmp_path / "2", [tmp_path / "1"], StopAt()))
    assert sum(encoded) == IMAGES
    assert torch.equal(found, other.tokens_of(images.pixels)) and not torch.equal(found, model.tokens_of(images.pixels))
    encoded.clear()
    encode_split(model, images, "validation", tmp_path / "3", [tmp_path / "1"], StopAt())
    assert sum(encoded) == IMAGES


@pytest.mark.slow
def test_a_stopped_run_ends_as_interrupted_and_goes_on_with_what_is_encoded(
    tmp_path: Path, encoded: list[int], monkeypatch: pytest.MonkeyPatch, fashion_mnist: object
) -> None:
    original = run_images.load_images

    def fewer(data: object, split: str) -> Images:
        found = original(data, split)  # type: ignore[arg-type]
        count = 8 * BATCH if split == "train" else 2 * BATCH
        return Images(found.pixels[:count], found.labels[:count])

    monkeypatch.setattr(run_images, "load_images", fewer)
    # Features that are kept are those of all images of the specification.
    monkeypatch.setattr(run_reference, "MOST_KEPT", -1)
    cache = tmp_path / "cache"

    def attempt(number: int, earlier: tuple[int, ...], stop_at: str = "never") -> tuple[Recorder, list[Progress]]:
        (tmp_path / str(number)).mkdir()
        recorder, told = Recorder(SPEC.run_id, number), []
        workspace = Workspace(tmp_path / str(number), tuple(tmp_path / str(one) for one in earlier), None, cache)
        execute(SPEC, workspace, recorder, told.append, lambda: any(stop_at in p.detail for p in told), 1e9)
        return recorder, told

    whole, told = attempt(1, ())
    shares = [progress.done for progress in told if progress.phase == "tokens"]
    assert shares == sorted(shares) and shares[0] < shares[-1] < 1
    assert any(p.images_per_second for p in told if p.phase == "tokens")
    for number, place in ((2, " 750 of"), (3, " 2,250 of")):
        with pytest.raises(RunError, match="of 2,500 images encoded; these and a checkpoint are kept") as error:
            attempt(number, tuple(range(number - 1, 1, -1)), place)
        assert error.value.cause == "interrupted"
        assert list((tmp_path / str(number) / "encoded").iterdir())
    encoded.clear()
    resumed, told = attempt(4, (3, 2))
    # Of the second split one batch was left; the measurement of latents encodes once more.
    assert encoded == [BATCH, 500]
    assert resumed.rows == whole.rows
    tokens = [f"{running.TOKENS}/{path.name}" for path in (tmp_path / "1/artifacts" / running.TOKENS).iterdir()]
    facts = json.loads((tmp_path / "4/artifacts" / running.TOKENS / "tokens.json").read_text())
    assert facts["splits"]["train"]["images"] == 8 * BATCH
    whole_rows = [load_tokens(SPEC, tmp_path / f"{number}/artifacts")[0].tokens[:] for number in (1, 4)]
    assert torch.equal(*whole_rows) and tokens
    for name in (running.MODEL, running.PREVIEW):
        assert (tmp_path / "4/artifacts" / name).read_bytes() == (tmp_path / "1/artifacts" / name).read_bytes()


def test_a_generator_that_prepares_its_measurement_stops_too(tmp_path: Path, fashion_mnist: object) -> None:
    from scaling.data.run_images import RunImages
    from scaling.evaluation import fid
    from scaling.evaluation.networks import features
    from scaling.specification.spec import DataSpec

    asked = []

    def stop() -> None:
        asked.append(True)
        if len(asked) == 3:
            raise RunError("stopped before training", "interrupted")

    with pytest.raises(RunError):
        fid.reference_moments(RunImages(DataSpec()), "validation", features.load_network("fid"), tmp_path, stop)
    assert len(asked) == 3
    assert all(path.name.endswith(".lock") for path in tmp_path.iterdir())
