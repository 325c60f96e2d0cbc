"""The models that come with the package: whole, small enough, and better than a picture that stands still."""

import numpy as np
import pytest

from divid.arrays import frames_to_video, peak_signal_to_noise
from divid.data.sources.puppets import render_clip
from divid.export import bundled_models, resolve_model
from divid.pipeline import DividPipeline

MOST_BYTES = 28_000_000


def test_all_bundled_models_together_are_small():
    sizes = [path.stat().st_size for folder in bundled_models().values() for path in folder.rglob("*") if path.is_file()]
    assert 0 < sum(sizes) < MOST_BYTES


@pytest.mark.parametrize("name", bundled_models())
def test_a_bundled_model_is_as_shipped_and_has_a_card(name):
    card = (resolve_model(name) / "README.md").read_text(encoding="utf-8")
    for section in ("## Data", "## Time", "## Machine", "## Limits", "## Numbers", "git_commit"):
        assert section in card


def test_puppets_survive_their_own_codes_and_a_swap_takes_look_and_motion():
    """Clips of a seed that no prepared set uses."""
    pipeline = DividPipeline.from_pretrained("puppets")
    a = draw(look_seed=2, action="squat")
    b = draw(look_seed=4, action="jumping_jack")
    truth = draw(look_seed=2, action="jumping_jack")
    again = pipeline(a, a)
    still = np.broadcast_to(a.mean(0, keepdims=True).round().astype(np.uint8), a.shape)
    assert psnr(again, a) > psnr(still, a) + 1
    swapped = pipeline(a, b)
    assert swapped.shape == b.shape
    assert psnr(swapped, truth) > max(psnr(a, truth), psnr(b, truth)) + 3


def draw(**clip) -> np.ndarray:
    return render_clip(**clip, clip_seed=1, num_frames=10, size=32, scenery="plain")


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(peak_signal_to_noise(frames_to_video(first)[None], frames_to_video(second)[None]).mean())
