"""Checks of the machine and the Python environment: packages, commands on PATH, torch, GPU and driver, disk space."""

import os
import platform
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from regcls.checks import Found, Place, bad, good, nearest, note
from regcls.tracking.store import database_of, project_root, store_uri

LEAST_FREE = 2e9  # bytes: a run on faces writes checkpoints and predictions of some hundred megabytes
SMI_WAIT = 10.0  # seconds for nvidia-smi, which loads the driver where nothing else has
NEW_TORCH = "pip install --force-reinstall torch=={version} from PyPI, whose Linux build has CUDA (no CPU index in pip's configuration)"


def python(place: Place) -> Found:
    """The interpreter, and whether its packages are those that the project is tested with."""
    here = f"{platform.python_version()} in {sys.prefix}"
    lock = place.root / "requirements.lock"
    if not lock.exists():
        return note(f"{here}; there is no requirements.lock to compare packages with", "git checkout requirements.lock")
    locked = dict(re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==([^\s;]+)", lock.read_text(encoding="utf-8"), flags=re.MULTILINE))
    installed = {name: _version(name) for name in locked}
    missing = [name for name, version in installed.items() if version is None]
    other = [f"{name} {installed[name]} (locked: {locked[name]})" for name in locked if installed[name] not in (None, locked[name])]
    if missing or other:
        said = "; ".join(
            f"{len(names)} {what}: {', '.join(names[:4])}{' …' if len(names) > 4 else ''}"
            for names, what in ((missing, "packages of requirements.lock missing"), (other, "of another version"))
            if names
        )
        return note(f"{here}; {said}", "pip install -r requirements.lock (make venv)")
    return good(f"{here}; all {len(locked)} packages as in requirements.lock")


def _version(package: str) -> str | None:
    """Without a build tag, as in 2.13.0+cpu; None if it is not installed."""
    try:
        return metadata.version(package).partition("+")[0]
    except metadata.PackageNotFoundError:
        return None


def commands(place: Place) -> Found:
    """Whether what the stages and `mlflow run` start by name is of this environment."""
    here = Path(sys.executable).parent
    found = {name: shutil.which(name) for name in ("python", "regcls", "dvc", "mlflow")}
    if missing := [name for name, path in found.items() if path is None]:
        return note(f"not on PATH: {', '.join(missing)}; dvc repro starts `python -m regcls`", f"source {here}/activate")
    if foreign := [path for path in found.values() if path and Path(path).parent != here]:
        return note(f"of another environment than {here}: {', '.join(foreign)}; dvc repro would run with that", f"source {here}/activate")
    return good(f"{', '.join(found)} are those of {here}")


def torch(place: Place) -> Found:
    """Whether PyTorch can be imported, and its build."""
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "ROCm" if torch.version.hip else "CPU only"
    return good(f"{torch.__version__}, built for {build}; {torch.get_num_threads()} threads")


def gpu(place: Place) -> Found:
    """Whether PyTorch computes on the GPU that the driver shows; none at all is no fault, unless compute.device asks for it."""
    import torch

    try:
        seen = _seen_by_driver()
    except (OSError, subprocess.SubprocessError) as error:  # installed, but it fails or hangs
        return bad(f"nvidia-smi fails: {error}", "reinstall the NVIDIA driver, or restart the machine")
    if torch.cuda.is_available():
        return _try_gpu()
    if seen and not torch.version.cuda:
        version = torch.__version__.partition("+")[0]
        return bad(
            f"{seen}, but PyTorch {torch.__version__} is built without CUDA: training uses the CPU", NEW_TORCH.format(version=version)
        )
    if seen:
        return bad(
            f"{seen}, but PyTorch, built for CUDA {torch.version.cuda}, cannot use it",
            f"install a driver for CUDA {torch.version.cuda} or newer; see CUDA_VISIBLE_DEVICES; in Docker: docker run --gpus all",
        )
    if place.params and place.params.compute.device == "cuda":
        return bad("none is seen, and compute.device = cuda in params.yaml", "set compute.device to auto; in Docker: docker run --gpus all")
    return note(f"none: training uses the CPU ({os.cpu_count()} cores)", "in Docker on a machine with one: docker run --gpus all")


def _seen_by_driver() -> str:
    """Name and driver of the GPUs, as nvidia-smi gives them; empty without it or without one.

    Raises:
        OSError, SubprocessError: it is there, but fails or hangs.
    """
    if not (program := shutil.which("nvidia-smi")):
        return ""
    command = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SMI_WAIT, check=False)
    if done.returncode:
        raise subprocess.SubprocessError(" ".join((done.stdout + done.stderr).split())[:200])
    rows = [line.rpartition(", ") for line in done.stdout.strip().splitlines()]
    return f"{', '.join(name for name, _, _ in rows)} (driver {rows[0][2]})" if rows else ""


def _try_gpu() -> Found:
    import torch

    device = torch.cuda.get_device_properties(0)
    said = (
        f"{torch.cuda.device_count()} × {device.name}, {device.total_memory / 1e9:.0f} GB, compute capability {device.major}.{device.minor}"
    )
    try:
        ones = torch.ones(64, 64, device="cuda")
        right = float((ones @ ones)[0, 0]) == 64
    except RuntimeError as error:
        return bad(f"{said}, but computing on it fails: {' '.join(str(error).split())[:200]}", "install a PyTorch built for this GPU")
    if not right:
        return bad(f"{said}, but it computes wrongly", "test the GPU's memory; train elsewhere")
    return good(said if torch.cuda.is_bf16_supported() else f"{said}; no bf16: set precision to float32")


def disk(place: Place) -> Found:
    """Free space where data, checkpoints, undelivered runs and artifacts go, and whether these places can be written."""
    home = project_root(place.root)
    places = {"project": home, ".regcls": home / ".regcls"}
    if database := database_of(store_uri(home)):
        places["artifacts"] = database.parent / "mlartifacts"
    existing = {name: nearest(path) for name, path in places.items()}
    if closed := [str(path) for path in existing.values() if not os.access(path, os.W_OK)]:
        return bad(f"cannot write {', '.join(dict.fromkeys(closed))}", "make it writable: see its owner with ls -ld")
    disks: dict[int, list[str]] = {}
    for name, path in existing.items():
        disks.setdefault(path.stat().st_dev, []).append(name)
    free = {", ".join(names): shutil.disk_usage(existing[names[0]]).free for names in disks.values()}
    said = "; ".join(f"{size / 1e9:.1f} GB free ({names})" for names, size in free.items())
    if min(free.values()) < LEAST_FREE:
        return bad(
            f"{said}; a run needs about {LEAST_FREE / 1e9:.0f}", "free some space: old folders in .regcls/checkpoints, dvc gc --workspace"
        )
    return good(said)
