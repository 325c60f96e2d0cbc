"""A method whose codes are the pixels: the smallest one that meets `divid.types.Disentangler`."""

from __future__ import annotations

import torch

from divid.types import Codes


class PixelMethod(torch.nn.Module):
    """Codes are the first frame and every frame, times a factor; it has no denoiser."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor))

    def frame_features(self, video):
        return video.flatten(2) * self.factor

    def codes_from_features(self, features, reference=None):
        return Codes(features[:, 0], features)

    def encode(self, video):
        return self.codes_from_features(self.frame_features(video))

    def decode(self, codes, *, seeds, sampling=None, first_frame=0, callback=None):
        return codes.dynamic

    def losses(self, video, randomness):
        return {"total": self.factor}
