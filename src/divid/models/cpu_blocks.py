"""Blocks of the U-Net as a CPU computes them soonest: parameters, names and results (to float tolerance) are diffusers'."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


def is_float32_on_cpu(x: Tensor) -> bool:
    """Say whether something is computed on a CPU, and in float32; elsewhere diffusers' blocks stay as they are.

    Args:
        x: A feature map or sequence.
    """
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


def quicken(unet: nn.Module) -> None:
    """Let the blocks of a U-Net be computed by the classes of this file wherever these know how.

    Args:
        unet: Of diffusers; its modules change their classes, nothing else.
    """
    for module in unet.modules():
        module.__class__ = _QUICKER.get(module.__class__, module.__class__)


def as_in_diffusers(unet: nn.Module) -> None:
    """Let the blocks of a U-Net be computed by diffusers' own code again: what speed is measured against.

    Args:
        unet: One that `quicken` has changed.
    """
    slower = {quicker: own for own, quicker in _QUICKER.items()}
    for module in unet.modules():
        module.__class__ = slower.get(module.__class__, module.__class__)


def linear(
    x: Float[Tensor, "*places inputs"], weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, " outputs"] | None
) -> Float[Tensor, "*places outputs"]:
    """Give x W' + b, in sampling by oneDNN where PyTorch has it: otherwise b is first copied to every place of the result.

    Args:
        x: Any number of places.
        weight: W.
        bias: b; None: none.
    """
    if not torch.is_grad_enabled() and is_float32_on_cpu(x) and has_onednn_linear():
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return functional.linear(x, weight, bias)


def has_onednn_linear() -> bool:
    """Say whether this PyTorch has oneDNN's linear layer, which its own compiler also calls."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class SplitGEGLU(GEGLU):
    """Gated unit whose two halves are products of their own: GELU of half of every row does without vector instructions."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Give W_1 x + b_1, gated by GELU(W_2 x + b_2)."""
        if hidden_states.device.type != "cpu":
            return super().forward(hidden_states, *args, **kwargs)
        weights, biases = self.proj.weight.chunk(2), self.proj.bias.chunk(2)
        values, gates = (linear(hidden_states, weight, bias) for weight, bias in zip(weights, biases, strict=True))
        return functional.gelu(gates) * values


class PhaseUpsample(Upsample2D):
    """Doubling of the size by nearest neighbours and a 3x3 convolution, as one 2x2 convolution of the small feature map."""

    def forward(self, hidden_states: Tensor, output_size: int | None = None, *args: Any, **kwargs: Any) -> Tensor:
        """Give the feature map, twice as high and wide, convolved."""
        if not self._is_usual() or output_size is not None or not is_float32_on_cpu(hidden_states):
            return super().forward(hidden_states, output_size, *args, **kwargs)
        return upsample_and_convolve(hidden_states, self.conv.weight, self.conv.bias)

    def _is_usual(self) -> bool:
        return self.use_conv and self.name == "conv" and self.interpolate and not self.use_conv_transpose and self.norm is None


def upsample_and_convolve(
    x: Float[Tensor, "images inputs height width"],
    weight: Float[Tensor, "outputs inputs 3 3"],
    bias: Float[Tensor, " outputs"],
) -> Float[Tensor, "images outputs double_height double_width"]:
    """Double by nearest neighbours, then convolve by a 3x3 kernel with a border of zeros, without making the large map between.

    Of the four places that come from one, each sees 2x2 different places of the small map through the kernel, whose weights of
    equal places are added beforehand: 4 products instead of 9. All four are outputs of one convolution, 2x2 with a border.

    Args:
        x: Feature map.
        weight: Kernel.
        bias: Of the convolution.
    """
    images, _, height, width = x.shape
    first, middle, last = weight.unbind(2)
    rows = torch.stack([first, middle + last]), torch.stack([first + middle, last])  # of the upper and the lower place
    kernels = []
    for row in rows:
        first, middle, last = row.unbind(-1)
        kernels += [torch.stack([first, middle + last], -1), torch.stack([first + middle, last], -1)]
    kernel = torch.cat(kernels, 1).movedim(0, 2)
    together = functional.conv2d(x, kernel, bias.repeat(4), padding=1).permute(0, 2, 3, 1).chunk(4, -1)
    upper_left, upper_right, lower_left, lower_right = (
        part[:, place // 2 : place // 2 + height, place % 2 : place % 2 + width] for place, part in enumerate(together)
    )
    upper, lower = torch.stack([upper_left, upper_right], 3), torch.stack([lower_left, lower_right], 3)
    result = torch.stack([upper, lower], 2).view(images, 2 * height, 2 * width, -1).permute(0, 3, 1, 2)
    return result.contiguous() if x.is_contiguous() else result


class ModulatedResnet(ResnetBlock2D):
    """Residual block whose scale and shift by the time step join the norm's own, and which divides nothing by 1."""

    def forward(self, input_tensor: Tensor, temb: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Give the feature map after the block."""
        if not self._is_usual() or temb is None or not is_float32_on_cpu(input_tensor):
            return super().forward(input_tensor, temb, *args, **kwargs)
        in_place = not torch.is_grad_enabled()
        hidden = self.conv1(functional.silu(self.norm1(input_tensor), inplace=in_place))
        scale, shift = self.time_emb_proj(functional.silu(temb)).chunk(2, dim=1)
        hidden = modulated_norm(self.norm2, hidden, scale, shift)
        hidden = self.conv2(self.dropout(functional.silu(hidden, inplace=in_place)))
        straight = input_tensor if self.conv_shortcut is None else self.conv_shortcut(input_tensor)
        return hidden.add_(straight) if in_place else hidden + straight

    def _is_usual(self) -> bool:
        return (
            self.time_embedding_norm == "scale_shift"
            and isinstance(self.nonlinearity, nn.SiLU)
            and self.time_emb_proj is not None
            and not self.skip_time_act
            and self.upsample is None
            and self.downsample is None
            and self.output_scale_factor == 1
        )


def modulated_norm(
    norm: nn.GroupNorm,
    x: Float[Tensor, "images channels height width"],
    scale: Float[Tensor, "images channels"],
    shift: Float[Tensor, "images channels"],
) -> Float[Tensor, "images channels height width"]:
    """Give norm(x) (1 + scale) + shift, with one pass over the feature map after the norm's or, channels first, none.

    Args:
        norm: With weight and bias.
        x: Feature map.
        scale: Of each image.
        shift: Of each image.
    """
    weight = norm.weight * (1 + scale)
    bias = norm.bias * (1 + scale) + shift
    if x.is_contiguous():  # every image's channels count as channels of one picture
        as_one = x.view(1, -1, *x.shape[2:])
        return functional.group_norm(as_one, len(x) * norm.num_groups, weight.flatten(), bias.flatten(), norm.eps).view_as(x)
    plain = functional.group_norm(x, norm.num_groups, eps=norm.eps)
    return torch.addcmul(bias[..., None, None], plain, weight[..., None, None])


class SequenceTransformer(Transformer2DModel):
    """Transformer whose first and last layer take the sequence of places: feature maps with channels last are such sequences."""

    def _operate_on_continuous_inputs(self, hidden_states: Tensor) -> tuple[Tensor, int]:
        if self.use_linear_projection or not is_float32_on_cpu(hidden_states):
            return super()._operate_on_continuous_inputs(hidden_states)
        sequence = self.norm(hidden_states).permute(0, 2, 3, 1).flatten(1, 2)
        sequence = linear(sequence, self.proj_in.weight.flatten(1), self.proj_in.bias)
        return sequence, sequence.shape[-1]

    def _get_output_for_continuous_inputs(
        self, hidden_states: Tensor, residual: Tensor, batch_size: int, height: int, width: int, inner_dim: int
    ) -> Tensor:
        if self.use_linear_projection or not is_float32_on_cpu(hidden_states):
            return super()._get_output_for_continuous_inputs(hidden_states, residual, batch_size, height, width, inner_dim)
        sequence = linear(hidden_states, self.proj_out.weight.flatten(1), self.proj_out.bias)
        places = sequence.unflatten(1, (height, width)).permute(0, 3, 1, 2)
        return (places.contiguous() if residual.is_contiguous() else places) + residual


_QUICKER: dict[type, type] = {
    GEGLU: SplitGEGLU,
    Upsample2D: PhaseUpsample,
    ResnetBlock2D: ModulatedResnet,
    Transformer2DModel: SequenceTransformer,
}
