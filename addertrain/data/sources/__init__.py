"""Sources of images that are packed or read: folders, lists of files, torchvision's data sets."""
