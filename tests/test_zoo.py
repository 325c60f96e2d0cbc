"""The models that come with the package: whole, small enough, and better than a picture that stands still."""

import numpy as np
import pytest

from divid.arrays import frames_to_video, peak_signal_to_noise
from divid.cli.common import KNOWN_TO_BUNDLED
from divid.cli.demo import CLIP_SEED, CLIPS
from divid.data.sources import SourceOptions
from divid.data.sources.puppets import render_clip
from divid.data.sources.sprites import SpritesSource
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
    """The demo's two clips, at the model's size; the same performance by the other puppet is the exact answer to a swap."""
    pipeline = DividPipeline.from_pretrained("puppets")
    clips = {name: draw(*clip) for name, clip in CLIPS.items()}
    for look, motion in (("a", "b"), ("b", "a")):
        a, b, truth = clips[look], clips[motion], draw(CLIPS[look][0], CLIPS[motion][1])
        still = np.broadcast_to(a.mean(0, keepdims=True).round().astype(np.uint8), a.shape)
        assert psnr(pipeline(a, a), a) > psnr(still, a)
        assert psnr(pipeline(a, b), truth) > max(psnr(a, truth), psnr(b, truth)) + 1


def test_sprites_that_training_never_saw_swap_to_what_they_would_look_like(data_root):
    """Figures are put together from parts, so A in B's motion is a clip of the set: the swap is nearer to it than A and B are."""
    source = SpritesSource(data_root / "sprites", SourceOptions(image_size=32, channels=3))
    clips = {item.id: item for item in source.items() if item.split == "test"}
    first, second = sorted({name.rsplit("_", 2)[0] for name in clips})[0], sorted({name.rsplit("_", 2)[0] for name in clips})[-1]
    pipeline = DividPipeline.from_pretrained("sprites")
    for look, motion in ((first, second), (second, first)):
        names = f"{look}_walk_left", f"{motion}_slash_front", f"{look}_slash_front"
        a, b, truth = (source.load(clips[name])[0] for name in names)
        swap = pipeline(a, b)
        assert psnr(swap, truth) > max(psnr(a, truth), psnr(b, truth)) + 3


def draw(look: int, action: str) -> np.ndarray:
    return render_clip(look, action, CLIP_SEED, num_frames=10, size=32, scenery="plain")


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(peak_signal_to_noise(frames_to_video(first), frames_to_video(second)).mean())


def test_every_bundled_model_says_whom_it_knows():
    assert set(KNOWN_TO_BUNDLED) == set(bundled_models())
