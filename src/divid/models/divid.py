"""DiViD itself: sequence encoder, tokens and conditional diffusion decoder as one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from divid.augmentation import augment_appearance, move_along
from divid.config import ModelConfig, SamplingConfig, from_dict, to_dict
from divid.diffusion.noise import SamplingNoise, training_noise, training_timesteps
from divid.diffusion.objective import (
    channel_divergence,
    channel_profile,
    channel_variance,
    decorrelation_loss,
    from_all_processes,
    orthogonality_loss,
    pseudo_huber_loss,
    simple_loss,
    token_distance,
)
from divid.diffusion.sampling import sample_frames
from divid.diffusion.schedule import add_noise, alphas_cumprod, input_scale, prediction_target, prediction_to_x_0
from divid.errors import ConfigError
from divid.models.cuda_graphs import GraphedByShape
from divid.models.denoiser import Denoiser, TokenContext
from divid.models.frame_encoder import FrameEncoder
from divid.models.sequence_encoder import SequenceEncoder, TokenDistributions
from divid.models.sequence_model import SequenceModel, pick_frames, take_frames
from divid.models.token_grid import TokenGrid
from divid.models.token_memory import TokenMemory, summarise_dynamic
from divid.precision import autocast
from divid.randomness import Randomness, derive_seed, to_device
from divid.types import Codes, FrameFeatures, SamplingCallback, Video

TRANSLATION_STEPS = 1
"""Solver steps of a back-translated clip: one gives the mean of what the tokens allow, which shows who does what."""


class DividModel(SequenceModel):
    """Disentangled Video Diffusion; meets `divid.types.Disentangler`.

    Args:
        options: The model's config, or the same as nested dicts (as `config.json` stores it).

    Raises:
        ConfigError: An option is unknown, outside its range, or does not fit another.

    Source:
        Paper section 3; `docs/method.md` says where each equation is.
    """

    options_class: ClassVar[type[ModelConfig]] = ModelConfig

    def __init__(self, options: ModelConfig | dict[str, Any]) -> None:
        super().__init__()
        config = options if isinstance(options, ModelConfig) else from_dict(self.options_class, options)
        self.options = config.resolve()
        self.register_to_config(options=to_dict(self.options))
        tokens, diffusion = self.options.tokens, self.options.diffusion
        assert self.options.image_size and diffusion.schedule and tokens.static_dim and tokens.dynamic_dim
        self.frame_encoder = FrameEncoder(self.options.encoder, self.options.image_size, self.options.channels)
        self.sequence_encoder = SequenceEncoder(
            self.options.encoder,
            tokens,
            self.frame_encoder.num_features,
            has_variances=self.options.bottleneck.kind == "channel",
        )
        self.static_grid: TokenGrid | None = None
        self.dynamic_grid: TokenGrid | None = None
        if self.options.bottleneck.kind == "rate":
            self.static_grid, self.dynamic_grid = TokenGrid(tokens.static_dim), TokenGrid(tokens.dynamic_dim)
        self.has_empty_tokens = bool(tokens.static_dropout or tokens.dynamic_dropout)
        if self.has_empty_tokens:
            self.empty_static = nn.Parameter(torch.zeros(tokens.static_dim))
            self.empty_dynamic = nn.Parameter(torch.zeros(tokens.dynamic_dim))
        self.token_memory: TokenMemory | None = None
        if tokens.orthogonality_memory:
            self.token_memory = TokenMemory(tokens.orthogonality_memory, tokens.static_dim, tokens.dynamic_dim)
        self._to_remember: tuple[Tensor, Tensor] | None = None
        abar = alphas_cumprod(diffusion.schedule, diffusion.num_train_timesteps)
        self.register_buffer("abar", abar.float(), persistent=False)
        self.denoiser = Denoiser(
            self.options.denoiser,
            tokens,
            self.options.image_size,
            self.options.channels,
            input_scale(abar) if diffusion.scale_input else None,
        )
        self._train_denoiser: Any = self.denoiser.forward

    def compile_networks(self) -> None:
        """Compile the training pass of encoder and denoiser with torch.compile; results stay within float tolerance."""
        self._train_denoiser = torch.compile(self.denoiser.forward)

    def graph_networks(self) -> None:
        """Replay training passes of frame encoder and denoiser as CUDA graphs, see `GraphedByShape`; a CPU goes on as it was."""
        self._train_denoiser = GraphedByShape(self.denoiser)
        self._graphed_encoder = GraphedByShape(self.frame_encoder)

    def blocks(self) -> list[nn.Module]:
        """Give the parts by which weights are gathered that processes share out; see `SequenceModel.blocks`."""
        encoder, unet = self.sequence_encoder, self.denoiser.unet
        parts = [encoder.static_mlp, encoder.lstm, encoder.attention, *unet.down_blocks, unet.mid_block, *unet.up_blocks]
        return [*super().blocks(), *parts]

    def sequence_codes(self, features: FrameFeatures) -> Codes:
        """Turn the features of a whole sequence into codes (with an explicit bottleneck: means, or rounded)."""
        codes = self._tokens(features).codes
        if self.static_grid is None or self.dynamic_grid is None:
            return codes
        return Codes(self.static_grid.round(codes.static), self.dynamic_grid.round(codes.dynamic))

    @torch.no_grad()
    def decode(
        self,
        codes: Codes,
        *,
        seeds: Sequence[int],
        sampling: SamplingConfig | None = None,
        first_frame: int = 0,
        callback: SamplingCallback | None = None,
    ) -> Video:
        """Sample video from codes; see `Disentangler.decode`.

        Raises:
            ConfigError: Guidance is asked of a model that was trained without token dropout, or seeds and clips differ in number.
        """
        sampling = (sampling or SamplingConfig()).validate()
        if len(seeds) != len(codes.static):
            raise ConfigError(f"decode got {len(seeds)} seeds for {len(codes.static)} clips, give one a clip")
        if (sampling.static_guidance, sampling.dynamic_guidance) != (1, 1) and not self.has_empty_tokens:
            raise ConfigError(
                "this model was trained without token dropout and cannot be guided: leave both guidance scales at 1"
            )
        device = self.abar.device
        frames_at_once = max(1, sampling.chunk_frames // len(seeds))
        chunks = []
        for start in range(0, codes.num_frames, frames_at_once):
            dynamic = codes.dynamic[:, start : start + frames_at_once].to(device)
            count = dynamic.shape[1]
            static = codes.static.to(device)[:, None].expand(-1, count, -1).flatten(0, 1)
            noise = SamplingNoise(
                seeds,
                count,
                self.frame_shape,
                is_shared=self.options.diffusion.shared_sampling,
                first_frame=first_frame + start,
            )
            with autocast(device.type, sampling.precision):
                contexts = self._contexts(static, dynamic.flatten(0, 1), sampling)
                frames = sample_frames(
                    partial(self._guided, contexts=contexts, sampling=sampling),
                    noise,
                    self.options.diffusion,
                    sampling,
                    device=device,
                    callback=callback,
                )
            chunks.append(frames.unflatten(0, (len(seeds), count)))
        return torch.cat(chunks, dim=1)

    def losses(self, video: Video, randomness: Randomness, num_decoded_frames: int = 0) -> dict[str, Tensor]:
        """Give the terms of eq. (5), `simple` and `orthogonality`, what options add (`bottleneck`, `features`, ...), and `total`.

        Args:
            video: The batch's clips.
            randomness: The step's noise, time steps, dropout and frame choice.
            num_decoded_frames: Frames of each clip, picked at random, that the denoiser is trained on; the encoder sees all.
                0: all. Frames are denoised alone, so the expected gradient is the same and a step costs less.

        Raises:
            ConfigError: The video has another size or number of channels than the model.
        """
        distributions, invariances = self._training_tokens(video, randomness)
        codes = distributions.codes
        picked = pick_frames(video, randomness, num_decoded_frames)
        x_0 = self._moved_along(take_frames(video, picked), randomness)
        dynamic = take_frames(codes.dynamic, picked)
        batch, count = picked.shape
        diffusion = self.options.diffusion
        assert diffusion.shared_training is not None and diffusion.prediction_type
        shared = diffusion.shared_training
        t = training_timesteps(
            randomness,
            count,
            diffusion.num_train_timesteps,
            is_shared=shared,
            device=video.device,
            shift=self._timestep_shift_now(randomness),
        )
        noise = training_noise(randomness, count, self.frame_shape, is_shared=shared, device=video.device)
        static = codes.static[:, None].expand(-1, count, -1)
        terms: dict[str, Tensor] = {}
        static, dynamic = self._with_noise(static, dynamic, randomness)
        if self.options.bottleneck.kind == "channel":
            static, dynamic, terms["bottleneck"] = self._through_channel(distributions, picked, t, randomness)
        elif self.options.bottleneck.kind == "rate":
            static, dynamic, terms["bottleneck"] = self._on_grids(static, dynamic, randomness)
        static, dynamic = self._drop_tokens(static, dynamic, randomness)
        abar_t = self.abar[t][..., None, None, None]
        target = prediction_target(x_0, noise, abar_t, diffusion.prediction_type)
        x_t = add_noise(x_0, noise, abar_t)
        prediction = self._train_denoiser(x_t.flatten(0, 1), t.flatten(), static.flatten(0, 1), dynamic.flatten(0, 1))
        predicted = prediction.unflatten(0, (batch, count))
        terms["simple"] = simple_loss(predicted, target)
        if diffusion.huber_width and not self._is_before(diffusion.huber_start, randomness):
            terms["huber"] = pseudo_huber_loss(predicted, target, diffusion.huber_width)
        if self.options.feature_loss.network != "none":
            terms["features"] = self._feature_loss(x_t, predicted, x_0, abar_t)
        terms["orthogonality"] = self._orthogonality(codes)
        total = terms.get("huber", terms["simple"]) + self.options.tokens.orthogonality_weight * terms["orthogonality"]
        if "features" in terms:
            total = total + self.options.feature_loss.weight * terms["features"]
        if "bottleneck" in terms:
            total = total + self.options.bottleneck.beta * terms["bottleneck"]
        for name, distance in invariances.items():
            total = total + getattr(self.options.tokens, name) * distance
        return {"total": total, **terms, **invariances}

    def remember(self) -> None:
        """Keep the tokens of the last call of `losses` for later steps; training calls it once a step, a trial does not."""
        if self.token_memory is not None and self._to_remember is not None:
            self.token_memory.remember(*self._to_remember)
        self._to_remember = None

    def predict(self, x_t: Tensor, t: Tensor, static: Tensor, dynamic: Tensor) -> Tensor:
        """Give the denoiser's prediction; arguments as for `Denoiser.forward`."""
        return self.denoiser(x_t, t, static, dynamic)

    def _tokens(self, features: FrameFeatures, static_choice: Tensor | None = None) -> TokenDistributions:
        reference = features[:, :1]
        if self.options.tokens.static_source == "whole":
            static_features = features.mean(1)
        elif static_choice is not None:
            static_features = features[torch.arange(len(features), device=features.device), static_choice]
        elif self.options.tokens.static_source == "average":
            static_features = features
        else:
            static_features = reference[:, 0]
        return self.sequence_encoder(features, reference, static_features)

    def _training_tokens(self, video: Video, randomness: Randomness) -> tuple[TokenDistributions, dict[str, Tensor]]:
        """Encode a training batch; `motion_augmentation` changes what the dynamic tokens see, `static_flip` the static one.

        Returns:
            The tokens, and the terms `dynamic_invariance` and `static_invariance` where they have a weight.
        """
        choice, options = self._static_choice(video, randomness), self.options.tokens
        strength, flip = self._strength_now("motion_augmentation", randomness), options.static_flip
        share = self._strength_now("back_translation", randomness) if torch.is_grad_enabled() else 0.0
        if not strength and not share and not flip:
            return self._tokens(self.frame_features(video), choice), {}
        looks, moving = self._translated(video, randomness, share) if share else (video, video)
        unchanged = self._static_frames(looks, choice)
        if flip:
            is_flipped = to_device(randomness.uniform("static flip") < flip, video.device)
            unchanged = _choose(is_flipped, unchanged.flip(-1), unchanged)
        moving = augment_appearance(
            moving,
            randomness,
            strength,
            colours=options.motion_augmentation_colours,
            sideways=options.motion_augmentation_sideways,
            upwards=options.motion_augmentation_upwards,
            proportions=self._strength_now("motion_augmentation_proportions", randomness),
            whole_pixels=options.motion_augmentation_target != "unmoved",
        )
        weights = {"dynamic": options.dynamic_invariance, "static": options.static_invariance}
        is_compared = torch.is_grad_enabled() and any(weights.values())
        counts = [moving.shape[1], unchanged.shape[1]]
        seen = [moving, unchanged, self._moved_along(video, randomness)] if is_compared else [moving, unchanged]
        motion, static, plain = self.frame_features(torch.cat(seen, dim=1)).tensor_split([counts[0], sum(counts)], dim=1)
        tokens = self.sequence_encoder(motion, motion[:, :1], static.mean(1))
        if not is_compared:
            return tokens, {}
        as_it_is = self._tokens(plain, self._compared_choice(video, randomness, choice)).codes
        return tokens, {
            f"{kind}_invariance": token_distance(getattr(tokens.codes, kind), getattr(as_it_is, kind))
            for kind, weight in weights.items()
            if weight
        }

    def _moved_along(self, frames: Video, randomness: Randomness) -> Video:
        """Give the frames that are asked for: with `motion_augmentation_target` moved as those that the dynamic tokens see."""
        options = self.options.tokens
        strength = self._strength_now("motion_augmentation", randomness)
        if not strength or options.motion_augmentation_target == "unmoved":
            return frames
        upwards = options.motion_augmentation_upwards if options.motion_augmentation_target == "moved" else 0.0
        return move_along(frames, randomness, strength, sideways=options.motion_augmentation_sideways, upwards=upwards)

    def _static_frames(self, video: Video, choice: Tensor | None) -> Tensor:
        """Give the frames that the static token sees in training."""
        if self.options.tokens.static_source == "whole":
            return video
        return video[:, :1] if choice is None else take_frames(video, choice[:, None])

    def _strength_now(self, lever: str, randomness: Randomness) -> float:
        """Give the strength of one of the `LATE_LEVERS` in this step: 0 before it begins, whole for held-out clips (below 0)."""
        tokens = self.options.tokens
        start, strength = getattr(tokens, f"{lever}_start"), getattr(tokens, lever)
        if self._is_before(start, randomness):
            return 0.0
        ramp = tokens.motion_augmentation_ramp if lever == "motion_augmentation" else 0.0
        if not ramp or randomness.step < 0 or not self.options.num_train_steps:
            return strength
        return strength * min(1.0, (randomness.step / self.options.num_train_steps - start) / ramp)

    def _timestep_shift_now(self, randomness: Randomness) -> float:
        """Give the shift of this step's time steps: held-out clips (below 0) have the recipe's all the time, to compare them."""
        diffusion = self.options.diffusion
        end = diffusion.timestep_shift_end * self.options.num_train_steps
        is_over = diffusion.timestep_shift_end < 1 and randomness.step >= end
        return 1.0 if is_over else diffusion.timestep_shift

    def _is_before(self, share: float, randomness: Randomness) -> bool:
        """Tell whether this is a training step (held-out clips: below 0) before that share of the training is over."""
        return 0 <= randomness.step < share * self.options.num_train_steps

    @torch.no_grad()
    def _translated(self, video: Video, randomness: Randomness, share: float) -> tuple[Video, Video]:
        """Swap some clips, drawn at random, with the model as it is now: each clip's motion, the look of the next in the batch.

        "Next" is meant in the global batch, so a run does not depend on the number of processes.

        Returns:
            The clips from which looks are read, and those from which motion is.

        Source:
            Back-translation of sentences: Sennrich et al., "Improving Neural Machine Translation Models with Monolingual Data"
            (2016). Not in the paper.
        """
        count = randomness.num_slots
        everyone = replace(randomness, slots=tuple(range(count)))
        is_chosen = everyone.uniform("back-translation") < share
        if count == 1 or not is_chosen.any():
            return video, video
        device, slots = video.device, torch.tensor(randomness.slots)  # places are reckoned on the CPU: a GPU is not waited for
        everyones_slots = slots
        if count > len(slots):
            everyones_slots = from_all_processes(slots.to(device), even_without_gradients=True).cpu()
        place = to_device(everyones_slots.argsort(), device)
        codes = self.encode(video)
        statics = from_all_processes(codes.static, even_without_gradients=True)[place]
        mine, made = is_chosen[slots], torch.zeros_like(video)
        # Every process swaps as many, some of them for nothing: shared-out weights are gathered by all or none.
        most = int(is_chosen[everyones_slots].view(-1, len(slots)).sum(1).max())
        swapping = (~mine).int().argsort(stable=True)[:most]
        seeds = [derive_seed(randomness.seed, randomness.step, slot, "back-translation") for slot in slots[swapping].tolist()]
        looks_of, swapping = to_device((slots[swapping] + 1) % count, device), to_device(swapping, device)
        swapped = Codes(statics[looks_of], codes.dynamic[swapping])
        sampling = translation_sampling(device, swapped.dynamic.shape[:2].numel())
        made[swapping] = self.decode(swapped, seeds=seeds, sampling=sampling).to(video)
        before = (slots - 1) % count
        looks = from_all_processes(made, even_without_gradients=True)[place][to_device(before, device)]
        of_looks, mine = to_device(is_chosen[before], device), to_device(mine, device)
        return _choose(of_looks, looks, video), _choose(mine, made, video)

    def _feature_loss(self, x_t: Video, prediction: Video, x_0: Video, abar_t: Tensor) -> Float[Tensor, ""]:
        """Give the mean perceptual distance of the x_0 that the prediction amounts to, clipped to [-1, 1], to the true one.

        Source:
            Not in the paper, whose baselines have such a loss. Lin and Yang, "Diffusion Model with Perceptual Loss" (2023),
            take features of a denoiser's own; here they are those of a network trained on ImageNet.
        """
        prediction_type = self.options.diffusion.prediction_type
        assert prediction_type
        made = prediction_to_x_0(prediction.float(), x_t, abar_t, prediction_type).clamp(-1, 1)
        distance = self.perceptual_distance(self.options.feature_loss)
        return distance(made.flatten(0, 1), x_0.flatten(0, 1)).float().mean()

    def _orthogonality(self, codes: Codes) -> Tensor:
        static, dynamic = codes.static.float(), codes.dynamic.float()
        if self.token_memory is None or not torch.is_grad_enabled():
            return orthogonality_loss(static, dynamic)
        static, summary = from_all_processes(static), from_all_processes(summarise_dynamic(dynamic))
        self._to_remember = static.detach(), summary.detach()
        return decorrelation_loss(static, summary, *self.token_memory.on(static.device))

    def _static_choice(self, video: Video, randomness: Randomness) -> Tensor | None:
        if self.options.tokens.static_source not in ("random", "average"):
            return None
        return _random_frames("static frame", video, randomness)

    def _compared_choice(self, video: Video, randomness: Randomness, choice: Tensor | None) -> Tensor | None:
        """Give the frame of each clip that `static_invariance` compares the static token with."""
        if self.options.tokens.static_invariance_frame == "same":
            return choice
        return _random_frames("compared static frame", video, randomness)

    def _with_noise(self, static: Tensor, dynamic: Tensor, randomness: Randomness) -> tuple[Tensor, Tensor]:
        """Add noise to tokens of shape (clips, frames, dim): one draw for the static one of a clip, one for each dynamic one."""
        tokens = self.options.tokens
        if tokens.static_noise:
            noise = randomness.normal("static token noise", (1, static.shape[-1]), static.device)
            static = static + tokens.static_noise * noise.to(static)
        if tokens.dynamic_noise:
            noise = randomness.normal("dynamic token noise", tuple(dynamic.shape[1:]), dynamic.device)
            dynamic = dynamic + tokens.dynamic_noise * noise.to(dynamic)
        return static, dynamic

    def _drop_tokens(self, static: Tensor, dynamic: Tensor, randomness: Randomness) -> tuple[Tensor, Tensor]:
        if not self.has_empty_tokens:
            return static, dynamic
        tokens = self.options.tokens
        assert tokens.static_dropout is not None and tokens.dynamic_dropout is not None
        drop = to_device(randomness.uniform("token dropout", (2,)), static.device)[:, :, None, None]
        static = torch.where(drop[:, 0] < tokens.static_dropout, self.empty_static, static)
        return static, torch.where(drop[:, 1] < tokens.dynamic_dropout, self.empty_dynamic, dynamic)

    def _through_channel(
        self, tokens: TokenDistributions, picked: Tensor, t: Tensor, randomness: Randomness
    ) -> tuple[Tensor, Tensor, Tensor]:
        config = self.options.bottleneck
        progress = t / (self.options.diffusion.num_train_timesteps - 1)
        weight = channel_profile(self.abar[t], config, progress)[..., None]
        assert tokens.static_logvar is not None and tokens.dynamic_logvar is not None
        count = picked.shape[1]
        drawn, divergence = [], torch.zeros((), device=t.device)
        for name, mean, logvar, kappa, share in (
            ("static", tokens.codes.static[:, None], tokens.static_logvar[:, None], config.kappa_static, config.static_share),
            (
                "dynamic",
                take_frames(tokens.codes.dynamic, picked),
                take_frames(tokens.dynamic_logvar, picked),
                config.kappa_dynamic,
                config.dynamic_share,
            ),
        ):
            mean, logvar = mean.expand(-1, count, -1), logvar.expand(-1, count, -1)
            variance = channel_variance(logvar, kappa, weight)
            divergence = divergence + share * channel_divergence(mean, variance, kappa, weight)
            eta = randomness.normal(f"{name} channel", mean.shape[1:], mean.device)
            drawn.append(mean + variance.sqrt() * eta)
        return drawn[0], drawn[1], divergence

    def _on_grids(self, static: Tensor, dynamic: Tensor, randomness: Randomness) -> tuple[Tensor, Tensor, Tensor]:
        """Blur tokens of shape (clips, frames, dim) as rounding would, and give their bits: of one s, and of a frame's d."""
        bottleneck, static_grid, dynamic_grid = self.options.bottleneck, self.static_grid, self.dynamic_grid
        assert static_grid is not None and dynamic_grid is not None
        if self._is_before(bottleneck.start, randomness):
            weights = [*static_grid.parameters(), *dynamic_grid.parameters()]
            return static, dynamic, 0.0 * torch.stack([weight.sum() for weight in weights]).sum()  # processes share all gradients
        blurred, total = [], torch.zeros((), device=static.device)
        for name, grid, tokens, share in (
            ("static", static_grid, static[:, :1], bottleneck.static_share),
            ("dynamic", dynamic_grid, dynamic, bottleneck.dynamic_share),
        ):
            uniform = to_device(randomness.uniform(f"{name} rounding", tuple(tokens.shape[1:])), tokens.device)
            blurred.append(grid.blur(tokens, uniform))
            total = total + share * grid.bits(blurred[-1]).mean()
        return blurred[0].expand_as(static).to(static), blurred[1].to(dynamic), total

    def _contexts(self, static: Tensor, dynamic: Tensor, sampling: SamplingConfig) -> list[TokenContext]:
        """Prepare what `_guided` needs: both tokens, and as far as the scales ask for it the static one alone, and none."""
        w_s, w_d = sampling.static_guidance, sampling.dynamic_guidance
        contexts = [self.denoiser.context(static, dynamic)]
        if (w_s, w_d) != (1, 1):
            contexts.append(self.denoiser.context(static, self.empty_dynamic.expand_as(dynamic)))
        if w_s != 1:
            contexts.append(self.denoiser.context(self.empty_static.expand_as(static), self.empty_dynamic.expand_as(dynamic)))
        return contexts

    def _guided(self, x_t: Tensor, t: int, contexts: list[TokenContext], sampling: SamplingConfig) -> Tensor:
        """Predict with a scale for each token: e(0,0) + w_s (e(s,0) - e(0,0)) + w_d (e(s,d) - e(s,0))."""
        steps, x_t = torch.full((len(x_t),), t, device=x_t.device), x_t.to(contexts[0].sequence.dtype)
        full, *others = [self.denoiser.predict(x_t, steps, context) for context in contexts]
        if not others:
            return full
        only_static, nothing = others[0], others[-1]
        w_s, w_d = sampling.static_guidance, sampling.dynamic_guidance
        return nothing + w_s * (only_static - nothing) + w_d * (full - only_static)


def translation_sampling(device: torch.device, num_frames: int) -> SamplingConfig:
    """Give how back-translated clips are drawn: on a GPU all frames in one pass, which a small pass does not keep busy.

    Args:
        device: Where.
        num_frames: Of all clips together.
    """
    sampling = SamplingConfig(num_inference_steps=TRANSLATION_STEPS)
    return replace(sampling, chunk_frames=max(num_frames, 1)) if device.type == "cuda" else sampling


def _random_frames(purpose: str, video: Video, randomness: Randomness) -> Tensor:
    """Draw a frame of each clip."""
    return to_device((randomness.uniform(purpose) * video.shape[1]).long(), video.device)


def _choose(is_first: Tensor, first: Video, second: Video) -> Video:
    return torch.where(is_first[:, None, None, None, None], first, second)
