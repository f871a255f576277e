"""The start of training: the published initialisations of DiT (section 3.2), under our stacked layout, and of T5."""

import torch
from torch import Tensor, nn

from models.attention.matrix import MatrixAttention
from models.modulation import AdaLNSingle, AdaLNZero
from models.t5.encoder import GatedFeedForward, ReluFeedForward, SelfAttention, T5Encoder
from models.transformer import Transformer


@torch.no_grad()
def initialize(model: Transformer) -> None:
    """Every block starts as the identity (its gates are zero) and the output as zero."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            _xavier(module.weight, stacked=module.out_features // module.in_features)
            nn.init.zeros_(module.bias)
        elif isinstance(module, MatrixAttention):
            _initialize_matrix(module)
    if model.label_embedding is not None:
        nn.init.normal_(model.label_embedding.weight, std=0.02)
    for linear in (model.timestep_embedding.expand, model.timestep_embedding.contract):
        nn.init.normal_(linear.weight, std=0.02)
    _initialize_modulation(model.modulation)
    nn.init.zeros_(model.output.weight)


@torch.no_grad()
def initialize_encoder(encoder: T5Encoder) -> None:
    """Every layer keeps the variance of its input; the scores of attention need no division."""
    nn.init.normal_(encoder.shared.weight)
    for module in encoder.modules():
        if isinstance(module, SelfAttention):
            nn.init.normal_(module.q.weight, std=(module.q.in_features * module.head_width) ** -0.5)
        if isinstance(module, SelfAttention | GatedFeedForward | ReluFeedForward):
            for name, linear in module.named_children():
                if isinstance(linear, nn.Linear) and name != "q":
                    nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
                elif isinstance(linear, nn.Embedding):  # the bias of distances
                    nn.init.normal_(linear.weight, std=encoder.config.d_model**-0.5)


def _initialize_modulation(modulation: nn.Module) -> None:
    if isinstance(modulation, AdaLNZero):
        nn.init.zeros_(modulation.linear.weight)
    elif isinstance(modulation, AdaLNSingle):
        nn.init.normal_(modulation.linear.weight, std=0.02)
        nn.init.zeros_(modulation.tables)
        nn.init.zeros_(modulation.output_table)


def _initialize_matrix(module: MatrixAttention) -> None:
    for name, parameter in module.named_parameters(recurse=False):
        if name.startswith("bias"):
            nn.init.zeros_(parameter)
        else:
            for matrix in parameter.view(-1, *parameter.shape[-2:]):
                nn.init.xavier_uniform_(matrix)


def _xavier(weight: Tensor, stacked: int) -> None:
    """Xavier for each square map of a stack (q, k, v), as if they were layers of their own."""
    for part in weight.chunk(stacked if stacked in (2, 3) else 1):
        nn.init.xavier_uniform_(part)
