"""The bytes of a picture as RGB: every reader here gets its pixels from `picture`."""
