"""The bytes of a picture as RGB: `picture` is the one function that every reader here gets its pixels from."""
