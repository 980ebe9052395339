"""The steps of `nn.fuse`: following code, finding chains and ReLUs, and the resulting forward."""
