"""Best hit per region and motif: lightmotif (as `prepare` uses it) against a torch convolution, side by side.

Run: python benchmarks/motif_scan.py [regions]. Both give the same bytes, which is checked. Prints JSON: million
(position, motif) pairs per second and the ratio, the median of five alternating runs, each on one thread.
"""

import json
import statistics
import sys
import time

import numpy as np
import torch
from numpy.typing import NDArray

from genebert.inputs.motifs import Scanner, evidence_table, read_motifs

WIDTH = 512
RUNS = 5


def scan_with_torch(scanner: Scanner, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return what `Scanner.scan` returns: uint8, shape (n, motifs); codes without N."""
    onehot = torch.nn.functional.one_hot(torch.from_numpy(codes.astype(np.int64)), 4).transpose(1, 2).float()
    evidence = np.zeros((len(codes), len(scanner.motifs)), dtype=np.uint8)
    by_width: dict[int, list[int]] = {}
    for i, motif in enumerate(scanner.motifs):
        by_width.setdefault(motif.width, []).append(i)
    for members in by_width.values():
        forward = torch.tensor(np.stack([scanner.scores[i].T for i in members]), dtype=torch.float32)
        hits = torch.nn.functional.conv1d(onehot, torch.cat([forward, forward.flip(1, 2)])).amax(dim=2)
        best = torch.maximum(*hits.chunk(2, dim=1)).numpy().astype(np.int64)
        for column, i in enumerate(members):
            lowest = int(scanner.scores[i].min(axis=1).sum())
            evidence[:, i] = evidence_table(scanner.scores[i])[best[:, column] - lowest]
    return evidence


def main() -> None:
    torch.set_num_threads(1)
    regions = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    scanner = Scanner(read_motifs("jaspar:vertebrates"))
    codes = np.random.default_rng(0).integers(0, 4, size=(regions, WIDTH), dtype=np.uint8)
    assert (scanner.scan(codes) == scan_with_torch(scanner, codes)).all()
    seconds: dict[str, list[float]] = {"lightmotif": [], "torch": []}
    for _ in range(RUNS):
        for name, scan in (("lightmotif", scanner.scan), ("torch", lambda c: scan_with_torch(scanner, c))):
            began = time.perf_counter()
            scan(codes)
            seconds[name].append(time.perf_counter() - began)
    work = regions * WIDTH * len(scanner.motifs) / 1e6
    speed = {name: work / statistics.median(times) for name, times in seconds.items()}
    ratio = statistics.median(b / a for a, b in zip(seconds["lightmotif"], seconds["torch"], strict=True))
    facts = {"regions": regions, "width": WIDTH, "motifs": len(scanner.motifs), "threads": 1}
    print(json.dumps({**facts, "million_per_second": speed, "lightmotif_over_torch": ratio}, indent=2))


if __name__ == "__main__":
    main()
