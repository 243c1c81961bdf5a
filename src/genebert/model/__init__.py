"""The network: a BERT sequence encoder and a Swin region encoder behind one `PreTrainedModel`."""
