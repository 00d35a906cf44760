"""KerasHub's vision transformers, language and audio backbones, made tiny.

`ROLES` says what each of their weights is, written by hand from the papers and from
what the layers do with the weight in their `call`.
"""

import dataclasses
import importlib
import pkgutil


@dataclasses.dataclass(frozen=True)
class Part:
    """A model within a model, made when the outer one is."""

    name: str
    config: dict

    def build(self):
        return _find(self.name)(**{k: _built(k, v) for k, v in self.config.items()})


def _built(key, value):
    if not isinstance(value, Part):
        return value
    part = value.build()
    return part.get_config() if key.endswith("_config") else part


def _find(name):
    """A class of KerasHub, exported or not."""
    import keras_hub

    if hasattr(keras_hub.models, name):
        return getattr(keras_hub.models, name)
    folder = importlib.import_module("keras_hub.src.models")
    for module in pkgutil.walk_packages(folder.__path__, f"{folder.__name__}."):
        if not module.ispkg and name[:4].lower() in module.name.replace("_", ""):
            found = getattr(importlib.import_module(module.name), name, None)
            if found is not None:
                return found
    raise ImportError(f"KerasHub has no {name}")


TEXT = {"vocabulary_size": 11, "num_layers": 1, "hidden_dim": 8, "intermediate_dim": 12}
HEADS = {**TEXT, "num_heads": 2}
SHORT = {**HEADS, "max_sequence_length": 6}
GROUPED = {**TEXT, "num_query_heads": 2, "num_key_value_heads": 1}
EXPERTS = {**GROUPED, "num_experts": 2, "top_k": 1}
TOWER = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 12}
TEXT_TOWER = {**TOWER, "vocabulary_size": 11, "embedding_dim": 8}
VIT = {
    "image_shape": (8, 8, 3),
    "patch_size": (4, 4),
    "num_layers": 1,
    "num_heads": 2,
    "hidden_dim": 8,
    "mlp_dim": 12,
}
DINO = {
    **TOWER,
    "patch_size": 4,
    "num_register_tokens": 2,
    "image_shape": (8, 8, 3),
}
VITDET = {
    "image_shape": (16, 16, 3),
    "patch_size": 4,
    "hidden_size": 8,
    "num_layers": 2,
    "global_attention_layer_indices": [1],
    "intermediate_dim": 12,
    "num_heads": 2,
    "num_output_channels": 8,
    "window_size": 2,
}
MIT = {
    "layerwise_depths": [1, 1],
    "image_shape": (32, 32, 3),
    "hidden_dims": [4, 8],
    "num_layers": 2,
    "layerwise_num_heads": [1, 2],
    "layerwise_sr_ratios": [8, 4],
    "max_drop_path_rate": 0.1,
    "layerwise_patch_sizes": [7, 3],
    "layerwise_strides": [4, 2],
}
HYBRID = {
    **GROUPED,
    "num_layers": 2,
    "head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
    "partial_rotary_factor": 0.25,
    "linear_num_key_heads": 1,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
    "linear_conv_kernel_dim": 4,
}
T5GEMMA = {
    "vocabulary_size": 11,
    "cross_attention_hidden_size": 8,
    "query_pre_attn_scalar": 1.0,
    "attention_bias": False,
    "hidden_activation": "gelu_approximate",
    "sliding_window": 4,
    "dropout_rate": 0.0,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    **{
        f"{side}_{key}": value
        for side in ("encoder", "decoder")
        for key, value in {
            "hidden_dim": 8,
            "intermediate_dim": 12,
            "num_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 4,
            "layer_types": ["full_attention"],
        }.items()
    },
}
SMOLLM = {
    **TEXT,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "rope_layer_enabled_list": [True],
    "layer_types": ["attention"],
    "mlp_bias": False,
    "layer_norm_epsilon": 1e-5,
    "max_position_embeddings": 8,
    "rope_theta": 10000.0,
    "partial_rotary_factor": 1.0,
}
GEMMA_4_VISION = {
    **TOWER,
    "image_size": 16,
    "patch_size": 4,
    "pool_size": 2,
    "head_dim": 4,
    "num_key_value_heads": 2,
    "output_dim": 8,
}
GEMMA_3N_AUDIO = {
    "hidden_size": 4,
    "input_feat_size": 16,
    "sscp_conv_channel_size": [2, 4],
    "sscp_conv_kernel_size": [(1, 1), (1, 1)],
    "sscp_conv_stride_size": [(2, 2), (2, 2)],
    "sscp_conv_group_norm_eps": 1e-5,
    "num_hidden_layers": 1,
    "rms_norm_eps": 1e-6,
    "gradient_clipping": 1.0,
    "residual_weight": 0.5,
    "num_attention_heads": 1,
    "attention_chunk_size": 2,
    "num_attention_context_right": 1,
    "num_attention_context_left": 1,
    "attention_logit_cap": 50.0,
    "conv_kernel_size": 3,
    "reduction_factor": 1,
}
GEMMA_4_AUDIO = {
    "input_feat_size": 16,
    "hidden_size": 8,
    "num_heads": 2,
    "num_layers": 1,
    "chunk_size": 2,
    "context_left": 2,
    "sscp_conv_channels": (4, 2),
    "output_proj_dims": 6,
    "output_dim": 8,
}

VISION = {
    "BLIP2Backbone": {
        "vision_encoder": Part(
            "BLIP2VisionEncoder",
            {
                **TOWER,
                "image_size": 8,
                "patch_size": 4,
                "use_patch_bias": True,
                "use_class_token": True,
                "use_mha_bias": True,
                "use_mlp_bias": True,
                "dropout_rate": 0.0,
                "layer_norm_epsilon": 1e-6,
                "initializer_range": 0.02,
            },
        ),
        "qformer": Part(
            "BLIP2QFormer",
            {
                **TOWER,
                "num_query_tokens": 2,
                "vision_dim": 8,
                "cross_attention_frequency": 1,
                "dropout": 0.0,
                "layer_norm_epsilon": 1e-6,
            },
        ),
        "language_model": Part(
            "BLIP2CustomOPT",
            {
                **SHORT,
                "num_query_tokens": 2,
                "qformer_hidden_dim": 8,
                "language_projection": None,
                "dropout": 0.0,
            },
        ),
    },
    "CLIPBackbone": {
        "vision_encoder": Part(
            "CLIPVisionEncoder", {**TOWER, "patch_size": 4, "image_shape": (8, 8, 3)}
        ),
        "text_encoder": Part("CLIPTextEncoder", TEXT_TOWER),
        "projection_dim": 8,
    },
    "DeiTBackbone": {**TOWER, "image_shape": (8, 8, 3), "patch_size": 4},
    "DINOV2Backbone": DINO,
    "DINOV3Backbone": DINO,
    "DepthAnythingBackbone": {
        "image_encoder": Part(
            "DINOV2Backbone",
            {
                **DINO,
                "num_layers": 4,
                "num_register_tokens": 0,
                "patch_size": 14,
                "image_shape": (126, 126, 3),
                "apply_layernorm": True,
            },
        ),
        "reassemble_factors": [4, 2, 1, 0.5],
        "neck_hidden_dims": [4, 4, 8, 8],
        "fusion_hidden_dim": 8,
        "head_hidden_dim": 4,
        "head_in_index": -1,
        "feature_keys": ["stage1", "stage2", "stage3", "stage4"],
    },
    "MetaCLIP2Backbone": {
        "vision_encoder": Part(
            "MetaCLIP2VisionEncoder",
            {**TOWER, "patch_size": 4, "image_shape": (8, 8, 3)},
        ),
        "text_encoder": Part("MetaCLIP2TextEncoder", TEXT_TOWER),
        "projection_dim": 8,
    },
    "MiTBackbone": MIT,
    "PARSeqBackbone": {
        "image_encoder": Part("ViTBackbone", {**VIT, "use_class_token": False}),
        "vocabulary_size": 11,
        "max_label_length": 5,
        "decoder_hidden_dim": 8,
        "num_decoder_layers": 1,
        "num_decoder_heads": 2,
        "decoder_mlp_dim": 12,
    },
    "SAMBackbone": {
        "image_encoder": Part("ViTDetBackbone", VITDET),
        "prompt_encoder": Part(
            "SAMPromptEncoder",
            {
                "hidden_size": 8,
                "image_embedding_size": (4, 4),
                "input_image_size": (16, 16),
                "mask_in_channels": 4,
            },
        ),
        "mask_decoder": Part(
            "SAMMaskDecoder",
            {
                "num_layers": 1,
                "hidden_size": 8,
                "intermediate_dim": 12,
                "num_heads": 2,
                "embedding_dim": 8,
                "num_multimask_outputs": 3,
                "iou_head_depth": 2,
                "iou_head_hidden_dim": 4,
            },
        ),
    },
    "SAM3PromptableConceptBackbone": {
        "vision_encoder": Part(
            "SAM3VisionEncoder",
            {
                **TOWER,
                "image_shape": (28, 28, 3),
                "patch_size": 14,
                "fpn_hidden_dim": 8,
                "fpn_scale_factors": [4.0, 2.0, 1.0, 0.5],
                "pretrain_image_shape": (42, 42, 3),
                "window_size": 2,
                "global_attn_indexes": [0],
            },
        ),
        "text_encoder": Part("SAM3TextEncoder", TEXT_TOWER),
        "geometry_encoder": Part("SAM3GeometryEncoder", {**TOWER, "roi_size": 7}),
        "detr_encoder": Part("SAM3DetrEncoder", TOWER),
        "detr_decoder": Part(
            "SAM3DetrDecoder",
            {
                **TOWER,
                "image_shape": (28, 28, 3),
                "patch_size": 14,
                "num_queries": 4,
            },
        ),
        "mask_decoder": Part(
            "SAM3MaskDecoder",
            {"num_upsampling_stages": 3, "hidden_dim": 8, "num_heads": 2},
        ),
    },
    "SegFormerBackbone": {
        "image_encoder": Part("MiTBackbone", MIT),
        "projection_filters": 8,
    },
    "SigLIPBackbone": {
        "vision_encoder": Part(
            "SigLIPVisionEncoder", {**TOWER, "patch_size": 4, "image_shape": (8, 8, 3)}
        ),
        "text_encoder": Part("SigLIPTextEncoder", TEXT_TOWER),
    },
    "SwinTransformerBackbone": {
        "image_shape": (32, 32, 3),
        "embed_dim": 8,
        "depths": (1, 2),
        "num_heads": (1, 2),
        "window_size": 4,
    },
    "VideoPrismBackbone": {
        "image_shape": (8, 8, 3),
        "num_frames": 2,
        "patch_size": 4,
        "hidden_dim": 8,
        "intermediate_dim": 12,
        "num_heads": 2,
        "num_spatial_layers": 1,
        "num_temporal_layers": 1,
        "num_auxiliary_layers": 1,
        "vocabulary_size": 11,
        "num_text_layers": 1,
    },
    "ViTBackbone": VIT,
    "ViTDetBackbone": VITDET,
}

LANGUAGE = {
    "AlbertBackbone": {**HEADS, "embedding_dim": 4, "max_sequence_length": 6},
    "BartBackbone": SHORT,
    "BertBackbone": SHORT,
    "BloomBackbone": HEADS,
    "DebertaV3Backbone": SHORT,
    "DistilBertBackbone": SHORT,
    "EdRecBackbone": {
        "vocab_size": 11,
        "num_layers_enc": 1,
        "num_layers_dec": 1,
        "num_heads": 2,
        "hidden_dim": 8,
        "intermediate_dim": 12,
    },
    "ElectraBackbone": {**TOWER, "vocab_size": 11, "embedding_dim": 4},
    "ESMBackbone": HEADS,
    "FNetBackbone": {**TEXT, "max_sequence_length": 6},
    "FalconBackbone": {**TEXT, "num_attention_heads": 2},
    "GPT2Backbone": SHORT,
    "GPTNeoXBackbone": {**HEADS, "hidden_dim": 16},
    "GemmaBackbone": {**GROUPED, "head_dim": 4},
    "GptOssBackbone": {**EXPERTS, "sliding_window": 4},
    "LlamaBackbone": GROUPED,
    "Llama3Backbone": GROUPED,
    "MistralBackbone": {**GROUPED, "sliding_window": 4},
    "MixtralBackbone": {**EXPERTS, "sliding_window": 4},
    "OPTBackbone": SHORT,
    "Phi3Backbone": GROUPED,
    "QwenBackbone": GROUPED,
    "QwenMoeBackbone": {
        **EXPERTS,
        "moe_intermediate_dim": 6,
        "shared_expert_intermediate_dim": 6,
    },
    "Qwen3Backbone": {**GROUPED, "head_dim": 4},
    "Qwen3MoeBackbone": {**EXPERTS, "moe_intermediate_dim": 6, "head_dim": 4},
    "Qwen3_5Backbone": HYBRID,
    "Qwen3_5MoeBackbone": {
        **{key: value for key, value in HYBRID.items() if key != "intermediate_dim"},
        "moe_intermediate_dim": 6,
        "shared_expert_intermediate_size": 6,
        "num_experts": 2,
        "top_k": 1,
    },
    "RWKV7Backbone": {
        "vocabulary_size": 11,
        "hidden_size": 8,
        "num_layers": 2,
        "head_size": 4,
        "intermediate_dim": 12,
        "gate_lora": 4,
        "mv_lora": 4,
        "aaa_lora": 4,
        "decay_lora": 4,
    },
    "RobertaBackbone": SHORT,
    "RoformerV2Backbone": {**HEADS, "head_size": 4},
    "SmolLM3Backbone": SMOLLM,
    "T5Backbone": HEADS,
    "T5GemmaBackbone": T5GEMMA,
    "T5Gemma2Backbone": {**T5GEMMA, "use_query_key_norm": True},
    "XLMRobertaBackbone": SHORT,
    "XLNetBackbone": HEADS,
    # Language models that see or hear.
    "Gemma3Backbone": {
        **GROUPED,
        "image_size": 16,
        "head_dim": 4,
        "use_query_key_norm": True,
        "vision_encoder": Part(
            "Gemma3VisionEncoder",
            {
                **TOWER,
                "image_size": 16,
                "patch_size": 4,
                "pool_size": 2,
                "output_dim": 8,
            },
        ),
    },
    "Gemma3nBackbone": {
        "text_vocab_size": 11,
        "text_hidden_size": 4,
        "num_hidden_layers": 1,
        "pad_token_id": 0,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": 4,
        "intermediate_size": [8],
        "hidden_activation": "gelu_approximate",
        "layer_types": ["full_attention"],
        "sliding_window": 4,
        "rope_theta": 10000.0,
        "max_position_embeddings": 8,
        "vocab_size_per_layer_input": 10,
        "hidden_size_per_layer_input": 2,
        "altup_num_inputs": 2,
        "laurel_rank": 1,
        "audio_encoder_config": Part("Gemma3nAudioEncoder", GEMMA_3N_AUDIO),
        "audio_hidden_size": 4,
    },
    "Gemma4Backbone": {
        **GROUPED,
        "image_size": 16,
        "head_dim": 4,
        "vision_encoder": Part("Gemma4VisionEncoder", GEMMA_4_VISION),
        "audio_encoder": Part("Gemma4AudioEncoder", GEMMA_4_AUDIO),
    },
    "PaliGemmaBackbone": {
        **GROUPED,
        "image_size": 8,
        "head_dim": 4,
        "vit_patch_size": 4,
        "vit_num_layers": 1,
        "vit_num_heads": 2,
        "vit_hidden_dim": 8,
        "vit_intermediate_dim": 12,
    },
}

AUDIO = {
    "MoonshineBackbone": {
        "vocabulary_size": 11,
        "filter_dim": 8,
        "encoder_num_layers": 1,
        "decoder_num_layers": 1,
        "hidden_dim": 16,
        "intermediate_dim": 12,
        "encoder_num_heads": 2,
        "decoder_num_heads": 2,
    },
    "WhisperBackbone": {
        **HEADS,
        "max_encoder_sequence_length": 6,
        "max_decoder_sequence_length": 6,
    },
}

BACKBONES = {**VISION, **LANGUAGE, **AUDIO}


def build(name):
    """The tiny backbone of that name."""
    return Part(name, BACKBONES[name]).build()


# What a weight is, by its own name alone...
ROLES = {
    # ... in Keras' layers, and in KerasHub's that take over their names:
    "kernel": "kernel",
    "depthwise_kernel": "depthwise",
    "pointwise_kernel": "pointwise",
    "embeddings": "embeddings",
    "reverse_embeddings": "embeddings",
    "bias": "bias",
    "gamma": "scale",
    "scale": "scale",
    "beta": "shift",
    # ... of vision transformers: vectors put beside the patches, or added to them.
    "class_embedding": "embeddings",
    "class_token": "embeddings",
    "cls_token": "embeddings",
    "distillation_token": "embeddings",
    "mask_token": "embeddings",
    "register_tokens": "embeddings",
    "query_tokens": "embeddings",
    "probe": "embeddings",
    "pooling_attention_query": "embeddings",
    "position_embedding": "embeddings",
    "position_embedding_table": "embeddings",
    "interpolated_position_embeddings": "embeddings",
    "pos_embed": "embeddings",
    "pos_query_embeddings": "embeddings",
    "rel_pos_h": "embeddings",
    "rel_pos_w": "embeddings",
    "relative_position_bias_table": "embeddings",
    "tiled_position_embeddings": "embeddings",
    "lambda1": "scale",
    "logit_scale": "scale",
    "logit_bias": "bias",
    # ... of language models.
    "rel_embedding": "embeddings",
    "mask_emb": "embeddings",
    "segment_encoding": "embeddings",
    "content_attention_bias": "bias",
    "positional_attention_bias": "bias",
    "segment_attention_bias": "bias",
    "encoder_eoi_embedding": "embeddings",
    "decoder_eoi_embedding": "embeddings",
    "weight": "scale",  # of T5's normalization
    "sinks": "other",
    "gate_up_proj": "kernel",
    "gate_up_proj_bias": "bias",
    "down_proj": "kernel",
    "down_proj_bias": "bias",
    "expert_feedforward_gate_dense": "kernel",
    "expert_feedforward_intermediate_dense": "kernel",
    "expert_feedforward_output_dense": "kernel",
    "conv1d_kernel": "kernel",
    "dt_bias": "bias",
    "A_log": "other",
    # ... of RWKV: low-rank matrices, and vectors that mix or start from.
    **{f"{letter}{i}": "kernel" for letter in "wavg" for i in (1, 2)},
    **{f"{letter}0": "other" for letter in "wav"},
    **{f"x_{letter}": "other" for letter in "rwkvag"},
    "time_mix_k": "other",
    "k_k": "other",
    "k_a": "other",
    # ... that hear.
    "pos_proj": "kernel",
    "per_dim_scale": "scale",
    "correct_output_scale": "scale",
}
# A bonus for each head and channel, which only the paper tells from a kernel.
MISJUDGED = {"r_k": "scale"}
