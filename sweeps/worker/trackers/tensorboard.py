"""TensorBoard's event files, written by its own package (extra `tensorboard`): a folder a run, in it one a branch."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from scaling.specification.spec import canonical_json
from sweeps.study.external_run import AnyRun

from .tracker import Point


class TensorBoard:
    """`tensorboard --logdir ROOT/tracking/tensorboard` shows curves, evaluations, pictures, and the specification as a
    text and as hyperparameters."""

    def __init__(self, folder: Path, run: AnyRun) -> None:
        self._folder = folder / "tensorboard" / f"{run.label}-{run.run_id}"
        self._run = run
        self._writers: dict[str, Any] = {}

    def _writer(self, branch: str) -> Any:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if branch not in self._writers:
            known = (self._folder / branch).is_dir()
            self._writers[branch] = EventFileWriter(str(self._folder / branch))
            if not known:
                self._describe(branch)
        return self._writers[branch]

    def _describe(self, branch: str) -> None:
        """The specification, once a branch."""
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.plugins.text.metadata import create_summary_metadata
        from tensorboard.util.tensor_util import make_tensor_proto

        from results.settings import flat

        spec = json.loads(canonical_json(self._run))
        # A column holds text, a number or a truth value.
        values = {
            name: value if isinstance(value, str | bool | int | float) else json.dumps(value)
            for name, value in flat(spec).items()
        }
        self._write(branch, 0, hparams_pb(values, trial_id=self._run.run_id))
        text = f"```json\n{json.dumps(spec, indent=1)}\n```"
        summary = _summary()
        summary.value.add(
            tag="specification",
            metadata=create_summary_metadata(display_name="specification", description=""),
            tensor=make_tensor_proto([text.encode()], shape=(1,)),
        )
        self._write(branch, 0, summary)

    def _write(self, branch: str, step: int, summary: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        writer = self._writer(branch)
        writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
        writer.flush()

    def point(self, point: Point) -> None:
        """See Tracker."""
        summary = _summary()
        for name, value in point.values.items():
            summary.value.add(tag=name, simple_value=value)
        self._write(point.branch, point.step, summary)

    def picture(self, branch: str, step: int, path: Path) -> None:
        """See Tracker."""
        from PIL import Image
        from tensorboard.compat.proto.summary_pb2 import Summary

        with Image.open(path) as picture:
            width, height = picture.size
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=path.read_bytes())
        summary = _summary()
        summary.value.add(tag="pictures", image=image)
        self._write(branch, step, summary)

    def close(self, result: str) -> None:
        """See Tracker."""
        for writer in self._writers.values():
            writer.close()


def _summary() -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary()
