"""From encoded crops to tensors: decoding, augmentation, backbones."""
