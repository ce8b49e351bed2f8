"""From encoded crops to the input of networks: decoding, augmentation, backbones, devices."""
