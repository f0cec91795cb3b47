"""Tiny diffusion transformers of random weights."""

from __future__ import annotations

import torch
from diffusers.models import embeddings, transformers

from tests.parallel.tiny import FLOAT_TIMES, SHARES, WHOLE_TIMES, Denoiser, draw, randomize

_HEADS = {"num_attention_heads": 2, "attention_head_dim": 16}


def build_dit() -> Denoiser:
    """Return a class-conditional transformer that also predicts a variance."""
    model = transformers.DiTTransformer2DModel(
        **_HEADS, in_channels=4, out_channels=8, num_layers=5, sample_size=8, norm_num_groups=4
    )
    return Denoiser(randomize(model), draw(2, 4, 8, 8), WHOLE_TIMES, {"class_labels": torch.tensor([1, 2])})


def build_pixart() -> Denoiser:
    """Return a PixArt transformer; the second text is shorter."""
    model = transformers.PixArtTransformer2DModel(
        **_HEADS,
        num_layers=4,
        cross_attention_dim=32,
        caption_channels=12,
        sample_size=8,
        norm_num_groups=4,
        use_additional_conditions=False,
    )
    conditioning = {
        "encoder_hidden_states": draw(2, 5, 12, seed=2),
        "encoder_attention_mask": torch.tensor([[1.0] * 5, [1.0, 1.0, 1.0, 0.0, 0.0]]),
        "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
    }
    return Denoiser(randomize(model), draw(2, 4, 8, 8), WHOLE_TIMES, conditioning)


def build_sd3() -> Denoiser:
    """Return a joint transformer as in Stable Diffusion 3.5, with doubled attention in some blocks."""
    model = transformers.SD3Transformer2DModel(
        **_HEADS,
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=4,
        joint_attention_dim=12,
        caption_projection_dim=32,
        pooled_projection_dim=10,
        pos_embed_max_size=8,
        dual_attention_layers=(0, 1),
        qk_norm="rms_norm",
    )
    conditioning = {
        "encoder_hidden_states": draw(2, 5, 12, seed=2),
        "pooled_projections": draw(2, 10, seed=3),
    }
    return Denoiser(randomize(model), draw(2, 4, 8, 8), FLOAT_TIMES, conditioning)


def build_flux() -> Denoiser:
    """Return a FLUX transformer with guidance."""
    model = transformers.FluxTransformer2DModel(
        **_HEADS,
        in_channels=16,
        num_layers=2,
        num_single_layers=4,
        joint_attention_dim=12,
        pooled_projection_dim=10,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    )
    places = torch.stack(
        [torch.zeros(16), torch.arange(4.0).repeat_interleave(4), torch.arange(4.0).repeat(4)]
    )
    conditioning = {
        "encoder_hidden_states": draw(1, 5, 12, seed=2),
        "pooled_projections": draw(1, 10, seed=3),
        "img_ids": places.T,
        "txt_ids": torch.zeros(5, 3),
        "guidance": torch.tensor([3.5]),
    }
    return Denoiser(randomize(model), draw(1, 16, 16), SHARES, conditioning)


def build_wan() -> Denoiser:
    """Return a Wan video transformer."""
    model = transformers.WanTransformer3DModel(
        **_HEADS,
        in_channels=4,
        out_channels=4,
        text_dim=12,
        freq_dim=32,
        ffn_dim=64,
        num_layers=4,
        rope_max_seq_len=16,
    )
    return Denoiser(
        randomize(model), draw(1, 4, 2, 8, 8), WHOLE_TIMES, {"encoder_hidden_states": draw(1, 5, 12, seed=2)}
    )


def build_hunyuan_dit() -> Denoiser:
    """Return a HunyuanDiT, a transformer with skip connections."""
    model = transformers.HunyuanDiT2DModel(
        **_HEADS,
        in_channels=4,
        patch_size=2,
        sample_size=8,
        hidden_size=32,
        num_layers=6,
        cross_attention_dim=12,
        cross_attention_dim_t5=16,
        pooled_projection_dim=10,
        text_len=5,
        text_len_t5=6,
        use_style_cond_and_image_meta_size=False,
    )
    conditioning = {
        "encoder_hidden_states": draw(1, 5, 12, seed=2),
        "text_embedding_mask": torch.tensor([[1, 1, 1, 0, 0]]),
        "encoder_hidden_states_t5": draw(1, 6, 16, seed=3),
        "text_embedding_mask_t5": torch.tensor([[1, 1, 1, 1, 0, 0]]),
        "image_rotary_emb": embeddings.get_2d_rotary_pos_embed(
            16, ((0, 0), (4, 4)), (4, 4), output_type="pt"
        ),
    }
    return Denoiser(randomize(model), draw(1, 4, 8, 8), FLOAT_TIMES, conditioning)


def build_hunyuan_video() -> Denoiser:
    """Return a HunyuanVideo transformer with guidance."""
    model = transformers.HunyuanVideoTransformer3DModel(
        **_HEADS,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_single_layers=4,
        num_refiner_layers=1,
        text_embed_dim=12,
        pooled_projection_dim=10,
        rope_axes_dim=(4, 6, 6),
    )
    conditioning = {
        "encoder_hidden_states": draw(1, 5, 12, seed=2),
        "encoder_attention_mask": torch.tensor([[1, 1, 1, 0, 0]]),
        "pooled_projections": draw(1, 10, seed=3),
        "guidance": torch.tensor([6000.0]),
    }
    return Denoiser(randomize(model), draw(1, 4, 2, 8, 8), WHOLE_TIMES, conditioning)


def build_cogvideox() -> Denoiser:
    """Return a CogVideoX transformer."""
    model = transformers.CogVideoXTransformer3DModel(
        **_HEADS,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=12,
        num_layers=4,
        sample_width=8,
        sample_height=8,
        sample_frames=5,
        max_text_seq_length=5,
    )
    return Denoiser(
        randomize(model), draw(1, 2, 4, 8, 8), WHOLE_TIMES, {"encoder_hidden_states": draw(1, 5, 12, seed=2)}
    )


def build_lumina() -> Denoiser:
    """Return a Lumina-Next transformer that also predicts a variance."""
    model = transformers.LuminaNextDiT2DModel(
        sample_size=8,
        hidden_size=32,
        num_layers=4,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        cross_attention_dim=12,
    )
    conditioning = {
        "encoder_hidden_states": draw(2, 5, 12, seed=2),
        "encoder_mask": torch.tensor([[1] * 5, [1, 1, 1, 0, 0]]),
        "image_rotary_emb": embeddings.get_2d_rotary_pos_embed_lumina(16, 8, 8),
        "cross_attention_kwargs": {},
    }
    return Denoiser(randomize(model), draw(2, 4, 8, 8), SHARES, conditioning)


def build_sana() -> Denoiser:
    """Return a Sana transformer with linear attention."""
    model = transformers.SanaTransformer2DModel(
        **_HEADS,
        in_channels=4,
        out_channels=4,
        num_layers=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=16,
        cross_attention_dim=32,
        caption_channels=12,
        sample_size=8,
    )
    conditioning = {
        "encoder_hidden_states": draw(2, 5, 12, seed=2),
        "encoder_attention_mask": torch.tensor([[1] * 5, [1, 1, 1, 0, 0]]),
    }
    return Denoiser(randomize(model), draw(2, 4, 8, 8), WHOLE_TIMES, conditioning)


def build_auraflow() -> Denoiser:
    """Return an AuraFlow transformer."""
    model = transformers.AuraFlowTransformer2DModel(
        **_HEADS,
        sample_size=8,
        in_channels=4,
        num_mmdit_layers=2,
        num_single_dit_layers=4,
        joint_attention_dim=12,
        caption_projection_dim=32,
        pos_embed_max_size=16,
    )
    return Denoiser(
        randomize(model), draw(2, 4, 8, 8), SHARES, {"encoder_hidden_states": draw(2, 5, 12, seed=2)}
    )


def build_ltx() -> Denoiser:
    """Return an LTX video transformer."""
    model = transformers.LTXVideoTransformer3DModel(
        **_HEADS, in_channels=8, out_channels=8, cross_attention_dim=32, num_layers=4, caption_channels=12
    )
    conditioning = {
        "encoder_hidden_states": draw(1, 5, 12, seed=2),
        "encoder_attention_mask": torch.tensor([[1, 1, 1, 0, 0]]),
        "num_frames": 2,
        "height": 4,
        "width": 4,
    }
    return Denoiser(randomize(model), draw(1, 32, 8), WHOLE_TIMES, conditioning)


def build_qwen() -> Denoiser:
    """Return a Qwen-Image transformer."""
    model = transformers.QwenImageTransformer2DModel(
        **_HEADS,
        in_channels=16,
        out_channels=4,
        num_layers=4,
        joint_attention_dim=12,
        axes_dims_rope=(4, 6, 6),
    )
    conditioning = {
        "encoder_hidden_states": draw(1, 5, 12, seed=2),
        "encoder_hidden_states_mask": torch.tensor([[1, 1, 1, 0, 0]]),
        "img_shapes": [(1, 4, 4)],
    }
    return Denoiser(randomize(model), draw(1, 16, 16), SHARES, conditioning)


def build_mochi() -> Denoiser:
    """Return a Mochi video transformer."""
    model = transformers.MochiTransformer3DModel(
        **_HEADS,
        num_layers=4,
        pooled_projection_dim=16,
        in_channels=4,
        text_embed_dim=16,
        time_embed_dim=8,
        max_sequence_length=5,
    )
    conditioning = {
        "encoder_hidden_states": draw(1, 5, 16, seed=2),
        "encoder_attention_mask": torch.tensor([[1, 1, 1, 0, 0]]).bool(),
    }
    return Denoiser(randomize(model), draw(1, 4, 2, 8, 8), WHOLE_TIMES, conditioning)


def build_lumina2() -> Denoiser:
    """Return a Lumina 2 transformer."""
    model = transformers.Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=24,
        num_layers=4,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=2,
        axes_dim_rope=(4, 4, 4),
        axes_lens=(16, 16, 16),
        cap_feat_dim=12,
    )
    conditioning = {
        "encoder_hidden_states": draw(2, 5, 12, seed=2),
        "encoder_attention_mask": torch.tensor([[1] * 5, [1, 1, 1, 0, 0]]).bool(),
    }
    return Denoiser(randomize(model), draw(2, 4, 8, 8), SHARES, conditioning)
