"""What varies training images: on the host for small data sets (`crop_flip`), on the device for the rest."""
