"""From encoded crops to what networks take in: decoding, augmentation, backbones, devices."""
