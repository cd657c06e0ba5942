"""A trainer of one's own in plain Python, for tests: steps with rows and checkpoints, and an ending on demand.

scripted_trainer.py [NAME=VALUE ...]    steps=6 seconds=0.02 ending=done at=3 (the step at which it happens)
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

options = {"steps": "6", "seconds": "0.02", "ending": "done", "at": "3", "first": "", "saves": "checkpoints"}
options |= dict(word.split("=", 1) for word in sys.argv[1:])
steps, at = int(options["steps"]), int(options["at"])
ending = options["first"] if options["first"] and os.environ["TOKENLAW_ATTEMPT"] == "1" else options["ending"]
stopping = []
if options.get("handles"):
    signal.signal(getattr(signal, options["handles"]), lambda *_: stopping.append(1))
if options.get("ignores"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

rows = open(os.environ["TOKENLAW_ROWS"], "a")  # noqa: SIM115, PTH123 - kept open, as a trainer would
folder = Path(os.environ["TOKENLAW_CHECKPOINTS"])


def tell(**line):
    rows.write(json.dumps(line) + "\n")
    rows.flush()


begin = 0
if os.environ["TOKENLAW_EARLIER"]:
    saved = Path(os.environ["TOKENLAW_EARLIER"]) / "checkpoints" / "step.txt"
    if saved.exists():
        begin = int(saved.read_text())
        tell(resume=begin)
print(f"beginning after step {begin} in {Path.cwd()}, pid {os.getpid()}", flush=True)
for step in range(begin + 1, steps + 1):
    time.sleep(float(options["seconds"]))
    tell(step=step, images=64 * step, loss=1 / step)
    tell(progress=step / steps, images_per_second=64 / float(options["seconds"]), phase="train")
    if step % 2 == 0 or stopping:
        part = folder / f"step-{os.getpid()}.tmp"  # each rank its own
        part.write_text(str(step))
        part.replace(folder / "step.txt")
    if stopping:
        print("saved", flush=True)
        if options.get("finishes"):
            break
        sys.exit(0)
    if step == at and ending == "exit":
        print("the wheel came off", file=sys.stderr)
        sys.exit(3)
    if step == at and ending == "memory":
        print("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB")
        sys.exit(1)
    if step == at and ending == "diverged":
        tell(status="diverged", message="loss is nan at step 3")
        sys.exit(1)
    if step == at and ending == "bad":
        tell(metric="gFID", value=3.0, step=step, n=10)
        time.sleep(60)
    if step == at and ending == "cut":
        rows.write('{"step": 4, "los')
        rows.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    if step == at and ending == "again":
        sys.exit(75)
if ending != "silent":
    tell(metric="gfid", value=2.5, step=steps, images=64 * steps, n=100, guidance=1.0, protocol={"extractor": "toy"})
else:
    Path(os.environ["TOKENLAW_ROWS"]).write_text("")
tell(facts={"parameters_other": 77, "flops_per_image": 10.0})
if options.get("finishes"):
    tell(status="done")
(Path(os.environ["TOKENLAW_OUT"]) / "model.txt").write_text(os.environ["TOKENLAW_RUN_ID"])
