"""The specification of pictures: what identifies a run, and what a study may write."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from results.errors import SpecError
from scaling.specification.pictures import PicturesLocation, PicturesSpec, PicturesView, read_table
from scaling.specification.spec import canonical_json

DIGEST = "0123456789abcdef" * 4


def test_where_pictures_lie_is_no_part_of_what_they_are() -> None:
    spec = PicturesSpec(fingerprint=DIGEST, classes=3, train_images=90, validation_images=10, image_size=64)
    assert canonical_json(spec) == (
        '{"channels":3,"classes":3,"crop":"center","fingerprint":"' + DIGEST + '","flip":false,"image_size":64,'
        '"kind":"pictures","train_images":90,"validation_images":10}'
    )
    assert not set(PicturesLocation.model_fields) & set(PicturesSpec.model_fields)
    assert PicturesSpec.model_validate_json(canonical_json(spec)) == spec


@pytest.mark.parametrize("digest", ["", DIGEST[:-1], DIGEST + "0", DIGEST.upper(), DIGEST + "\n"])
def test_fingerprints_are_whole(digest: str) -> None:
    with pytest.raises(ValidationError):
        PicturesSpec(fingerprint=digest, classes=3, train_images=90, validation_images=10)


def test_a_table_is_location_and_view() -> None:
    location, view = read_table(
        {"source": "shards", "path": "~/x", "image_size": 64, "on_small": "skip", "crop": "ten"}
    )
    assert location == PicturesLocation(source="shards", path="~/x", on_small="skip")
    assert view == PicturesView(image_size=64, crop="ten")
    assert location.folder.is_absolute() and "~" not in str(location.folder)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"source": "tar"}, "data.source = 'tar': Input should be 'folder', 'shards', 'parquet', 'huggingface' or"),
        ({"path": ""}, "data.path = ''"),
        ({"path": "a\0b"}, "holds a zero byte; allowed: the path of a folder or file"),
        ({"crop": "left"}, "data.crop = 'left': Input should be 'center', 'random' or 'ten'"),
        ({"channels": 4}, "data.channels = 4"),
        ({"image_size": 0}, "data.image_size = 0"),
        ({"image_size": 5000}, "data.image_size = 5000"),
        ({"validation_fraction": 1.0}, "data.validation_fraction = 1.0"),
        ({"colour": True}, "data.colour is not a field of pictures; allowed: source, path, "),
    ],
)
def test_refusals_name_field_value_and_what_is_allowed(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(SpecError) as raised:
        read_table({"source": "folder", "path": "/x"} | fields)
    assert reason in str(raised.value) and "\n" not in str(raised.value)


def test_source_and_path_are_needed() -> None:
    with pytest.raises(
        SpecError, match=r"data\.path is missing; pictures of one's own need data\.source and data\.path"
    ):
        read_table({"source": "folder"})
