"""Tokens of earlier clips: the newest are kept, and a leak that a batch cannot show is seen and has a gradient."""

import pytest
import torch

from divid.diffusion.objective import decorrelation_loss
from divid.models.token_memory import TokenMemory, summarise_dynamic

NOTHING = torch.empty(0, 3), torch.empty(0, 4)


def tokens(num_clips, shared, seed=0):
    """Give s of 3 numbers and 5 frames of d of 2, whose first number is that of s where `shared`."""
    generator = torch.Generator().manual_seed(seed)
    static, dynamic = torch.randn(num_clips, 3, generator=generator), torch.randn(num_clips, 5, 2, generator=generator)
    if shared:
        dynamic[..., 0] = static[:, None, 0]
    return static, dynamic


def test_the_newest_clips_are_kept():
    memory = TokenMemory(num_clips=5, static_dim=1, dynamic_dim=2)
    for first in (0.0, 3.0):
        numbers = torch.arange(first, first + 3)[:, None]
        memory.remember(numbers.requires_grad_(), numbers.detach().expand(-1, 4))
    assert memory.static.flatten().tolist() == [3, 4, 5, 0, 1]
    assert memory.dynamic[:, 3].tolist() == [3, 4, 5, 0, 1]
    assert not memory.static.requires_grad
    other = TokenMemory(num_clips=5, static_dim=1, dynamic_dim=2)
    other.restore(memory.state())
    assert torch.equal(other.static, memory.static)


def test_summary_of_a_still_clip_has_a_finite_gradient():
    dynamic = torch.tensor([[[2.0, 1.0], [2.0, 3.0]]], requires_grad=True)
    summary = summarise_dynamic(dynamic)
    torch.testing.assert_close(summary, torch.tensor([[2.0, 2.0, 0.0, 1.0]]))
    summary.sum().backward()
    assert dynamic.grad.isfinite().all()


def test_one_shared_number_of_12_pairs_is_a_twelfth():
    static, dynamic = tokens(4000, shared=True)
    summary = summarise_dynamic(dynamic)
    value = decorrelation_loss(static[:8], summary[:8], static[8:], summary[8:])
    # The mean over the frames of the shared number is the number itself; its spread is 0.
    assert value.item() == pytest.approx(1 / 12, abs=0.002)
    static, dynamic = tokens(4000, shared=False)
    summary = summarise_dynamic(dynamic)
    assert decorrelation_loss(static[:8], summary[:8], static[8:], summary[8:]).item() < 0.001


def test_only_the_batch_has_a_gradient_and_it_counts_for_all_clips():
    """Over all batches the gradients add up, N / B times, to what the whole set at once would have."""
    static, dynamic = tokens(32, shared=True)
    whole = summarise_dynamic(dynamic).requires_grad_()
    decorrelation_loss(static, whole, *NOTHING).backward()
    for start in range(0, 32, 8):
        rest = torch.cat([torch.arange(start), torch.arange(start + 8, 32)])
        part = whole.detach()[start : start + 8].requires_grad_()
        s = static[start : start + 8].clone().requires_grad_()
        decorrelation_loss(s, part, static[rest], whole.detach()[rest]).backward()
        torch.testing.assert_close(part.grad / 4, whole.grad[start : start + 8])
        assert s.grad is None


def test_following_the_gradient_takes_the_leak_out():
    static, dynamic = tokens(256, shared=True)
    dynamic += tokens(256, shared=False, seed=1)[1]  # where tokens are equal the correlation is at its highest, and has no slope
    summary = summarise_dynamic(dynamic)
    for step in range(600):
        rows = torch.arange(8) + 8 * (step % 32)
        rest = torch.ones(256, dtype=torch.bool).index_fill(0, rows, False)
        part = summary[rows].clone().requires_grad_()
        decorrelation_loss(static[rows], part, static[rest], summary[rest]).backward()
        summary[rows] -= 5 * part.grad
    before = decorrelation_loss(static, summarise_dynamic(dynamic), *NOTHING)
    after = decorrelation_loss(static, summary, *NOTHING)
    assert before > 0.05
    assert after < 0.2 * before
