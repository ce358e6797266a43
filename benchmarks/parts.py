"""A report in parts, each measured by a process of its own with its own limit, so that none is lost to another's failure.

Used by gpu.py. The report, as report.json and report.md, is written after each part, with the figures that a part had made when it failed
or its time was up.
"""

import json
import operator
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESERVED = 30  # seconds, for the last part, which only computes
LOG_LINES = 30  # of a part that failed, shown on the terminal
ERROR = re.compile(r"[\w.]*(Error|Exception)\b")  # begins the line of a traceback that says what went wrong
Row = dict[str, Any]
Found = Mapping[str, Sequence[Row]]  # by part
MEETS: dict[str, Callable[[float, float], bool]] = {"<": operator.lt, "<=": operator.le, ">=": operator.ge}
COLUMNS = ("", "median (least to greatest)", "n", "unit", "compared with", "ratio", "aim")
ALIGNED = ("---", "---:", "---:", "---", "---", "---:", "---")


@dataclass(frozen=True)
class Part:
    """A part of the report."""

    title: str
    limit: int  # seconds
    measure: Callable[[Namespace, Found], Iterator[Row]]  # from sizes and the parts before; its docstring goes into the report


def figure(what: str, values: Sequence[float], unit: str, *, beside: tuple[str, float | None] = ("", None), aim: str = "") -> Row:
    """A row of the report. `values`: of the rounds. `beside`: what it is compared with, in the same unit.

    `aim`: a limit on the ratio to it (`ratio >= 0.95`), or on the median (`< 2`).
    """
    median = statistics.median(values)
    row: Row = {"what": what, "unit": unit, "median": median, "least": min(values), "greatest": max(values), "n": len(values)}
    if beside[1]:
        row |= {"beside": beside[0], "beside_value": beside[1], "ratio": median / beside[1]}
    value = row.get("ratio") if aim.startswith("ratio") else median
    if aim and value is not None:
        sign, limit = aim.split()[-2:]
        row |= {"aim": aim, "met": MEETS[sign](value, float(limit))}
    return row


def note(what: str, text: str) -> Row:
    """A row that says why there is no figure."""
    return {"what": what, "note": text}


def known(found: Found, part: str, what: str) -> float | None:
    """The median of a figure of an earlier part, None if it is missing."""
    return next((row["median"] for row in found.get(part, []) if row["what"] == what and "median" in row), None)


def measure_all(parts: Mapping[str, Part], options: Namespace, command: Callable[[str, float, Path, Path], list[str]]) -> int:
    """Measure the parts of `options.parts` in turn, within `options.minutes`; return the exit code.

    `command`: the one that measures a part, from its name, seconds, the report so far and the file to append its rows to, as JSON.
    """
    about, end = machine(options.device), time.monotonic() + 60 * options.minutes
    folder = options.out / re.sub(r"[^a-z0-9]+", "-", about["card"].lower()).strip("-")
    report: Row = {"machine": about, "minutes": options.minutes, "parts": {}}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the part's process does not live on
    with tempfile.TemporaryDirectory() as scratch:
        for name, part in parts.items():
            if name not in options.parts:
                continue
            write(report, folder)
            seconds = min(part.limit, end - time.monotonic() - RESERVED * (name != list(parts)[-1]))
            print(f"{part.title}: at most {max(seconds, 0):.0f} s", flush=True)
            rows = Path(scratch) / name
            result: Row = {"state": "stopped", "error": "no time was left for it", "seconds": 0.0, "figures": []}
            if seconds > 0:
                result = run(command(name, seconds, folder / "report.json", rows), rows, seconds)
            report["parts"][name] = {"title": part.title, "about": part.measure.__doc__, "limit": part.limit, **result}
    write(report, folder)
    print(f"\n{markdown(report)}\n{folder / 'report.md'}")
    return int(any(part["state"] != "done" for part in report["parts"].values()))


def run(command: list[str], rows: Path, seconds: float) -> Row:
    """The state, error and figures of a part, which is killed with all that it started once `seconds` have passed."""
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": ":".join(paths), "NO_ALBUMENTATIONS_UPDATE": "1"}
    started, state, error = time.monotonic(), "done", ""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            state, error = "stopped", f"its {seconds:.0f} s were up"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if state == "done" and process.returncode:
            log.seek(0)
            lines = [line.rstrip() for line in log if line.strip()] or [f"exit code {process.returncode}"]
            print("\n".join(lines[-LOG_LINES:]), flush=True)
            last = next((line for line in reversed(lines) if ERROR.match(line)), lines[-1].strip())  # not a warning at exit
            state, error = "failed", f"killed by signal {-process.returncode}" if process.returncode < 0 else last
    complete = rows.read_text(encoding="utf-8").split("\n")[:-1] if rows.exists() else []  # a killed part may leave half a line
    return {"state": state, "error": error, "seconds": time.monotonic() - started, "figures": [json.loads(line) for line in complete]}


def machine(device: str) -> Row:
    """Card, driver and versions."""
    import torch

    about: Row = {"card": "cpu"}
    if device == "cuda":
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            driver = subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.split("\n")[0].strip()
        except (OSError, subprocess.TimeoutExpired):
            driver = ""
        memory = torch.cuda.get_device_properties(0).total_memory / 1e9
        about = {"card": torch.cuda.get_device_name(), "memory": f"{memory:.1f} GB", "driver": driver or "unknown"}
        about |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    about |= {"torch": str(torch.__version__), "python": ".".join(map(str, sys.version_info[:3]))}
    return about | {"cores": len(os.sched_getaffinity(0)), "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}


def write(report: Row, folder: Path) -> None:
    """Write both files, each at once."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("report.json", json.dumps(report, ensure_ascii=False, indent=1) + "\n"), ("report.md", markdown(report))):
        aside = folder / f".{name}.part"
        aside.write_text(text, encoding="utf-8")
        aside.replace(folder / name)


def markdown(report: Row) -> str:
    """The report to read."""
    about = dict(report["machine"])
    lines = [f"# {about.pop('card')}", "", ", ".join(f"{name} {value}" for name, value in about.items()) + ".", ""]
    lines += [f"- **{part['title']}: {part['state']}**: {part['error']}" for part in report["parts"].values() if part["state"] != "done"]
    for part in report["parts"].values():
        lines += ["", f"## {part['title']}", "", f"{part['about']} {part['state'].capitalize()} after {part['seconds']:.0f} s.", ""]
        if rows := [_cells(row) for row in part["figures"] if "median" in row]:
            lines += [f"| {' | '.join(cells)} |" for cells in (COLUMNS, ALIGNED, *rows)]
        lines += [f"\n{row['what']}: {row['note']}." for row in part["figures"] if "note" in row]
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> tuple[str, ...]:
    spread = f" ({_shown(row['least'])} to {_shown(row['greatest'])})" if row["n"] > 1 else ""
    beside = (f"{row['beside']}: {_shown(row['beside_value'])}", _shown(row["ratio"])) if "beside" in row else ("", "")
    aim = f"{row['aim']}: {'met' if row['met'] else 'missed'}" if "aim" in row else ""
    return row["what"], f"{_shown(row['median'])}{spread}", str(row["n"]), row["unit"], *beside, aim


def _shown(number: float) -> str:
    """Three significant digits."""
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"
