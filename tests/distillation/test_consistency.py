"""Consistency distillation against cases whose answer is known, and what of a student is trained."""

import dataclasses

import pytest
import torch

from divid.baselines.dbse import DBSEModel
from divid.config import ModelConfig, SamplingConfig, to_dict
from divid.diffusion.noise import SamplingNoise
from divid.diffusion.sampling import make_scheduler, sample_frames
from divid.diffusion.schedule import add_noise, alphas_cumprod
from divid.distillation.consistency import ConsistencyModel, follow_teacher, interval_bounds
from divid.distillation.options import ConsistencyConfig
from divid.errors import ConfigError
from divid.model_parts import DenoiserConfig, DiffusionConfig, EncoderConfig, TokenConfig
from divid.models.divid import DividModel
from divid.randomness import Randomness
from divid.recipes import load_recipe

SMALL = {
    "preset": "tiny",
    "image_size": 16,
    "channels": 1,
    "encoder": EncoderConfig(base_channels=8, patch_size=1, static_hidden=16, lstm_hidden=16),
    "tokens": TokenConfig(static_dim=12, dynamic_dim=6),
    "denoiser": DenoiserConfig(channels=(16, 32), patch_size=1, attention_levels=(1,), attention_width=16, norm_groups=8),
}
STUDENT_TOKENS = dataclasses.replace(SMALL["tokens"], static_dropout=0.0, dynamic_dropout=0.0)
SPREAD = 0.3
"""Standard deviation of the pixels in the case that can be solved."""


def make_teacher(**changes):
    torch.manual_seed(0)
    return DividModel(ModelConfig(**{**SMALL, **changes}))


def make_student(teacher=None, **changes):
    torch.manual_seed(1)
    student = ConsistencyModel(ConsistencyConfig(**{**SMALL, "tokens": STUDENT_TOKENS, **changes}))
    student.learn_from(teacher or make_teacher())
    return student


def video(clips=3, frames=5):
    return torch.rand(clips, frames, 1, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1


def randomness(clips=3, step=0):
    return Randomness(0, step, tuple(range(clips)), clips)


@pytest.mark.parametrize(("steps", "intervals", "bounds"), [(10, 2, [0, 5, 10]), (10, 1, [0, 10]), (3, 8, [0, 1, 2, 3])])
def test_intervals_go_from_clean_frames_to_pure_noise(steps, intervals, bounds):
    assert interval_bounds(steps, intervals).tolist() == bounds


def test_a_teacher_that_is_right_leads_along_the_line_of_its_noise():
    x_0, noise = torch.randn(2, 4), torch.randn(2, 4)
    abar_t, abar_s = torch.tensor(0.2), torch.tensor(0.7)
    led = follow_teacher(x_0, add_noise(x_0, noise, abar_t), abar_t, abar_s)
    torch.testing.assert_close(led, add_noise(x_0, noise, abar_s))
    torch.testing.assert_close(follow_teacher(x_0, add_noise(x_0, noise, abar_t), abar_t, torch.tensor(1.0)), x_0)


def as_v(x_0, x_t, abar_t):
    return (abar_t.sqrt() * x_t - x_0) / (1 - abar_t).sqrt()


def solved(abar, answer):
    """Give a network whose prediction means `answer(x_t, abar_t)` as the clean frames."""

    def network(x_t, t, static, dynamic):
        abar_t = abar[t][:, None, None, None]
        return as_v(answer(x_t, abar_t), x_t, abar_t)

    return network


def mean_of_gaussian(x_t, abar_t):
    """E[x_0 | x_t] for pixels N(0, SPREAD^2): the best prediction, and so the perfect teacher's."""
    return abar_t.sqrt() * SPREAD**2 / (abar_t * SPREAD**2 + 1 - abar_t) * x_t


def end_of_path(x_t, abar_t):
    """Where that teacher's path through x_t ends: the same quantile of N(0, SPREAD^2), the perfect student's answer."""
    return SPREAD / (abar_t * SPREAD**2 + 1 - abar_t).sqrt() * x_t


def loss_of(answer, num_intervals):
    student = make_student(num_intervals=num_intervals)
    abar = student.abar
    student._teacher[0].predict = solved(abar, mean_of_gaussian)
    student._train_denoiser = solved(abar, answer)
    clips = SPREAD * torch.randn(64, 2, 1, 16, 16, generator=torch.Generator().manual_seed(3))
    return student.losses(clips, randomness(64))["total"].item()


def test_the_solution_of_a_gaussian_is_consistent_and_the_teachers_own_mean_is_not():
    """What is left for the solution is the length of the teacher's steps."""
    assert loss_of(end_of_path, 1000) < 0.2 * loss_of(mean_of_gaussian, 1000)
    assert loss_of(end_of_path, 1000) < 0.02 * loss_of(end_of_path, 64)


def test_a_constant_is_consistent():
    student = make_student()
    student._teacher[0].predict = solved(student.abar, lambda x_t, abar_t: torch.full_like(x_t, 0.5))
    student._train_denoiser = solved(student.abar, lambda x_t, abar_t: torch.full_like(x_t, 0.5))
    assert student.losses(video(), randomness())["total"].item() < 1e-6


def test_encoder_and_teacher_stay_and_the_decoder_learns():
    student = make_student()
    terms = student.losses(video(), randomness(), num_decoded_frames=2)
    assert terms.keys() == {"total", "consistency"}
    terms["total"].backward()
    moved = {name for name, weight in student.named_parameters() if weight.grad is not None}
    assert moved
    assert all(name.startswith("denoiser.") for name in moved)
    assert all(weight.grad is None for weight in student._teacher[0].parameters())


def test_codes_are_the_teachers_and_the_teacher_is_not_saved_with_the_student():
    teacher = make_teacher()
    student = make_student(teacher)
    ours, theirs = student.eval().encode(video()), teacher.encode(video())
    assert torch.equal(ours.static, theirs.static)
    assert torch.equal(ours.dynamic, theirs.dynamic)
    assert student.state_dict().keys() == teacher.state_dict().keys() - {"empty_static", "empty_dynamic"}
    fresh = ConsistencyModel(student.config["options"])
    assert fresh.state_dict().keys() == student.state_dict().keys()
    with pytest.raises(ConfigError, match="divid distill"):
        fresh.losses(video(), randomness())


def test_a_student_learns_a_teacher_that_always_sees_the_same():
    student = make_student(num_intervals=4)
    student._teacher[0].predict = solved(student.abar, lambda x_t, abar_t: torch.full_like(x_t, 0.5))
    optimiser = torch.optim.Adam([weight for weight in student.parameters() if weight.requires_grad], lr=1e-2)
    losses = []
    for _ in range(40):
        loss = student.losses(video(), randomness(), num_decoded_frames=3)["total"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (lambda: make_teacher(tokens=TokenConfig(static_dim=12, dynamic_dim=8)), "built otherwise"),
        (lambda: DBSEModel(load_recipe("dbse").resolve().model), "only a DiViD model"),
    ],
)
def test_unfit_teachers(teacher, message):
    with pytest.raises(ConfigError, match=message):
        make_student(teacher())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_intervals": 0}, "num_intervals is 0"),
        ({"diffusion": DiffusionConfig(prediction_type="epsilon")}, "predicts v"),
    ],
)
def test_bad_options(changes, message):
    with pytest.raises(ConfigError, match=message):
        ConsistencyConfig(**{**SMALL, **changes}).resolve()


def test_options_are_read_as_stored():
    options = to_dict(ConsistencyConfig(**SMALL, teacher="somewhere").resolve())
    assert ConsistencyModel(options).options.teacher == "somewhere"


DIFFUSION = DiffusionConfig(prediction_type="v_prediction", schedule="cosine", shared_training=False)


@pytest.mark.parametrize("is_shared", [True, False])
def test_the_solver_jumps_and_noises_anew(is_shared):
    """A network that always sees one frame gives it in any number of steps; between them lies that frame with fresh noise."""
    abar = alphas_cumprod("cosine", 1000)
    frame = torch.linspace(-0.9, 0.9, 16).view(1, 1, 4, 4)
    sampling = SamplingConfig(solver="consistency", num_inference_steps=3)
    places, between = make_scheduler(DIFFUSION, sampling).timesteps.tolist(), []
    noise, expected = (SamplingNoise([7], 2, (1, 4, 4), is_shared=is_shared) for _ in range(2))
    sample = sample_frames(
        lambda x_t, t: as_v(frame, x_t, abar[t].float()),
        noise,
        DIFFUSION,
        sampling,
        device="cpu",
        callback=lambda done, total, x_t: between.append(x_t),
    )
    torch.testing.assert_close(sample, frame.expand(2, -1, -1, -1), atol=1e-4, rtol=0)
    expected.draw("cpu")  # the start
    for x_t, t in zip(between[:-1], places[1:], strict=True):
        torch.testing.assert_close(x_t, add_noise(frame, expected.draw("cpu"), abar[t].float()), atol=1e-4, rtol=0)
    assert torch.equal(between[0][0], between[0][1]) is is_shared
