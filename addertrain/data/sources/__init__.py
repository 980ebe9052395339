"""Where pictures come from before they are packed or read: folders, lists of files, torchvision's sets."""
