"""What a video costs, before it is made: denoising steps x rows of the batch x tokens."""

from jobs.cards import ModelCard
from jobs.records import VideoRequest

# Pixels of a frame that one token stands for where a card does not say: a VAE of 8 x 8, patches of 2 x 2.
_PIXELS_PER_TOKEN = 256


def video_cost(request: VideoRequest, card: ModelCard) -> int:
    """The unit that workers measure themselves by: a guided request has two rows, an unguided one has one."""
    tokens_per_frame = card.tokens_per_frame or max(1, card.height * card.width // _PIXELS_PER_TOKEN)
    return request.num_inference_steps * rows(request, card) * request.num_frames * tokens_per_frame


def rows(request: VideoRequest, card: ModelCard) -> int:
    """Rows of the batch that the request fills at each of its steps."""
    return 1 if request.guidance_scale == 1 or card.conditioning == "none" else 2
