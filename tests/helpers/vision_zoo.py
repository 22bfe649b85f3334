"""Tiny random models of every vision class, images whose patches are told apart by colour, and where each token belongs.

An image is a list of views, a view an array [gh, gw] of colour numbers; every patch of the pixels has one constant colour.
Whole HF processors need torchvision for their video half; LLaVA-NeXT's is used in its own test, Qwen's and InternVL's image
processors (PIL) make pixels here and in their tests, and everything else is built by hand from what the model documents.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel
from transformers.image_processing_utils import select_best_resolution
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

VOCAB, IMAGE, VIDEO = 97, 90, 91
COLOURS = torch.randn(600, 3, generator=torch.Generator().manual_seed(11))
LLAMA = {
    "model_type": "llama",
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
}
TEXT2 = LLAMA | {"model_type": "qwen2"}
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
VIT = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2}
SIDE, PATCH = 4, 8
CLIP = VIT | {"model_type": "clip_vision_model", "image_size": SIDE * PATCH, "patch_size": PATCH, "projection_dim": 16}
SIGLIP = VIT | {"model_type": "siglip_vision_model", "image_size": 32, "patch_size": 8, "vision_use_head": False}
QWEN = {"depth": 3, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2, "num_heads": 2}
IDS = {"image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": 92, "vision_end_token_id": 93}
PINPOINTS = [[32, 64], [64, 32], [64, 64], [32, 96], [96, 32]]

Cell = tuple[int, int, int, int] | None  # crop, frame, row, column of a placeholder token; None stands for no patch


@dataclass
class ZooImage:
    """Colour numbers of its views; `size` (height, width) in pixels for any-resolution models; `video`: views are frames."""

    views: list[np.ndarray]
    size: tuple[int, int] = (0, 0)
    video: bool = False


def pixels(view: np.ndarray, patch: int = PATCH) -> Tensor:
    """[3, gh * patch, gw * patch]."""
    return COLOURS[torch.from_numpy(view)].permute(2, 0, 1).repeat_interleave(patch, 1).repeat_interleave(patch, 2)


@dataclass
class Case:
    """One class: how to build it, how to feed images, which token shows what (slow and straight)."""

    name: str
    config: Any
    prefix: str
    block: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    opening: ClassVar[list[int]] = []

    def build(self, implementation: str = "sdpa", blind: bool = False) -> PreTrainedModel:
        """`blind`: patches do not see each other nor where they are, so a feature depends only on its own pixels."""
        torch.manual_seed(0)
        config = getattr(transformers, f"{self.prefix}Config")(**self.config | self.options)
        config._attn_implementation = implementation
        model = getattr(transformers, f"{self.prefix}ForConditionalGeneration")(config).eval().requires_grad_(False)
        model.set_attn_implementation(implementation)
        generator = torch.Generator().manual_seed(1)
        for name, p in model.named_parameters():
            if p.ndim >= 2 or "newline" in name or "cls_token" in name or "class_embedding" in name:
                p.normal_(0, 0.3, generator=generator)
        for name, p in model.named_parameters():
            if blind and ("vision_tower" in name or "visual" in name):
                out = name.split(".")[-2] in ("out_proj", "projection_layer") or ".attn.proj." in name
                if out or "position_embedding" in name or "pos_embed" in name:
                    p.zero_()
        model.generation_config.eos_token_id = None
        return model

    def image(self, seed: int, **shape: Any) -> ZooImage:
        raise NotImplementedError

    def cells(self, image: ZooImage) -> list[Cell]:
        raise NotImplementedError

    def view(self, image: ZooImage, crop: int, frame: int) -> np.ndarray:
        return image.views[frame if image.video else crop]

    def media(self, images: list[ZooImage]) -> dict[str, Any]:
        raise NotImplementedError

    def single(self, colours: np.ndarray) -> ZooImage:
        """An image with one view that repeats one block of colours."""
        return ZooImage([np.tile(colours, (SIDE // self.block, SIDE // self.block))], (32, 32))

    def inputs(self, rows: list[list[ZooImage]]) -> dict[str, Any]:
        """Left-padded prompts: two words, then every image followed by a word."""
        words = torch.Generator().manual_seed(5)
        prompts = []
        for row in rows:
            ids = torch.randint(3, 80, (2,), generator=words).tolist()
            for image in row:
                ids += self.opening + self.placeholders(image) + torch.randint(3, 80, (1,), generator=words).tolist()
            prompts.append(ids)
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        return {"input_ids": ids, "attention_mask": mask} | self.media([p for row in rows for p in row])

    def placeholders(self, image: ZooImage) -> list[int]:
        return [VIDEO if image.video else IMAGE] * len(self.cells(image))

    def features(self, model: PreTrainedModel, images: list[ZooImage]) -> list[Tensor]:
        """The model's own features of images, [n, D] each."""
        media = self.media(images)
        media.pop("mm_token_type_ids", None)
        return list(model.base_model.get_image_features(**media, return_dict=True).pooler_output)

    def encoded(self, model: PreTrainedModel, colours: Tensor) -> Tensor:
        """The encoder's output for patches of one colour, in images of one colour, [colours, C]."""
        views = torch.stack([pixels(np.full((SIDE, SIDE), int(colour))) for colour in colours])
        hidden = model.base_model.vision_tower(views, output_hidden_states=True).hidden_states
        return hidden[model.config.vision_feature_layer][:, -1]


def numbers(seed: int, *shape: int) -> np.ndarray:
    """Different colour numbers."""
    return np.random.default_rng(seed).permutation(len(COLOURS))[: int(np.prod(shape))].reshape(shape)


class LlavaCase(Case):
    def image(self, seed: int, **shape: Any) -> ZooImage:
        return ZooImage([numbers(seed, SIDE, SIDE)])

    def cells(self, image: ZooImage) -> list[Cell]:
        """Without a strategy the first vector of a view is left out: CLS, or with SigLIP a patch."""
        cells: list[Cell] = [(0, 0, r, c) for r in range(SIDE) for c in range(SIDE)]
        vectors = cells if self.config["vision_config"] is SIGLIP else [None, *cells]
        return vectors if self.options.get("vision_feature_select_strategy") == "full" else vectors[1:]

    def media(self, images: list[ZooImage]) -> dict[str, Any]:
        return {"pixel_values": torch.stack([pixels(p.views[0]) for p in images])} if images else {}


class AnyResCase(Case):
    """LLaVA-NeXT and OneVision; `size` decides canvas and padding by the papers' rule."""

    def image(self, seed: int, size: tuple[int, int] = (40, 64), video: int = 0, plain: bool = False, **_: Any) -> ZooImage:
        if video:
            return ZooImage(list(numbers(seed, video, SIDE, SIDE)), video=True)
        rows, cols = self.canvas(size)
        return ZooImage(list(numbers(seed, 1 if plain else 1 + rows * cols, SIDE, SIDE)), size)

    def canvas(self, size: tuple[int, int]) -> tuple[int, int]:
        height, width = select_best_resolution(size, self.config["image_grid_pinpoints"])
        return height // 32, width // 32

    def cells(self, image: ZooImage) -> list[Cell]:
        if image.video:
            half = SIDE // 2
            return [*((0, t, r, c) for t in range(len(image.views)) for r in range(half) for c in range(half)), None]
        result: list[Cell] = [(0, 0, r, c) for r in range(SIDE) for c in range(SIDE)]
        if len(image.views) == 1:
            return [*result, None]
        rows, cols = self.canvas(image.size)
        (height, width), tall, wide = image.size, rows * SIDE, cols * SIDE
        top = left = 0
        if width / height > wide / tall:
            top = (tall - int(round(height * wide / width, 7))) // 2
        else:
            left = (wide - int(round(width * tall / height, 7))) // 2
        for r in range(top, tall - top):
            for c in range(left, wide - left):
                result.append(((r // SIDE) * cols + c // SIDE + 1, 0, r % SIDE, c % SIDE))
            result.append(None)
        return result

    def media(self, images: list[ZooImage]) -> dict[str, Any]:
        stills, videos = [p for p in images if not p.video], [p for p in images if p.video]
        media: dict[str, Any] = {}
        if stills:
            most = max(len(p.views) for p in stills)
            media["pixel_values"] = torch.zeros(len(stills), most, 3, 32, 32)
            for i, p in enumerate(stills):
                media["pixel_values"][i, : len(p.views)] = torch.stack([pixels(v) for v in p.views])
            media["image_sizes"] = torch.tensor([p.size for p in stills])
        if videos:
            media["pixel_values_videos"] = torch.stack([torch.stack([pixels(v) for v in p.views]) for p in videos])
        return media

    def features(self, model: PreTrainedModel, images: list[ZooImage]) -> list[Tensor]:
        """Features of one view each, which these classes give only for rows of several images (OneVision), hence by hand."""
        core = model.base_model
        layer, strategy = model.config.vision_feature_layer, model.config.vision_feature_select_strategy
        hidden = core.vision_tower(torch.stack([pixels(p.views[0]) for p in images]), output_hidden_states=True)
        patches = hidden.hidden_states[layer][:, 1:] if strategy == "default" else hidden.hidden_states[layer]
        return list(core.multi_modal_projector(patches))


class InternVLCase(Case):
    def image(self, seed: int, tiles: int = 1, **_: Any) -> ZooImage:
        return ZooImage(list(numbers(seed, tiles, SIDE, SIDE)))

    def cells(self, image: ZooImage) -> list[Cell]:
        count, half = len(image.views), SIDE // 2
        return [((k + 1) % count, 0, r, c) for k in range(count) for r in range(half) for c in range(half)]

    def view(self, image: ZooImage, crop: int, frame: int) -> np.ndarray:
        return image.views[crop - 1]  # the thumbnail, crop 0, comes last

    def media(self, images: list[ZooImage]) -> dict[str, Any]:
        views = [pixels(view) for p in images for view in p.views]
        return {"pixel_values": torch.stack(views)} if views else {}


class QwenCase(Case):
    """Pixels come from the HF image processor; the frames of a video are its outputs one after the other."""

    opening: ClassVar[list[int]] = [IDS["vision_start_token_id"]]

    def image(self, seed: int, grid: tuple[int, int] = (6, 8), video: int = 0, **_: Any) -> ZooImage:
        return ZooImage(list(numbers(seed, max(video, 1), *grid)), video=bool(video))

    def single(self, colours: np.ndarray) -> ZooImage:
        return ZooImage([colours])

    def cells(self, image: ZooImage) -> list[Cell]:
        height, width = image.views[0].shape
        return [(0, t, r, c) for t in range(len(image.views)) for r in range(height // 2) for c in range(width // 2)]

    def view(self, image: ZooImage, crop: int, frame: int) -> np.ndarray:
        return image.views[frame]

    def media(self, images: list[ZooImage]) -> dict[str, Any]:
        processor = Qwen2VLImageProcessorPil(
            patch_size=4,
            temporal_patch_size=2,
            merge_size=2,
            do_resize=False,
            do_rescale=False,
            do_normalize=False,
            do_convert_rgb=False,
        )
        media: dict[str, Any] = {}
        for suffix, kind, chosen in (("", "image", False), ("_videos", "video", True)):
            flat, grids = [], []
            for image in (p for p in images if p.video == chosen):
                for view in image.views:
                    out = processor(
                        images=[pixels(view, 4).numpy()], return_tensors="pt", input_data_format="channels_first"
                    )
                    flat.append(out["pixel_values"])
                grids.append([len(image.views), *image.views[0].shape])
            if flat:
                media |= {f"pixel_values{suffix}": torch.cat(flat), f"{kind}_grid_thw": torch.tensor(grids)}
        return media

    def inputs(self, rows: list[list[ZooImage]]) -> dict[str, Any]:
        inputs = super().inputs(rows)
        ids = inputs["input_ids"]
        return inputs | {"mm_token_type_ids": (ids == IMAGE).int() + 2 * (ids == VIDEO).int()}

    def encoded(self, model: PreTrainedModel, colours: Tensor) -> Tensor:
        media = self.media([ZooImage([np.full((2, 2), int(colour))]) for colour in colours])
        output = model.base_model.visual(media["pixel_values"], grid_thw=media["image_grid_thw"])
        return output.last_hidden_state.view(len(colours), 4, -1)[:, -1]

    def placeholders(self, image: ZooImage) -> list[int]:
        if image.video and self.name == "qwen3_vl":  # timestamps between frames
            frame = len(self.cells(image)) // len(image.views)
            return [x for t in range(len(image.views)) for x in (50 + t, *[VIDEO] * frame)]
        return super().placeholders(image)


def qwen(version: str, vision: dict[str, Any], text: dict[str, Any], prefix: str) -> QwenCase:
    config = {"vision_config": QWEN | vision, "text_config": LLAMA | {"rope_parameters": MROPE} | text} | IDS
    config["text_config"].pop("model_type")
    return QwenCase(version, config, prefix, block=2)


LLAVA = {"vision_config": CLIP, "text_config": LLAMA, "image_token_id": IMAGE, "vision_feature_layer": -2}
NEXT = LLAVA | {"image_grid_pinpoints": PINPOINTS}
ONEVISION = {
    "vision_config": SIGLIP,
    "text_config": TEXT2,
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "image_grid_pinpoints": [*PINPOINTS, [96, 96]],
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "full",
    "vision_aspect_ratio": "anyres_max_9",
}
INTERN = {
    "vision_config": VIT | {"image_size": [32, 32], "patch_size": [8, 8], "use_qk_norm": True},
    "text_config": TEXT2,
    "image_token_id": IMAGE,
    "image_seq_length": 4,
}
CASES: dict[str, Case] = {
    "llava": LlavaCase("llava", LLAVA, "Llava"),
    "llava-full": LlavaCase("llava-full", LLAVA, "Llava", options={"vision_feature_select_strategy": "full"}),
    "llava-siglip": LlavaCase("llava-siglip", LLAVA | {"vision_config": SIGLIP, "vision_feature_layer": -1}, "Llava"),
    "llava_next": AnyResCase("llava_next", NEXT, "LlavaNext"),
    "llava_onevision": AnyResCase("llava_onevision", ONEVISION, "LlavaOnevision"),
    "internvl": InternVLCase("internvl", INTERN, "InternVL", block=2),
    "qwen2_vl": qwen("qwen2_vl", {"embed_dim": 24, "hidden_size": 32, "mlp_ratio": 2}, {}, "Qwen2VL"),
    "qwen2_5_vl": qwen(
        "qwen2_5_vl",
        {
            "hidden_size": 24,
            "intermediate_size": 32,
            "out_hidden_size": 32,
            "window_size": 16,
            "fullatt_block_indexes": [2],
        },
        {},
        "Qwen2_5_VL",
    ),
    "qwen3_vl": qwen(
        "qwen3_vl",
        {
            "hidden_size": 24,
            "intermediate_size": 32,
            "out_hidden_size": 32,
            "deepstack_visual_indexes": [0, 1],
            "num_position_embeddings": 16,
        },
        {"head_dim": 8, "rope_parameters": MROPE | {"mrope_interleaved": True}},
        "Qwen3VL",
    ),
}
