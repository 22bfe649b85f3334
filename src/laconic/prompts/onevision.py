"""LLaVA-OneVision's processor where torchvision is not installed: frames are prepared with Pillow, as images are.

The processor of transformers cannot be made without torchvision, because it has a half for videos. That half resizes,
rescales and normalizes frames, which the Pillow image processors of transformers do, too; values differ by rounding, one
grey level at most where nothing is resized.
"""

from __future__ import annotations

from typing import Any

from transformers import (
    AutoTokenizer,
    BatchFeature,
    LlavaOnevisionImageProcessorPil,
    LlavaOnevisionProcessor,
    SiglipImageProcessorPil,
)
from transformers.video_utils import make_batched_videos

from laconic.errors import MediaError

MODEL_TYPE = "llava_onevision"
SHARED = ("size", "resample", "image_mean", "image_std", "rescale_factor", "do_resize", "do_rescale", "do_normalize")
"""Settings that the halves for images and for videos have in common."""


class FrameProcessor(SiglipImageProcessorPil):
    """Videos -> ``pixel_values_videos`` [B, T, 3, S, S], each frame an image of its own."""

    model_input_names = ["pixel_values_videos"]

    def __call__(self, videos: Any, **options: Any) -> BatchFeature:  # type: ignore[override]
        """Prepare clips of equally many frames; `options` are those of transformers' video processors.

        Raises:
            ValueError: `do_sample_frames`, which needs the times of the frames: sample before.
            MediaError: clips of different numbers of frames in one batch.
        """
        if options.get("do_sample_frames"):
            raise ValueError("do_sample_frames=True needs torchvision; give the frames that the model is to see.")
        clips = [list(clip) for clip in make_batched_videos(videos)]
        counts = sorted({len(clip) for clip in clips})
        if len(counts) > 1:
            raise MediaError(f"clips of {', '.join(map(str, counts))} frames in one batch; give equally many of each.")
        frames = super().__call__([frame for clip in clips for frame in clip], return_tensors="pt")["pixel_values"]
        return BatchFeature({"pixel_values_videos": frames.view(len(clips), -1, *frames.shape[1:])})

    def to_dict(self) -> dict[str, Any]:
        """As the processor of transformers is saved, which then loads it."""
        saved = super().to_dict()
        saved.pop("image_processor_type", None)
        return saved | {"video_processor_type": "LlavaOnevisionVideoProcessor"}


class OnevisionProcessor(LlavaOnevisionProcessor):
    """LLaVA-OneVision's processor with a `FrameProcessor`."""

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        if argument_name == "video_processor":  # the class of transformers that it would be held against cannot be imported
            return type(argument)
        return super().check_argument_for_proper_class(argument_name, argument)

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"processor_class": "LlavaOnevisionProcessor"}


def load_onevision(path: str, **trust: Any) -> OnevisionProcessor:
    """The processor of the LLaVA-OneVision model in `path`, a folder or a Hugging Face id."""
    images = LlavaOnevisionImageProcessorPil.from_pretrained(path)
    settings, _ = LlavaOnevisionProcessor.get_processor_dict(path)
    given = settings.get("video_processor") or images.to_dict()
    frames = FrameProcessor(**{name: given[name] for name in SHARED if given.get(name) is not None})
    tokenizer = AutoTokenizer.from_pretrained(path, **trust)
    names = ("num_image_tokens", "vision_feature_select_strategy", "image_token", "video_token", "vision_aspect_ratio")
    options = {name: settings[name] for name in names if name in settings}
    template = settings.get("chat_template") or tokenizer.chat_template
    return OnevisionProcessor(images, tokenizer, frames, chat_template=template, **options)
