"""One swap in a process of its own, so that its peak memory is its own: MODEL VIDEO OUT STEPS DEVICE."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace

from bench.measuring import forget_peak_memory, peak_memory_mib, synchronise
from divid.pipeline import DividPipeline


def main(arguments: list[str]) -> None:
    """Swap a video with itself and print seconds and peak memory as JSON; loading the model is not timed.

    Args:
        arguments: As above.
    """
    model, video, out, steps, device = arguments
    pipeline = DividPipeline.from_pretrained(model).to(device)
    sampling = replace(pipeline.sampling, num_inference_steps=int(steps))
    if device == "cuda":
        forget_peak_memory(device)
    start, processor_start = time.perf_counter(), time.process_time()
    pipeline.swap(video, video, out, sampling=sampling)
    synchronise(device)
    told = {
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - processor_start,
        "peak_memory_mib": peak_memory_mib(device),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1:])
