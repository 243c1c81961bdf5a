"""What embedding costs. Prints JSON.

    OMP_NUM_THREADS=1 python benchmarks/embedding.py --preset small --regions 64
    python benchmarks/embedding.py --preset small --regions 2048 --batch 256 --device cuda

An untrained network of a preset reads random regions: what it costs does not depend on what it has learned. Processor
seconds are measured, on as many threads as are used, so that others on the machine hardly disturb, or the seconds of a
GPU; the rest is arithmetic, and said to be: 100,000 regions, each accessible in so many cell types, on two cores that
are free and share the work without loss, or on one GPU. FLOPs are counted, those of attention by hand (torch counts
none for its fused kernels).
"""

import time
from collections.abc import Callable

import click
import numpy as np
import torch
from common import finish
from torch.utils.flop_counter import FlopCounterMode

from genebert.model.config import GeneBertConfig
from genebert.model.genebert import GeneBertModel
from genebert.region_matrix import RegionMatrix
from genebert.settings import load_preset
from genebert.tokens import sequence_tokens

CORPUS = 100_000
MINUTES = 10
UNIT = {"cpu": "core second", "cuda": "GPU second"}
SHARED_BY = {"cpu": ("2 free cores", 2), "cuda": ("1 GPU", 1)}
Forward = Callable[[], object]


@click.command()
@click.option("--preset", default="small")
@click.option("--width", default=512, help="of a region, in bp")
@click.option("--motifs", default=879, help="JASPAR 2026 CORE of vertebrates has 879")
@click.option("--regions", default=64, help="how many to measure")
@click.option("--batch", "rows", default=32, help="regions at a time")
@click.option("--cell-types", default=3.0, help="in which a region is accessible, on average")
@click.option("--precision", default="fp32", type=click.Choice(["fp32", "bf16"]))
@click.option("--device", default="cpu", type=click.Choice(["cpu", "cuda"]))
def main(
    preset: str, width: int, motifs: int, regions: int, rows: int, cell_types: float, precision: str, device: str
) -> None:
    """Measure both encoders, and scale."""
    network = untrained(preset, width, motifs).to(device)
    config = network.config
    ids, segments = (torch.from_numpy(one).to(device) for one in sequence_tokens(random_codes(rows, width), config.k))
    matrix = random_matrix(rows, config.region_columns, motifs).to(torch.device(device))
    attention = 4 * ids.shape[1] ** 2 * config.hidden_size * config.layers / 1e9
    costs = {
        "sequence": cost(lambda: network(input_ids=ids, segment_ids=segments), rows, regions, device, precision),
        "region matrix": cost(lambda: network(matrix=matrix), rows, regions, device, precision),
    }
    costs["sequence"]["GFLOP"] = round(costs["sequence"]["GFLOP"] + attention, 2)
    unit, (where, units) = UNIT[device], SHARED_BY[device]
    for one in costs.values():
        one[f"GFLOP per {unit}"] = round(one["GFLOP"] / one[f"{unit}s"], 1)
    seconds = costs["sequence"][f"{unit}s"] + cell_types * costs["region matrix"][f"{unit}s"]
    finish(
        {
            "preset": preset,
            "precision": precision,
            "batch": rows,
            "measured": costs,
            "scaled": {
                "cell types per region": cell_types,
                f"{unit}s per 1,000 regions": round(1000 * seconds, 1),
                f"minutes for {CORPUS:,} regions on {where}": round(CORPUS * seconds / units / 60, 1),
                f"regions in {MINUTES} minutes on {where}": int(MINUTES * 60 * units / seconds),
            },
        }
    )


def untrained(preset: str, width: int, motifs: int) -> GeneBertModel:
    torch.manual_seed(0)
    sizes = load_preset(preset).model.model_dump()
    return GeneBertModel(GeneBertConfig(**sizes, motifs=motifs, max_tokens=width + 5)).eval()


def random_codes(rows: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4, size=(rows, width), dtype=np.uint8)


def random_matrix(rows: int, columns: int, motifs: int) -> RegionMatrix:
    generator = torch.Generator().manual_seed(0)
    evidence = torch.randint(0, 255, (rows, columns, motifs), generator=generator, dtype=torch.uint8)
    own = torch.zeros(rows, columns, dtype=torch.bool)
    own[:, columns // 2] = True
    return RegionMatrix(evidence, torch.rand(rows, columns, generator=generator), own, torch.ones_like(own))


def cost(forward: Forward, rows: int, regions: int, device: str, precision: str) -> dict[str, float]:
    """Measure batches of so many rows: the least time, since what others do only adds to it."""
    taken = []
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
        with FlopCounterMode(display=False) as counter:
            forward()
        for _ in range(max(1, regions // rows)):
            began = now(device)
            forward()
            taken.append(now(device) - began)
    return {
        f"{UNIT[device]}s": round(min(taken) / rows, 7),
        "GFLOP": round(counter.get_total_flops() / rows / 1e9, 2),
    }


def now(device: str) -> float:
    """Return the seconds that this process has worked, or the time at which a GPU has done what it was given."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
