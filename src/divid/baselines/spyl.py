"""SPYL: a sequential VAE with a mutual information penalty and contrastive terms on clips that it generates itself.

Source: Naiman et al., "Sample and Predict Your Latent: Modality-free Sequential Disentanglement via Contrastive Estimation", ICML
2023.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from divid.baselines.networks import frozen_statistics
from divid.baselines.options import SPYLConfig
from divid.baselines.vae import (
    Gaussian,
    Posteriors,
    SequentialVAE,
    at_least_single,
    divergence,
    standard_divergence,
    weighted_total,
)
from divid.config import from_dict
from divid.models.sequence_model import pick_frames
from divid.precision import run_recurrent
from divid.randomness import Randomness
from divid.types import Codes, DynamicTokens, FrameFeatures, StaticToken, Video


def log_density(values: Tensor, q: Gaussian) -> Tensor:
    """Give log N(values; mu, sigma^2), number by number.

    Args:
        values: Of a shape that fits `q`.
        q: Means and log variances.
    """
    return -0.5 * (math.log(2 * math.pi) + q.logvar + (values - q.mean).square() * (-q.logvar).exp())


def mutual_information(posteriors: Posteriors, static: StaticToken, dynamic: DynamicTokens, num_clips: int) -> Float[Tensor, ""]:
    """Estimate I(s; d_t), averaged over frames and clips, by minibatch-weighted sampling.

    log q(s_i) is estimated by logsumexp_j log N(s_i; mu_j, sigma_j) - log(B N), so are log q(d_i) and log q(s_i, d_i); where the
    difference is negative it counts as 0.

    Args:
        posteriors: Of the B clips.
        static: s_i, drawn from them.
        dynamic: d_i, drawn from them.
        num_clips: N, clips in the training data.

    Source:
        Chen et al., 2018, for the estimator. Differs from SPYL's released code, which takes log variances for log deviations.
    """
    q_s, q_d = (Gaussian(at_least_single(q.mean), at_least_single(q.logvar)) for q in (posteriors.static, posteriors.dynamic))
    log_s = log_density(static[:, None], q_s).sum(-1)  # clip i under posterior j
    log_d = log_density(dynamic[:, None], q_d).sum(-1)  # the same, frame by frame
    weight = math.log(len(static) * max(num_clips, len(static)))
    alone = torch.logsumexp(log_s, 1)[:, None] + torch.logsumexp(log_d, 1) - 2 * weight
    together = torch.logsumexp(log_s[..., None] + log_d, 1) - weight
    return functional.relu(together - alone).mean()


def pairwise_divergence(q: Gaussian, p: Gaussian) -> Float[Tensor, "clips bank"]:
    """Give KL(q_i || p_j) of every pair.

    Args:
        q: One distribution a clip.
        p: One a clip of the bank.
    """
    mean_q, logvar_q, mean_p, logvar_p = (at_least_single(x).flatten(1) for x in (q.mean, q.logvar, p.mean, p.logvar))
    inverse = (-logvar_p).exp()
    spread = (logvar_q.exp() + mean_q.square()) @ inverse.T - 2 * mean_q @ (mean_p * inverse).T
    own = (mean_p.square() * inverse + logvar_p).sum(1) - logvar_q.sum(1)[:, None]
    return 0.5 * (spread + own - mean_q.shape[1])


def farthest_half(q: Gaussian, bank: Gaussian) -> Int[Tensor, "clips negatives"]:
    """Give the places of that half of the bank that is farthest, by KL, from each clip.

    Args:
        q: One distribution a clip.
        bank: One a clip of the bank.
    """
    distances = pairwise_divergence(q, bank)
    return distances.topk(distances.shape[1] // 2, dim=1).indices


def contrastive_loss(
    anchors: Float[Tensor, "clips dim"],
    positives: Float[Tensor, "clips dim"],
    negatives: Float[Tensor, "clips negatives dim"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Give the mean of -log(e^(a.p) / (e^(a.p) + sum_n e^(a.n))), where a.b is the cosine similarity over the temperature.

    Args:
        anchors: One a clip.
        positives: One a clip.
        negatives: Several a clip.
        temperature: Of the similarities.
    """
    others = torch.cat([positives[:, None], negatives], dim=1)
    similarities = functional.cosine_similarity(anchors[:, None], others, dim=-1) / temperature
    return -similarities.log_softmax(1)[:, 0].mean()


class SPYLModel(SequentialVAE):
    """SPYL; meets `divid.types.Disentangler`.

    Args:
        options: The model's config, or the same as nested dicts (as `config.json` stores it).

    Raises:
        ConfigError: An option is unknown, outside its range, or does not fit another.

    Source:
        Naiman et al., ICML 2023. Differs: the mutual information uses log deviations where it should; clips that the model makes
        itself pass by the running statistics of the batch norms, and do not enter them.
    """

    options: SPYLConfig

    def __init__(self, options: SPYLConfig | dict[str, Any]) -> None:
        config = options if isinstance(options, SPYLConfig) else from_dict(SPYLConfig, options)
        super().__init__(config.resolve())
        config = self.options
        self.lstm = nn.LSTM(self.num_features, config.hidden, batch_first=True, bidirectional=True)
        self.static_mean = nn.Linear(2 * config.hidden, config.static_dim)
        self.static_logvar = nn.Linear(2 * config.hidden, config.static_dim)
        self.rnn = nn.RNN(2 * config.hidden, config.hidden, batch_first=True)
        self.dynamic_mean = nn.Linear(config.hidden, config.dynamic_dim)
        self.dynamic_logvar = nn.Linear(config.hidden, config.dynamic_dim)
        self.finish()

    def posteriors(self, features: FrameFeatures, randomness: Randomness | None = None) -> Posteriors:
        """Give q(s | x_1..F) and q(d_t | x_1..F); see `SequentialVAE.posteriors`."""
        outputs, _ = run_recurrent(self.lstm, features)
        width = self.options.hidden
        ends = torch.cat([outputs[:, -1, :width], outputs[:, 0, width:]], dim=1)  # each direction where it has seen all frames
        hidden, _ = run_recurrent(self.rnn, outputs)
        return Posteriors(
            Gaussian(self.static_mean(ends), self.static_logvar(ends)),
            Gaussian(self.dynamic_mean(hidden), self.dynamic_logvar(hidden)),
        )

    def losses(self, video: Video, randomness: Randomness, num_decoded_frames: int = 0) -> dict[str, Tensor]:
        """Give the terms of the objective, without their weights, and `total`.

        Args:
            video: The batch's clips.
            randomness: The step's.
            num_decoded_frames: Frames of each clip, picked at random, that are decoded; the encoder sees all. 0: all. Sums over
                frames are scaled up, so their expected gradient is the same and a step costs less.
        """
        posteriors = self.posteriors(self.frame_features(video))
        drawn = self.draw_posteriors(posteriors, randomness)
        picked = pick_frames(video, randomness, num_decoded_frames)
        errors = self.frame_errors(drawn, video, picked)
        sums = {name: values.sum(1).mean() * video.shape[1] / picked.shape[1] for name, values in errors.items()}
        num_clips = self.options.num_train_clips
        terms = {
            "reconstruction": sums.pop("both"),
            "static_kl": standard_divergence(posteriors.static),
            "dynamic_kl": divergence(posteriors.dynamic, self.prior(drawn.dynamic)),
            "mutual_information": mutual_information(posteriors, drawn.static, drawn.dynamic, num_clips),
        }
        if self.options.weights.contrast and self.progress(randomness) >= self.options.contrast_starts_at:
            static, dynamic = self.contrast(posteriors, randomness)
            terms |= {"contrast": static + dynamic, "static_contrast": static, "dynamic_contrast": dynamic}
        return {"total": weighted_total(terms, self.options.weights), **terms, **sums}

    def contrast(self, posteriors: Posteriors, randomness: Randomness) -> tuple[Tensor, Tensor]:
        """Give the contrastive terms of the static and of the dynamic codes.

        A clip's anchor is its static mean, its positive what is read from a clip made with that static mean and a drawn motion;
        for the dynamic codes, averaged over time, the other way round. Negatives come from a bank of generated clips.

        Args:
            posteriors: Of the batch's clips.
            randomness: The step's.
        """
        codes = posteriors.codes
        with frozen_statistics(self):
            with torch.no_grad():
                bank = self._reencode(self._drawn_codes("bank", codes, randomness, self.options.bank_size))
            drawn = self._drawn_codes("positive", codes, randomness, 1)
            same_static = self._reencode(Codes(codes.static, drawn.dynamic)).static.mean
            same_motion = self._reencode(Codes(drawn.static, codes.dynamic)).dynamic.mean
        pairs = (
            (posteriors.static, bank.static, codes.static, same_static, bank.static.mean),
            (posteriors.dynamic, bank.dynamic, codes.dynamic.mean(1), same_motion.mean(1), bank.dynamic.mean.mean(1)),
        )
        terms = []
        for own, others, anchors, positives, candidates in pairs:
            with torch.no_grad():
                places = farthest_half(own, others)
            negatives = at_least_single(candidates[places])
            own_mean, other = at_least_single(anchors), at_least_single(positives)
            terms.append(contrastive_loss(own_mean, other, negatives, self.options.temperature))
        return terms[0], terms[1]

    def _drawn_codes(self, purpose: str, like: Codes, randomness: Randomness, copies: int) -> Codes:
        """Draw codes from the priors, so many a clip of the batch."""
        static = randomness.normal(f"{purpose} static", (copies, like.static.shape[1]), like.static.device)
        dynamic = randomness.normal(f"{purpose} dynamic", (copies, *like.dynamic.shape[1:]), like.dynamic.device)
        with torch.no_grad():
            return Codes(static.flatten(0, 1).to(like.static), self.prior.draw(dynamic.flatten(0, 1).to(like.dynamic)))

    def _reencode(self, codes: Codes) -> Posteriors:
        return self.posteriors(self.frame_features(self.render(codes.static, codes.dynamic)))
