"""Encoding a recording of any length with a model trained on short sequences, method section 5.

A model learned from sequences of F frames, spread over recordings so that neighbours lie at most M frames apart. So N frames
become

- one sequence, where N <= F;
- k = ceil(N / F) interleaved sequences (frames j, j + k, ...) while k <= M: each has training's length and spacing;
- beyond that, windows of F * M frames with half overlap, each encoded so, their tokens blended linearly.

All sequences share one reference frame, the recording's first, so they have one static token and subtract the same frame.
"""

from __future__ import annotations

import numpy as np
import torch

from divid.types import Codes, Disentangler, FrameFeatures, ReferenceFeatures

SEQUENCES_AT_ONCE = 64


def encode_recording(model: Disentangler, features: FrameFeatures, frames_per_sequence: int, max_frame_spacing: int) -> Codes:
    """Turn a recording's frame features into its codes.

    Args:
        model: The method.
        features: What `frame_features` gave for the N frames of one recording.
        frames_per_sequence: F, frames of a training sequence.
        max_frame_spacing: M, widest distance between neighbours in a training sequence; 0: any.

    Raises:
        ValueError: There is more than one recording, or fewer than 2 frames.
    """
    if features.shape[0] != 1 or features.shape[1] < 2:
        raise ValueError(f"features must be of 1 recording with 2 or more frames, got shape {tuple(features.shape)}")
    num_frames = features.shape[1]
    if num_frames <= frames_per_sequence:
        return model.codes_from_features(features)
    reference = features[:, :1]
    spacing = -(-num_frames // frames_per_sequence)
    if max_frame_spacing == 0 or spacing <= max_frame_spacing:
        return _encode_interleaved(model, features, reference, spacing)
    statics, dynamic = [], None
    for start, weights in blend_windows(num_frames, frames_per_sequence * max_frame_spacing):
        part = slice(start, start + len(weights))
        codes = _encode_interleaved(model, features[:, part], reference, max_frame_spacing)
        if dynamic is None:
            dynamic = codes.dynamic.new_zeros(1, num_frames, codes.dynamic.shape[-1])
        dynamic[:, part] += codes.dynamic * torch.from_numpy(weights).to(dynamic)[None, :, None]
        statics.append(codes.static)
    assert dynamic is not None
    return Codes(torch.cat(statics).mean(dim=0, keepdim=True), dynamic)


def interleaved_positions(num_frames: int, spacing: int) -> list[np.ndarray]:
    """Give the positions of each interleaved sequence: j, j + k, j + 2k, ...; every frame belongs to exactly one.

    Args:
        num_frames: N.
        spacing: k.
    """
    return [np.arange(start, num_frames, spacing) for start in range(min(spacing, num_frames))]


def blend_windows(num_frames: int, window: int) -> list[tuple[int, np.ndarray]]:
    """Cover a recording with windows of half overlap and cross-fade linearly between neighbours.

    Args:
        num_frames: N, more than `window`.
        window: Frames of a window.

    Returns:
        (first frame, weight of each of the window's frames); at every frame the weights of all windows sum to 1.
    """
    starts = [*range(0, num_frames - window, max(1, window // 2)), num_frames - window]
    tent = np.minimum(np.arange(1, window + 1), np.arange(window, 0, -1)).astype(np.float64)
    total = np.zeros(num_frames)
    for start in starts:
        total[start : start + window] += tent
    return [(start, tent / total[start : start + window]) for start in starts]


def _encode_interleaved(model: Disentangler, features: FrameFeatures, reference: ReferenceFeatures, spacing: int) -> Codes:
    """Encode the sequences j, j + k, ..., equally long ones together, and put their tokens back in order."""
    statics, dynamic = [], None
    for group in _equal_lengths(interleaved_positions(features.shape[1], spacing)):
        positions = torch.from_numpy(np.stack(group)).to(features.device)
        codes = model.codes_from_features(features[0, positions], reference=reference.expand(len(group), -1, -1))
        if dynamic is None:
            dynamic = codes.dynamic.new_empty(1, features.shape[1], codes.dynamic.shape[-1])
        dynamic[0, positions] = codes.dynamic
        statics.append(codes.static)
    assert dynamic is not None
    return Codes(torch.cat(statics).mean(dim=0, keepdim=True), dynamic)


def _equal_lengths(sequences: list[np.ndarray]) -> list[list[np.ndarray]]:
    groups: list[list[np.ndarray]] = []
    for sequence in sequences:
        if groups and len(groups[-1][0]) == len(sequence) and len(groups[-1]) < SEQUENCES_AT_ONCE:
            groups[-1].append(sequence)
        else:
            groups.append([sequence])
    return groups
