"""What `nn.fuse` is made of: following code, finding chains and ReLUs, and the forward that results."""
