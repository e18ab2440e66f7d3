"""How well duplicates are told from look-alikes, and how long many images take.

Photographs are copied in eight ways, as people copy them; their class-mates, and a next shot of each, must not be called the same
picture. caltech101 holds photographs twice itself: those that somebody has looked at stand in `same_photographs.txt` and count
neither way; any other pair that is not of one photograph's copies counts as an error.

`python -m benchmarks.duplicates TASK.json` finds the duplicates among crops in a process of its own.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from itertools import combinations, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from benchmarks.large import QUERIES, crops_of, file_of
from benchmarks.large import Task as Crops
from benchmarks.table import Figure
from config import ROOT, Settings
from images import make_thumbnail
from publishing import publish
from store import Batch, Record, VectorsManifest, open_store, open_writer
from views.duplicates import Duplicates, compare_images, open_duplicates

if TYPE_CHECKING:
    from benchmarks.parts import Bench

BACKBONE = "efficientnet_lite0"
SAME_PHOTOGRAPHS = Path(__file__).with_name("same_photographs.txt")
TURNS = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
FIRST = datetime(2020, 1, 1)
CROPS = 25_000
"""Of the crops so many: each is the same picture as four others, which no collection is like."""
APART_S, NEXT_S, MATE_S = 1_000, 2, 3


def _cut(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = image.size
    return image.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))


COPIES: Mapping[str, Callable[[Image.Image, int], Image.Image]] = {
    "compressed to quality 25.jpg": lambda image, number: image,
    "half size.png": lambda image, number: image.resize(
        (image.width // 2, image.height // 2), Image.Resampling.LANCZOS
    ),
    "grey.webp": lambda image, number: image.convert("L"),
    "10 % off each side.jpg": lambda image, number: _cut(image, 0.1, 0.1, 0.9, 0.9),
    "15 % off two sides.jpg": lambda image, number: _cut(image, 0, 0.15, 0.85, 1),
    "turned.jpg": lambda image, number: image.transpose(TURNS[number % 3]),
    "mirrored.jpg": lambda image, number: ImageOps.mirror(image),
    "25 % brighter.jpg": lambda image, number: ImageEnhance.Brightness(image).enhance(1.25),
}
QUALITY = {"compressed to quality 25.jpg": 25}
ORIGINAL, SHOTS, MATE = "original.jpg", ("next shot.jpg", "next shot without a time.jpg"), "class-mate "


def measure_duplicates(bench: Bench) -> Iterator[Figure]:
    """Precision and recall of copies among class-mates and next shots; then the time of many images."""
    made = bench.folder / "duplicates"
    files = make_files(bench.photographs[: bench.plan.memory_images[1]], bench.plan.copies, made)
    of_files = replace(bench, photographs=files)
    run = of_files.job(BACKBONE, len(files), "auto")
    command = [sys.executable, str(ROOT / "duplicates.py"), "--json", "--rsc-files", str(run.collection)]
    finished = bench.run(command)
    with closing(open_store(run.collection)) as store:
        generation = store.generation()
        if generation is None:
            raise ValueError("the job published nothing")
        found = open_duplicates(store, generation)
        paths = {record.image_id: Path(record.path.decode()) for record in store.all_records()}
    yield from _figures(judge(found, paths, made, bench.photographs), bench.plan.copies)
    yield Figure("duplicates", f"finding them among {len(files):,} images, from start to end", finished.wall_s, "s")
    yield Figure("duplicates", "its most memory", finished.peak_mb, "MB")
    shutil.rmtree(run.collection)
    shutil.rmtree(made)
    yield from _large(bench)


def make_files(photographs: Sequence[Path], count: int, folder: Path) -> list[Path]:
    """Write what is made of the first `count` photographs, each into a folder of its own; return all files to be indexed.

    That is the photograph with a time, its eight copies without one, its next shot two seconds later (turned by 2 to 3°, moved,
    with noise), another without a time and turned the other way, and a class-mate three seconds later. The others stay as they
    are.
    """
    others = list(photographs[count:])
    for number, path in enumerate(photographs[:count]):
        own, taken = folder / f"{number:03}", FIRST + timedelta(seconds=APART_S * number)
        own.mkdir(parents=True)
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        (own / ORIGINAL).write_bytes(with_time(path.read_bytes(), taken))
        for name, copy in COPIES.items():
            copy(image, number).save(own / name, quality=QUALITY.get(name, 80))
        for name, sign in zip(SHOTS, (1, -1), strict=True):
            next_shot(image, number, sign).save(own / name, quality=85)
        (own / SHOTS[0]).write_bytes(with_time((own / SHOTS[0]).read_bytes(), taken + timedelta(seconds=NEXT_S)))
        mate = next((other for other in others if other.parent == path.parent), None)
        if mate is not None:
            others.remove(mate)
            (own / f"{MATE}{mate.name}").write_bytes(with_time(mate.read_bytes(), taken + timedelta(seconds=MATE_S)))
    return sorted(folder.rglob("*.*")) + others


def with_time(jpeg: bytes, taken: datetime) -> bytes:
    """Return a JPEG with a time taken, its pixels as they were."""
    exif = Image.Exif()
    exif.get_ifd(0x8769)[36867] = taken.strftime("%Y:%m:%d %H:%M:%S")
    segment = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
    return jpeg[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + jpeg[2:]


def next_shot(image: Image.Image, number: int, sign: int) -> Image.Image:
    """Return what the camera might see next: turned by 2 to 3°, moved by up to 2 %, with other noise."""
    chance = np.random.default_rng(2 * number + (sign > 0))
    turned = image.rotate(sign * chance.uniform(2, 3), Image.Resampling.BICUBIC)
    right, down = chance.uniform(-0.02, 0.02, 2)
    cut = _cut(turned, 0.05 + right, 0.05 + down, 0.95 + right, 0.95 + down)
    noisy = np.asarray(cut, dtype=np.float32) + chance.normal(0, 6, (cut.height, cut.width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


@dataclass(frozen=True)
class Judged:
    """What was found, held against what was made.

    Pairs of tiers 1 and 2: `found` of the `true` ones there are, `wrong` ones by what they are of, and `known` ones of
    photographs that are in caltech101 twice. `recalls`: the share 0…1 of each kind of copy that was found with its original.
    `later`: the tiers of originals with what was taken seconds later.
    """

    found: int
    true: int
    wrong: Counter[str]
    known: int
    recalls: Mapping[str, float]
    later: Mapping[str, Counter[str]]


def judge(duplicates: Duplicates, paths: Mapping[int, Path], folder: Path, photographs: Sequence[Path]) -> Judged:
    """Hold what was found against what was made in `folder` of `photographs`; `paths` are those of all images."""
    made: dict[str, dict[str, int]] = {}
    for image_id, path in paths.items():
        if path.is_relative_to(folder):
            name = MATE if path.name.startswith(MATE) else path.name
            made.setdefault(path.parent.name, {})[name] = image_id
    copies = [sorted(own[name] for name in (ORIGINAL, *COPIES)) for own in made.values()]
    true = {pair for own in copies for pair in combinations(own, 2)}
    tiers = {(pair.image_a, pair.image_b): pair.tier for pair in duplicates.pairs}
    told = {ids for ids, tier in tiers.items() if tier in ("identical", "same")}
    wrong: Counter[str] = Counter()
    known = 0
    for ids in told - true:
        of = {_photograph(paths[image_id], folder, photographs) for image_id in ids}
        shots = sorted({paths[image_id].stem for image_id in ids} & {Path(name).stem for name in SHOTS})
        if len(of) == 2 and not shots and any(of <= group for group in same_photographs()):
            known += 1
        else:
            wrong[", ".join(sorted(of) + shots)] += 1

    def tier(own: Mapping[str, int], name: str) -> str:
        return tiers.get((min(own[ORIGINAL], own[name]), max(own[ORIGINAL], own[name])), "none")

    recalls = {name: float(np.mean([tier(own, name) == "same" for own in made.values()])) for name in COPIES}
    later = {name: Counter(tier(own, name) for own in made.values() if name in own) for name in (*SHOTS, MATE)}
    return Judged(len(told & true), len(true), wrong, known, recalls, later)


def same_photographs() -> list[frozenset[str]]:
    """Return the photographs of caltech101 that are there more than once: looked at by a person, a line a set."""
    lines = SAME_PHOTOGRAPHS.read_text(encoding="utf-8").splitlines()
    return [frozenset(line.split()) for line in lines if line and not line.startswith("#")]


def _photograph(path: Path, folder: Path, photographs: Sequence[Path]) -> str:
    """Return class and name of the photograph that a file is, or was made of."""
    if not path.is_relative_to(folder):
        return f"{path.parent.name}/{path.name}"
    of = photographs[int(path.parent.name)]
    return f"{of.parent.name}/{path.name.removeprefix(MATE) if path.name.startswith(MATE) else of.name}"


def _figures(judged: Judged, count: int) -> Iterator[Figure]:
    errors = sum(judged.wrong.values())
    title = f"{count} photographs, 8 copies of each"
    precision = judged.found / max(judged.found + errors, 1)
    yield Figure("duplicates", f"{title}: precision of tiers 1 and 2", precision, "", 0.99)
    yield Figure("duplicates", f"{title}: recall of their pairs", judged.found / max(judged.true, 1), "", 0.95)
    for name, recall in judged.recalls.items():
        yield Figure("duplicates", f"found with its original: {Path(name).stem}", recall, "")
    for name, tiers in judged.later.items():
        title = f"{Path(name.strip()).stem}, of {tiers.total()}"
        yield Figure(
            "duplicates", f"{title}: called the same picture", tiers["same"] + tiers["identical"], "", at_most=0
        )
        yield Figure("duplicates", f"{title}: called a burst", tiers["burst"], "")
    yield Figure("duplicates", "pairs of photographs that are twice in the collection itself", judged.known, "")
    for name, number in judged.wrong.most_common(10):
        yield Figure("duplicates", f"WRONG: {name}", number, "pairs")


# Many images.


def _large(bench: Bench) -> Iterator[Figure]:
    """Find the duplicates among crops of photographs, of which every one overlaps twenty others."""
    crops = bench.results / "crops"
    task = Crops("vectors", str(crops), bench.plan.large, tuple(map(str, bench.photographs)))
    if not file_of(task).exists():
        return
    file = bench.folder / "duplicates.json"
    file.write_text(
        json.dumps({**asdict(task), "folder": str(bench.folder), "vectors": str(file_of(task))}), encoding="utf-8"
    )
    finished = bench.run([sys.executable, "-m", "benchmarks.duplicates", str(file)])
    found = json.loads(finished.output.splitlines()[-1])
    title = f"{found['images']:,} crops"
    for step, seconds in found["seconds"].items():
        yield Figure("duplicates", f"{title}: {step[0].lower()}{step[1:]}", seconds, "s")
    yield Figure("duplicates", f"{title}: all of it", sum(found["seconds"].values()) / 60, "min")
    yield Figure("duplicates", f"{title}: pairs of the same picture", found["pairs"]["same"], "")
    yield Figure("duplicates", f"{title}: most memory", finished.peak_mb, "MB")


def find_among_crops(task: Crops) -> dict[str, Any]:
    """Make a collection of the first crops with their thumbnails, find its duplicates, and return the seconds of each step."""
    folder, count = Path(task.folder) / "crops-collection", min(CROPS, task.count)
    matrix = np.memmap(file_of(task), dtype="<f2", mode="r").reshape(task.count + QUERIES, -1)
    manifest = VectorsManifest(
        "imported-vectors-000000000000", "imported", "vectors", "0" * 64, matrix.shape[1], "none"
    )
    with open_writer(folder, command="benchmark") as writer:
        writer.begin_vectors(manifest)
        batch = Batch()
        for number, crop in enumerate(islice(crops_of(task), count)):
            sha256 = number.to_bytes(32, "big")
            batch.records.append(Record(f"crop-{number}".encode(), 0, 0, sha256, "JPEG", *crop.size))
            batch.vectors[sha256] = matrix[number].astype(np.float32)
            batch.thumbnails[sha256] = make_thumbnail(crop, 256)
            if len(batch) == 2_000 or number == count - 1:
                writer.commit(manifest.key, batch)
                batch = Batch()
        publish(writer, manifest.key, Settings(rsc_files=folder, index="exact"))
        generation = writer.generation()
        if generation is None:
            raise ValueError("nothing was published")
        steps: dict[str, float] = {}
        started = time.perf_counter()

        def note(step: str, done: int, total: int) -> None:
            nonlocal started
            now = time.perf_counter()
            steps[step] = steps.get(step, 0.0) + now - started
            started = now

        found = compare_images(writer, generation, on_progress=note)
    shutil.rmtree(folder)
    return {"seconds": steps, **found.report}


if __name__ == "__main__":
    print(json.dumps(find_among_crops(Crops(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))))
