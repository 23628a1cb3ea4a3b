"""
Sequence classifiers that read the mean of all token vectors, where the stock ones read the first token's alone.

This file travels with every checkpoint it belongs to, by the hub's custom-code convention: it lets
`AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)` work without Bertrand, and so
imports nothing but torch and transformers. Mean pooling is Sentence-BERT's (arXiv:1908.10084).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    BertPreTrainedModel,
    DistilBertConfig,
    DistilBertModel,
    DistilBertPreTrainedModel,
    RobertaConfig,
    RobertaModel,
    RobertaPreTrainedModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput


class _MeanPooled:
    """What the families share: encoder, dropout, one linear layer."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)  # type: ignore[call-arg]
        self.num_labels = config.num_labels
        setattr(self, self.base_model_prefix, self.encoder(config))  # type: ignore[attr-defined]
        self.pooled_length = getattr(config, "pooled_length", None)
        self.dropout = nn.Dropout(getattr(config, "hidden_dropout_prob", getattr(config, "dropout", 0.1)))
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()  # type: ignore[attr-defined]

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,  # noqa: ARG002  part of the interface of every Transformers model
    ) -> SequenceClassifierOutput:
        """Return logits of shape (batch, labels), and the loss where labels are given."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        output = self.base_model(  # type: ignore[attr-defined]
            **inputs,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            return_dict=True,
        )
        with torch.autocast(input_ids.device.type, enabled=False):  # type: ignore[union-attr]
            pooled = self.dropout(self.pool(output.last_hidden_state.float(), attention_mask))
            logits = self.classifier(pooled.to(self.classifier.weight.dtype))
        return SequenceClassifierOutput(
            loss=None if labels is None else self._loss(logits, labels),
            logits=logits,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )

    def pool(self, states: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """
        Return what the classifier reads: the mean of each text's token vectors, shape (batch, hidden).

        Where the configuration has a `pooled_length`, every mean is scaled to it: pretraining that compared sentences
        by their cosine left no meaning in lengths.

        Args:
            states: Token vectors, shape (batch, tokens, hidden).
            attention_mask: 1 for tokens, 0 for padding, shape (batch, tokens); None where nothing is padded.
        """
        mask = (
            torch.ones_like(states[..., :1])
            if attention_mask is None
            else attention_mask.unsqueeze(-1).to(states.dtype)
        )
        # A product with weights of 0 for padding, not a sum: it adds the tokens in the same order whatever comes after
        # them, so that no last bit of a score depends on the length of a neighbour in the batch.
        weights = (mask / mask.sum(dim=1, keepdim=True)).transpose(1, 2)  # (batch, 1, tokens)
        pooled = torch.matmul(weights, states).squeeze(1)  # (batch, hidden)
        if self.pooled_length:
            square = torch.matmul(pooled.unsqueeze(1), pooled.unsqueeze(2)).squeeze(2)  # (batch, 1)
            pooled = pooled * (self.pooled_length * torch.rsqrt(square))
        return pooled

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.config.problem_type == "multi_label_classification":  # type: ignore[attr-defined]
            return functional.binary_cross_entropy_with_logits(logits, labels)
        return functional.cross_entropy(logits, labels)


class MeanPooledBertConfig(BertConfig):
    """A type of its own: loaded as a stock BERT, the head would silently be a random one."""

    model_type = "mean_pooled_bert"


class MeanPooledDistilBertConfig(DistilBertConfig):
    """A type of its own: loaded as a stock DistilBERT, the head would silently be a random one."""

    model_type = "mean_pooled_distilbert"


class MeanPooledRobertaConfig(RobertaConfig):
    """A type of its own: loaded as a stock RoBERTa, the head would silently be a random one."""

    model_type = "mean_pooled_roberta"


class MeanPooledBertForSequenceClassification(_MeanPooled, BertPreTrainedModel):
    """BERT with a linear layer on the mean of its token vectors."""

    config_class = MeanPooledBertConfig

    def encoder(self, config: BertConfig) -> BertModel:
        """Make the encoder."""
        return BertModel(config, add_pooling_layer=False)


class MeanPooledDistilBertForSequenceClassification(_MeanPooled, DistilBertPreTrainedModel):
    """DistilBERT with a linear layer on the mean of its token vectors."""

    config_class = MeanPooledDistilBertConfig

    def encoder(self, config: DistilBertConfig) -> DistilBertModel:
        """Make the encoder."""
        return DistilBertModel(config)


class MeanPooledRobertaForSequenceClassification(_MeanPooled, RobertaPreTrainedModel):
    """RoBERTa with a linear layer on the mean of its token vectors."""

    config_class = MeanPooledRobertaConfig

    def encoder(self, config: RobertaConfig) -> RobertaModel:
        """Make the encoder."""
        return RobertaModel(config, add_pooling_layer=False)


MODELS = (
    MeanPooledBertForSequenceClassification,
    MeanPooledDistilBertForSequenceClassification,
    MeanPooledRobertaForSequenceClassification,
)
for _model in MODELS:
    _config = _model.config_class
    _config.register_for_auto_class()
    _model.register_for_auto_class("AutoModelForSequenceClassification")
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModelForSequenceClassification.register(_config, _model, exist_ok=True)
