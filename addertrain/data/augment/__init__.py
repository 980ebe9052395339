"""Augmentation of training images: `crop_flip` on the host for small data sets, the others on the device."""
