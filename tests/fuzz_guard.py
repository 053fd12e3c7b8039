"""The guard's readers under a coverage-guided fuzzer: ``python -m tests.fuzz_guard --minutes 10``.

Atheris (libFuzzer for Python) is no part of the environment; it is put beside it::

    .venv/bin/python -m pip install --target .fuzz atheris==3.0.0
    PYTHONPATH=.fuzz .venv/bin/python -m tests.fuzz_guard --minutes 10

The minutes are shared by all targets, one after the other on one core; ``--target NAME`` takes only that one. What a
target finds is kept in ``.fuzz/found``, and its file can be given to ``--replay``. ``.fuzz/corpus`` grows from run to
run. Prints executions, edges and findings of each target; ends with 1 if there is a finding.
"""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".fuzz"
_INSTRUMENTED = ["caisson.guard", "caisson.reference", "hpack"]
_LONGEST_INPUT = 4_096
_SLOWEST_SECONDS = 20


def _load_targets(atheris: Any) -> Any:
    if atheris is None:
        return importlib.import_module("tests.fuzz_targets")
    with atheris.instrument_imports(include=_INSTRUMENTED, enable_loader_override=False):
        return importlib.import_module("tests.fuzz_targets")


def _fuzz(name: str, seconds: int) -> None:
    """Fuzz one target in this process, which libFuzzer ends."""
    atheris = importlib.import_module("atheris")
    targets = _load_targets(atheris)
    run, seeds = targets.TARGETS[name]
    corpus, found = WORK / "corpus" / name, WORK / "found"
    corpus.mkdir(parents=True, exist_ok=True)
    found.mkdir(exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = WORK / "words"
    words.write_text(
        "".join('"' + "".join(f"\\x{byte:02x}" for byte in word.encode()) + '"\n' for word in targets.WORDS)
    )
    options = {
        "max_total_time": seconds,
        "max_len": _LONGEST_INPUT,
        "timeout": _SLOWEST_SECONDS,
        "rss_limit_mb": 1_024,
        "print_final_stats": 1,
        "dict": words,
        "artifact_prefix": f"{found}/{name}-",
    }
    atheris.Setup([sys.argv[0], *(f"-{key}={value}" for key, value in options.items()), str(corpus)], run)
    atheris.Fuzz()


def _run(name: str, seconds: int) -> bool:
    """Fuzz one target in a process of its own; says what came of it, and whether it was all right."""
    command = [sys.executable, "-m", "tests.fuzz_guard", "--target", name, "--seconds", str(seconds)]
    start = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    executed = re.search(r"stat::number_of_executed_units: (\d+)", done.stdout)
    edges = re.findall(r"cov: (\d+) ft: (\d+)", done.stdout) or [("0", "0")]
    count = int(executed[1]) if executed else 0
    verdict = "nothing found" if done.returncode == 0 else "FOUND"
    print(
        f"{name:18} {time.monotonic() - start:5.0f} s {count:9} executions {edges[-1][0]:>6} edges "
        f"{edges[-1][1]:>6} features  {verdict}",
        flush=True,
    )
    if done.returncode:
        print(done.stdout[-4_000:])
    return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="of all targets together")
    parser.add_argument("--target", help="only this one")
    parser.add_argument("--seconds", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--replay", type=Path, help="give this file to --target, without atheris")
    asked = parser.parse_args()
    if asked.seconds is not None:
        _fuzz(asked.target, asked.seconds)
    if asked.replay is not None:
        _load_targets(None).TARGETS[asked.target][0](asked.replay.read_bytes())
        return 0
    names = [asked.target] if asked.target else [*_load_targets(None).TARGETS]
    seconds = max(1, round(asked.minutes * 60 / len(names)))
    found = [name for name in names if not _run(name, seconds)]
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
