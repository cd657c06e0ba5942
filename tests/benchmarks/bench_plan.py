"""Speed of `tokenlaw plan` on a study of 10,000 runs, the command's start included; how soon 10^9 runs are refused.

    python tests/benchmarks/bench_plan.py [TIMES=5]

Each time is that of a process of its own: wall seconds, and its CPU seconds (user and system), of which the least says
most on a busy machine. It fails if the least CPU time of the plan reaches 3 s, or if a heavy package was imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HEAVY = ("torch", "pandas", "scipy", "matplotlib", "numpy", "pyarrow")
LIMIT = 3.0
LARGE = f"""
[study]
name = "large"
[generator]
warmup_images = 1024
[seeds]
tokenizer = {list(range(10))}
[limits]
runs = 20000
[resources.generator]
gpus_per_node = 1
[[resources.generator.rules]]
where = {{ "generator.size" = ["XL", "212M"], "tokenizer.quantizer.codebook_size" = ">= 1024" }}
gpus_per_node = 8
[hardware]
profile = "a100-80gb"
[[grid]]
product = {{ "tokenizer.quantizer.codebook_size" = {[2**k for k in range(4, 14)]}, "generator.size" = [
  "XS", "S", "M", "L", "XL", "31M", "52M", "81M", "111M", "212M",
], "generator.train_images" = {[[4096 * k] for k in range(1, 11)]} }}
"""
ENDLESS = '[study]\nname = "endless"\n[[grid]]\nproduct = {{ {} }}\n'.format(
    ", ".join(f'"tokenizer.{name}" = {list(range(1, 1001))}' for name in ("batch_size", "threads", "train_images"))
)
CODE = f"""
import atexit, sys
sys.argv[0] = "tokenlaw"
from sweeps.cli.app import main
atexit.register(lambda: print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr))
main()
"""


def measure(arguments: list[str]) -> tuple[float, float, str, str]:
    """Wall and CPU seconds of one command, its standard output and error."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    begun, before = time.monotonic(), os.times()
    done = subprocess.run([sys.executable, "-c", CODE, *arguments], capture_output=True, text=True, env=environment)
    after = os.times()
    cpu = after.children_user - before.children_user + after.children_system - before.children_system
    return time.monotonic() - begun, cpu, done.stdout, done.stderr


def main() -> None:
    """Measure and print."""
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    least: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        large, endless = Path(folder) / "large.toml", Path(folder) / "endless.toml"
        large.write_text(LARGE)
        endless.write_text(ENDLESS)
        root = ["--root", str(Path(folder) / "root")]
        for name, arguments in {
            "plan smoke": ["plan", "smoke", *root],
            "plan 10,100 runs": ["plan", str(large), *root],
            "plan 10,100 runs --json": ["plan", str(large), *root, "--json"],
            "plan 10,100 runs --csv -": ["plan", str(large), *root, "--csv", "-"],
            "refuse 10^9 runs": ["plan", str(endless), *root],
        }.items():
            found = [measure(arguments) for _ in range(times)]
            least[name] = min(cpu for _, cpu, _, _ in found)
            print(f"{name:26} least CPU {least[name]:.2f} s, least wall {min(wall for wall, *_ in found):.2f} s")
            if not found[0][3].endswith("[]\n"):
                raise SystemExit(f"heavy packages: {found[0][3]}")
    if least["plan 10,100 runs"] >= LIMIT:
        raise SystemExit(f"the plan takes {least['plan 10,100 runs']:.2f} s of CPU; allowed: less than {LIMIT} s")


if __name__ == "__main__":
    main()
